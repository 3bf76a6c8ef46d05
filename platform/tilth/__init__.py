"""The few things that Dagster's open source lacks; each module has one subject."""
