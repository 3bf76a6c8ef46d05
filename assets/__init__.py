"""One package per domain, each a code location of its own."""
