"""Files that feeds land, into the warehouse: parsed, checked against a schema, stored or set aside with a reason."""
