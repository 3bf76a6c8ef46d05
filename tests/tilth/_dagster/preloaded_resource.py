"""A code location with a resource that is preloaded."""

import dagster as dg


class Slow:
    """Takes long when it is first used."""

    def preload(self) -> None:
        print("preloaded")


slow = Slow()
defs = dg.Definitions(resources={"slow": slow, "the same": slow, "text": "nothing to preload"})
