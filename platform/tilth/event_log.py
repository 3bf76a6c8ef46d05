"""Dagster's SQLite event log with a range of partitions stored as one batch, for the instance on a laptop.

Dagster hands a step's materializations to its storage as a batch; PostgreSQL's storage takes it as one, SQLite's opens
two databases per event instead: 10 ms each, most of a year's backfill. A batch is also seen whole or not at all, so
automation never finds half of what a step made of up to 500 partitions.

The classes and methods here are not Dagster's public API: docs/upgrading.md names this file.
"""

import os
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from dagster import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from sqlalchemy.engine import Connection

# Dagster collects up to this many events of one step before it stores them.
BATCH_SIZE = "500"


class _Batch(threading.local):
    """The open transactions of this thread's batch by database; None outside of one."""

    transactions: ExitStack | None = None
    connections: dict[str, Connection]


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """Dagster's own storage, in its files under `$DAGSTER_HOME`; only how many events share a transaction differs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", BATCH_SIZE)
        self._batch = _Batch()
        super().__init__(base_dir, inst_data)
        # The base class takes its lock for each database; a batch has two of them open.
        self._db_lock: Any = threading.RLock()

    @classmethod
    def config_type(cls) -> Mapping[str, Any]:
        return {}

    @classmethod
    def from_config_value(cls, inst_data: ConfigurableClassData | None, config_value: Mapping[str, Any]) -> Self:  # noqa: ARG003
        home = os.environ.get("DAGSTER_HOME")
        if not home:
            raise KeyError("DAGSTER_HOME is not set: it names the folder of Dagster's storage, .tilth/dagster here.")
        return cls(str(Path(home, "history", "runs")), inst_data)

    @contextmanager
    def _connect(self, shard: str) -> Iterator[Connection]:
        batch = self._batch
        if batch.transactions is None:
            with super()._connect(shard) as connection:
                yield connection
            return
        if shard not in batch.connections:
            batch.connections[shard] = batch.transactions.enter_context(super()._connect(shard))
        yield batch.connections[shard]

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store all of them in one transaction per database, or none."""
        with ExitStack() as transactions:
            self._batch.transactions, self._batch.connections = transactions, {}
            try:
                for event in events:
                    self.store_event(event)
            finally:
                self._batch.transactions = None
