"""Write, audit, publish: what a dbt command builds and tests is one transaction, committed once its tests have passed.

By itself dbt commits each model before the model's tests run. Here its connections are one, which takes dbt's BEGIN,
COMMIT and ROLLBACK for done: the tests read what nobody else can, and what fails them is rolled back. After a process
that is killed its database does that.

This rests on what is not public in dbt and its adapters.
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from typing import Any

from dbt.adapters.contracts.connection import Connection, ConnectionState
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.adapters.postgres.connections import PostgresConnectionManager
from dbt.adapters.sql.connections import SQLConnectionManager
from dbt_common.events.contextvars import get_node_info
from dbt_common.exceptions import DbtRuntimeError

# dbt's own statements, and the hooks' that run outside of a model's transaction.
_OURS = {"begin", "commit", "rollback"}


class Transaction:
    """That of one dbt command, which runs with one thread: what is not committed is rolled back."""

    def __init__(self) -> None:
        self.failed_in = ""
        """The model or test, by its unique id, whose statement ended the transaction; nothing is executed after it."""
        self._handle: Any = None
        self._id: Any = None

    def opened(self, open_first: Callable[[Connection], Connection], connection: Connection, begin: str) -> Connection:
        """The connection, with the transaction's handle."""
        if self._handle is None:
            self._handle = open_first(connection).handle
            self._handle.cursor().execute(begin)
            self._id = self._current()
        connection.handle = _Handle(self._handle, self)
        connection.state = ConnectionState.OPEN
        return connection

    def commit(self) -> None:
        """Publish what was built.

        Raises:
            RuntimeError: a statement failed and dbt went on.
            DbtRuntimeError: the SQL of a model or hook has a COMMIT in it.
        """
        if self.failed_in:
            raise RuntimeError(f"A statement of {self.failed_in} failed and dbt went on; nothing of its build is kept.")
        if self._handle is None:
            return
        self.check()
        self._handle.cursor().execute("COMMIT")
        self._handle.close()
        self._handle = None

    def check(self) -> None:
        """Whether it is still the one that began.

        Raises:
            DbtRuntimeError: the SQL of a model or hook has ended it.
        """
        if self._current() != self._id:
            raise DbtRuntimeError(
                "The SQL of a model, macro or hook commits, so that rows can be read before they are tested. Take its "
                "COMMIT out, and make what it built again."
            )

    def close(self) -> None:
        """Roll back what was not committed."""
        if self._handle is not None:
            with suppress(Exception):  # a connection that is lost took its transaction with it
                self._handle.rollback()
            self._handle.close()

    def _current(self) -> Any:
        cursor = self._handle.cursor()
        cursor.execute("SELECT txid_current()")
        return cursor.fetchone()


class _Handle:
    """The one connection's handle, as each of dbt's connections has it: it neither ends the transaction nor closes."""

    def __init__(self, handle: Any, transaction: Transaction) -> None:
        self._handle, self._transaction = handle, transaction

    def cursor(self) -> "_Cursor":
        return _Cursor(self._handle.cursor(), self._transaction)

    def rollback(self) -> None:
        """dbt does so after each test."""

    def close(self) -> None:
        """dbt does so after each model and test."""

    def cancel(self) -> None:
        self._handle.cancel()


class _Cursor:
    def __init__(self, cursor: Any, transaction: Transaction) -> None:
        self._cursor, self._transaction = cursor, transaction

    def execute(self, sql: str, bindings: Any = None) -> Any:
        if sql.rpartition("*/")[2].strip(" ;\n").lower() in _OURS:
            return self
        if self._transaction.failed_in:
            raise DbtRuntimeError(f"Not run, for {self._transaction.failed_in} failed.")
        self._transaction.check()
        try:
            return self._cursor.execute(sql, bindings)
        except BaseException:
            if self._is_aborted():
                self._transaction.failed_in = get_node_info().get("unique_id") or "dbt"
            raise

    def _is_aborted(self) -> bool:
        """Whether the error has ended the transaction: PostgreSQL's all do, DuckDB's of names and syntax don't."""
        try:
            self._cursor.execute("SELECT 1")
        except Exception:  # noqa: BLE001 (each driver has its own)
            return True
        return False

    def __getattr__(self, name: str) -> Any:
        return getattr(self._cursor, name)


@contextmanager
def one_transaction() -> Iterator[Transaction]:
    """Around a dbt command of one thread: its transaction, rolled back at the end unless it was committed."""
    transaction = Transaction()

    def cancel(_: Any, connection: Any) -> None:
        connection.handle.cancel()

    with (
        _opening(DuckDBConnectionManager, transaction, "BEGIN"),
        _opening(PostgresConnectionManager, transaction, "SELECT 1"),  # its driver begins by itself
        # dbt-postgres would cancel by a statement on a second connection, which is the same one here.
        _replaced(PostgresConnectionManager, "cancel", cancel),
    ):
        try:
            yield transaction
        finally:
            transaction.close()


@contextmanager
def _opening(manager: type[SQLConnectionManager], transaction: Transaction, begin: str) -> Iterator[None]:
    open_first = manager.open

    def opened(_: Any, connection: Connection) -> Connection:
        return transaction.opened(open_first, connection, begin)

    with _replaced(manager, "open", classmethod(opened)):
        yield


@contextmanager
def _replaced(owner: type, name: str, value: Any) -> Iterator[None]:
    before = owner.__dict__[name]
    setattr(owner, name, value)
    try:
        yield
    finally:
        setattr(owner, name, before)
