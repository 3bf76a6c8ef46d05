"""Small values that an instance keeps by name, where its daemons keep their cursors."""

from collections.abc import Mapping, Sequence

import dagster as dg


def kept_values(instance: dg.DagsterInstance, names: Sequence[str]) -> Mapping[str, str]:
    """What is kept under those of these names under which anything is."""
    return instance.daemon_cursor_storage.get_cursor_values({*names})


def keep_value(instance: dg.DagsterInstance, name: str, value: str) -> None:
    """Keep a value, in place of the one before it."""
    instance.daemon_cursor_storage.set_cursor_values({name: value})
