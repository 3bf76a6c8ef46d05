"""Dagster's SQLite event log with a range of partitions stored as one batch, for the instance on a laptop.

Dagster hands a step's materializations to its storage as a batch; PostgreSQL's storage takes it as one, SQLite's opens
two databases per event instead: 10 ms each, most of a year's backfill. A batch is also seen whole or not at all, so
automation never finds half of what a step made of up to 500 partitions.

Connections stay open while they are used, and a commit does not wait for the disk: opening, closing and waiting were
half of a small step. A process that is killed loses nothing by it; a machine that loses its power may lose the last
events, and what they record is then made again.

To open a storage has alembic read all of its revisions' files: 50 ms of CPU for the three that each look of a sensor
opens. A process reads them once.

A step that waits for a place in its pool looks for it five times a second: on one machine that costs nothing.

The classes and methods here are not Dagster's public API: docs/upgrading.md names this file.
"""

import functools
import os
import threading
from collections import OrderedDict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any, Self

from alembic.script import ScriptDirectory
from dagster import EventLogEntry
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster._serdes import ConfigurableClassData
from dagster._utils.concurrency import ConcurrencyClaimStatus
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Connection, Engine
from sqlalchemy.pool import QueuePool

# Dagster collects up to this many events of one step before it stores them.
BATCH_SIZE = "500"

# Each run has a database of its own; so many are kept open.
_OPEN = 8
_BUSY_SECONDS = 60
# How often a step looks whether its pool has a place. Dagster begins with one second, and waits longer each time.
_POOL_SECONDS = 0.2

ScriptDirectory.from_config = functools.cache(ScriptDirectory.from_config)


class _Batch(threading.local):
    """The open transactions of this thread's batch by database; None outside of one."""

    transactions: ExitStack | None = None
    connections: dict[str, Connection]


class BatchedSqliteEventLogStorage(SqliteEventLogStorage):
    """Dagster's own storage, in its files under `$DAGSTER_HOME`; only how many events share a transaction differs."""

    def __init__(self, base_dir: str, inst_data: ConfigurableClassData | None = None) -> None:
        os.environ.setdefault("DAGSTER_EVENT_BATCH_SIZE", BATCH_SIZE)
        self._batch = _Batch()
        self._engines: OrderedDict[str, Engine] = OrderedDict()
        self._process = os.getpid()
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
            with self._transaction(shard) as connection:
                yield connection
            return
        if shard not in batch.connections:
            batch.connections[shard] = batch.transactions.enter_context(self._transaction(shard))
        yield batch.connections[shard]

    @contextmanager
    def _transaction(self, shard: str) -> Iterator[Connection]:
        with self._db_lock, self._engine(shard).begin() as connection:
            yield connection

    def _engine(self, shard: str) -> Engine:
        if self._process != os.getpid():
            # A fork may not use its parent's connections, nor close them.
            for engine in self._engines.values():
                engine.dispose(close=False)
            self._engines.clear()
            self._process = os.getpid()
        if shard not in self._engines:
            engine = create_engine(
                self.conn_string_for_shard(shard),
                poolclass=QueuePool,
                pool_size=1,
                max_overflow=-1,
                # One thread at a time has it, by the lock.
                connect_args={"timeout": _BUSY_SECONDS, "check_same_thread": False},
            )
            event.listen(engine, "connect", _does_not_wait_for_the_disk)
            if shard not in self._initialized_dbs:
                self._initdb(engine)
                self._initialized_dbs.add(shard)
            self._engines[shard] = engine
            while len(self._engines) > _OPEN:
                self._engines.popitem(last=False)[1].dispose()
        self._engines.move_to_end(shard)
        return self._engines[shard]

    def dispose(self) -> None:
        """Close what is open."""
        super().dispose()
        while self._engines and self._process == os.getpid():
            self._engines.popitem()[1].dispose()

    def claim_concurrency_slot(
        self, concurrency_key: str, run_id: str, step_key: str, priority: int | None = None
    ) -> ConcurrencyClaimStatus:
        claim = super().claim_concurrency_slot(concurrency_key, run_id, step_key, priority)
        return claim if claim.is_claimed else claim.with_sleep_interval(_POOL_SECONDS)

    def store_event_batch(self, events: Sequence[EventLogEntry]) -> None:
        """Store all of them in one transaction per database, or none."""
        with ExitStack() as transactions:
            self._batch.transactions, self._batch.connections = transactions, {}
            try:
                for event in events:
                    self.store_event(event)
            finally:
                self._batch.transactions = None


def _does_not_wait_for_the_disk(connection: Any, _: Any) -> None:
    # With a write-ahead log, which Dagster sets, this is as safe against the death of a process as waiting.
    connection.execute("PRAGMA synchronous=NORMAL")
