"""Connections to PostgreSQL: kept for the questions of one sensor's tick, and waited for while the database is away.

Dagster connects anew for every query, but in its webserver, and tries six times within as many seconds. A tick over the
conditions of seventeen assets asks some seventy times, the reconciler two hundred times, and most of their seconds were
logins. And a PostgreSQL that is restarted, moved to another node or failed over is away for longer than six seconds:
then every run in flight failed, and one whose steps ended meanwhile had nothing left to try again.

docs/upgrading.md names what here is not Dagster's public API.
"""

import re
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import dagster as dg

# Queries that are asked side by side take more than the one connection, which is kept.
_AT_ONCE = 20
_FOR_EVER = -1
_WITHOUT_LIMIT = 0
# Of each of Dagster's six tries: two minutes in all.
WAIT_SECONDS = 20.0
_PAUSE_SECONDS = 0.5
# What passes, in libpq's words. A wrong password or database does not.
_AWAY = re.compile(
    "refused|timed out|timeout expired|translate host name|starting up|shutting down|not accepting connections"
    "|not yet accepting|closed the connection|No route to host"
)


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


def outlast_database_outages() -> None:
    """From now on, in this process and its forks, whatever connects to PostgreSQL through SQLAlchemy waits for it."""
    from sqlalchemy import event
    from sqlalchemy.engine import Engine

    event.listen(Engine, "do_connect", _connect)


def _connect(dialect: Any, _: Any, arguments: Any, parameters: Any) -> Any:
    if dialect.name != "postgresql":
        return None
    end = time.monotonic() + WAIT_SECONDS
    while True:
        try:
            return dialect.connect(*arguments, **parameters)
        except dialect.loaded_dbapi.OperationalError as problem:
            if time.monotonic() > end or not _AWAY.search(str(problem)):
                raise
        time.sleep(_PAUSE_SECONDS)
