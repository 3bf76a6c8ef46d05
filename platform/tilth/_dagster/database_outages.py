"""A run and its steps wait for their database while it is away, instead of failing all that they have in hand.

Dagster tries six times within as many seconds. A PostgreSQL that is restarted, moved to another node or failed over is
away for longer; then every run in flight failed, and one whose steps ended meanwhile had nothing left to try again.
"""

import re
import time
from typing import Any

# Of each of Dagster's six tries: two minutes in all.
WAIT_SECONDS = 20.0
_PAUSE_SECONDS = 0.5
# What passes, in libpq's words. A wrong password or database does not.
_AWAY = re.compile(
    "refused|timed out|timeout expired|translate host name|starting up|shutting down|not accepting connections"
    "|not yet accepting|closed the connection|No route to host"
)


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
