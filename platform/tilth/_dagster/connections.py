"""A sensor's look takes one connection to PostgreSQL, not one for each of its questions.

Dagster connects anew for every query, but in its webserver. A look at the conditions of seventeen assets asks some
seventy times, the sweep two hundred times: of their seconds most went into connecting, a login each.

What is used of Dagster here is not its public API: docs/upgrading.md names this file.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

# Queries that are asked side by side take more than the one connection, which is kept.
_AT_ONCE = 20
_FOR_EVER = -1
_WITHOUT_LIMIT = 0


@contextmanager
def kept_connections(instance: dg.DagsterInstance) -> Iterator[None]:
    """Within it the instance's connections are kept for its next queries; in the end they are closed. For one thread's
    work, and not around a fork. On SQLite it changes nothing.
    """
    from sqlalchemy.engine import Engine

    storages: list[Any] = [instance.run_storage, instance.event_log_storage, instance.schedule_storage]
    before = [
        (storage, storage._engine) for storage in storages if isinstance(getattr(storage, "_engine", None), Engine)
    ]
    # What Dagster's webserver does, which keeps its connections.
    instance.optimize_for_webserver(_WITHOUT_LIMIT, _FOR_EVER, _AT_ONCE)
    try:
        yield
    finally:
        for storage, engine in before:
            storage._engine.dispose()
            storage._engine = engine
