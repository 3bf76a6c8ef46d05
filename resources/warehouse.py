"""The warehouse: SQL tables read and written as Arrow through ADBC, on a DuckDB file or on PostgreSQL."""

import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import adbc_driver_manager
import dagster as dg
import pyarrow as pa
from adbc_driver_manager import dbapi
from pydantic import SecretStr

from resources.frames import Frame, as_annotated, partition_column, partition_keys, wanted_columns

LOCK_WAIT_SECONDS = 120.0


class WarehouseBusyError(RuntimeError):
    """Another process held the DuckDB file for longer than the wait."""


def _literal(value: str) -> str:
    # Quoted and untyped: both engines read it as the type of the column that it is compared with.
    return "'" + value.replace("'", "''") + "'"


def condition(column: str, values: Sequence[str]) -> str:
    """The SQL condition that holds for the rows whose `column` is one of `values`; no row for no value."""
    if not values:
        return "1 = 0"
    return f'"{column}" IN ({", ".join(_literal(v) for v in sorted(set(values)))})'


class Transaction:
    """An open transaction: it is committed whole when its `with` block ends, and rolled back on any error."""

    def __init__(self, connection: dbapi.Connection) -> None:
        self._connection = connection

    def execute(self, sql: str) -> None:
        """Run one statement that returns nothing."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql)

    def read(self, sql: str) -> pa.Table:
        """Run one query; its whole result as Arrow."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()

    def exists(self, table: str) -> bool:
        """Whether `schema.name` is a table or view."""
        schema, name = table.split(".")
        found = self.read(
            "SELECT 1 AS found FROM information_schema.tables "
            f"WHERE table_schema = {_literal(schema)} AND table_name = {_literal(name)}"
        )
        return found.num_rows > 0

    def replace(self, table: str, rows: pa.Table, column: str | None = None, values: Sequence[str] = ()) -> None:
        """Put `rows` in place of those whose `column` is one of `values` (of all rows when no column is given).

        The schema and the table are made from the Arrow schema when they are missing.
        """
        schema, name = table.split(".")
        self.execute(f'CREATE SCHEMA IF NOT EXISTS "{schema}"')
        if self.exists(table):
            where = "1 = 1" if column is None else condition(column, values)
            self.execute(f'DELETE FROM "{schema}"."{name}" WHERE {where}')
        # A cursor of its own: DuckDB's driver keeps the ingest's binding on the cursor that made it.
        with self._connection.cursor() as cursor:
            cursor.adbc_ingest(name, rows, mode="create_append", db_schema_name=schema)


@dataclass(frozen=True)
class Warehouse:
    """Where SQL tables live.

    `uri` is `duckdb:///<path of the file>` or `postgresql://…`. A plain object, so that it works in a notebook
    without Dagster running, and so that the address, which may carry a password, never shows as resource config.
    """

    uri: SecretStr

    @property
    def engine(self) -> str:
        """`duckdb` or `postgresql`."""
        uri = self.uri.get_secret_value()
        if uri.startswith("duckdb:///"):
            return "duckdb"
        if uri.startswith(("postgresql://", "postgres://")):
            return "postgresql"
        # Not shown, for it may hold a password.
        raise ValueError("TILTH_WAREHOUSE_URI must start with duckdb:/// or postgresql://")

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction on a connection of its own.

        The connection is closed at the end, because a DuckDB file takes one process at a time: whoever keeps it
        open keeps dbt out.

        Raises:
            WarehouseBusyError: the DuckDB file is still held by another process after `LOCK_WAIT_SECONDS`.
        """
        with closing(self._connect()) as connection:
            try:
                yield Transaction(connection)
                connection.commit()
            except BaseException:
                connection.rollback()
                raise

    def read(self, sql: str) -> pa.Table:
        """Run one query; its whole result as Arrow."""
        with self.transaction() as transaction:
            return transaction.read(sql)

    def exists(self, table: str) -> bool:
        """Whether `schema.name` is a table or view."""
        with self.transaction() as transaction:
            return transaction.exists(table)

    def _connect(self) -> dbapi.Connection:
        uri = self.uri.get_secret_value()
        if self.engine == "postgresql":
            import adbc_driver_postgresql.dbapi

            try:
                return adbc_driver_postgresql.dbapi.connect(uri)
            except adbc_driver_manager.Error as error:
                # The driver may repeat the address in its message, with the password.
                said = str(error)
                for secret in (uri, urlsplit(uri).password or "", unquote(urlsplit(uri).password or "")):
                    said = said.replace(secret, "***") if secret else said
                raise ConnectionError(f"The PostgreSQL of TILTH_WAREHOUSE_URI cannot be reached: {said}") from None
        import adbc_driver_duckdb.dbapi

        path = Path(uri.removeprefix("duckdb://"))
        path.parent.mkdir(parents=True, exist_ok=True)
        return _wait_for_lock(lambda: adbc_driver_duckdb.dbapi.connect(str(path)), path)


def _wait_for_lock(connect: Any, path: Path) -> dbapi.Connection:
    deadline = time.monotonic() + LOCK_WAIT_SECONDS
    while True:
        try:
            return connect()
        except adbc_driver_manager.Error as error:
            if "lock on file" not in str(error):
                raise
            if time.monotonic() > deadline:
                raise WarehouseBusyError(
                    f"{path} was held by another process for {LOCK_WAIT_SECONDS:.0f} s. DuckDB says: {error} "
                    "End that process (an open notebook or a DuckDB shell, often), then run the partition again."
                ) from error
            time.sleep(0.2)


class WarehouseIOManager(dg.IOManager):
    """Reads warehouse tables as inputs: the table `<schema>.<name>` of the asset key `[schema, name]`, only the
    partitions that the mapping asks for and only the columns named in the input's metadata.

    Nothing is written by it: dbt and the raw assets write in transactions of their own.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def handle_output(self, context: dg.OutputContext, obj: object) -> None:  # noqa: ARG002
        raise TypeError(
            f"{context.asset_key.to_user_string()} returned a value for the warehouse, which takes none: write it "
            "with Warehouse.transaction() and return a MaterializeResult, or leave out io_manager_key to store it "
            "in the lake."
        )

    def load_input(self, context: dg.InputContext) -> Frame:
        schema, name = context.asset_key.path
        columns = wanted_columns(context)
        selected = ", ".join(f'"{c}"' for c in columns) if columns else "*"
        keys = partition_keys(context)
        where = "" if keys is None else f" WHERE {condition(partition_column(context), keys)}"
        return as_annotated(
            self._warehouse.read(f'SELECT {selected} FROM "{schema}"."{name}"{where}'),
            context,
        )
