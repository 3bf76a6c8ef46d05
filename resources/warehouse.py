"""The warehouse: SQL tables read and written as Arrow through ADBC, on a DuckDB file or on PostgreSQL."""

import importlib
import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qsl, unquote, urlsplit

import adbc_driver_manager
import dagster as dg
import pyarrow as pa
from pydantic import SecretStr

from resources.duckdb_file import TRY_EVERY_SECONDS, duckdb_connection, duckdb_turn, log
from resources.duckdb_file import WarehouseBusyError as WarehouseBusyError
from resources.partition_windows import Window, is_of_time, positions, time_conditions
from resources.warehouse_types import (
    ENGINES,
    as_read,
    beyond_postgres,
    fitted,
    holding_nul,
    quoted,
    refuse_long_names,
    sql_type,
    type_as_read,
    undeclared_numerics,
)
from tilth.conversion import to_arrow

if TYPE_CHECKING:  # a third of a second to import, with what it looks for: for the processes that connect
    from adbc_driver_manager import dbapi


def _literal(value: str) -> str:
    # Quoted and untyped: both engines read it as the type of the column that it is compared with.
    return "'" + value.replace("'", "''") + "'"


def condition(column: str, values: Sequence[str]) -> str:
    """The SQL condition that holds for the rows whose `column` is one of `values`; no row for no value."""
    if not values:
        return "1 = 0"
    return f"{quoted(column)} IN ({', '.join(_literal(v) for v in sorted(set(values)))})"


def _condition(table: str, window: Window, kind: pa.DataType | None) -> str:
    """As `condition`; by time for a column of type `kind` that holds times of the window's partitions."""
    conditions = None if kind is None else time_conditions(table, quoted(window.column), kind, window)
    if conditions is None:
        return condition(window.column, window.keys)
    return f"({' OR '.join(conditions)})" if conditions else "1 = 0"


def _parts(table: str) -> tuple[str, str]:
    schema, _, name = table.partition(".")
    if not schema or not name or "." in name:
        raise ValueError(
            f"{table!r} is no table: name it schema.table, or give a query that starts with SELECT or WITH."
        )
    return schema, name


def _quoted_table(table: str) -> str:
    return ".".join(quoted(part) for part in _parts(table))


def _query(what: str, columns: Sequence[str] | None, where: str | None) -> str:
    is_query = re.match(r"\s*(select|with)\b(?!\.)", what, re.IGNORECASE)
    if is_query and columns is None and where is None:
        return what
    # A line of its own ends a comment at the query's end.
    source = f"({what.rstrip().rstrip(';')}\n) AS query" if is_query else _quoted_table(what)
    selected = "*" if columns is None else ", ".join(quoted(c) for c in columns)
    return f"SELECT {selected} FROM {source}" + (f" WHERE {where}" if where else "")


def _refuse_rows_outside(table: str, rows: pa.Table, window: Window) -> None:
    column, values = window.column, window.keys
    if column not in rows.column_names:
        raise ValueError(
            f"{table}: there is no column {column}, by which its rows are to be replaced; the frame has "
            f"{', '.join(rows.column_names)}."
        )
    outside = rows[column].filter(pa.array(positions(table, rows[column], window) < 0)).unique().cast(pa.string())
    if len(outside):
        outside = outside.slice(0, 3).to_pylist()
        raise ValueError(
            f"{table}: rows with {column} = {[str(value) for value in outside[:3]]} do not belong to the partitions "
            f"that are written ({min(values, default='none')} to {max(values, default='none')}). Keep them out of the "
            "frame that the asset returns."
        )


class Transaction:
    """An open transaction: it is committed whole when its `with` block ends, and rolled back on any error."""

    def __init__(self, connection: "dbapi.Connection", engine: str) -> None:
        self._connection = connection
        self._engine = engine

    def execute(self, sql: str) -> None:
        """Run one statement that returns nothing."""
        with self._connection.cursor() as cursor:
            cursor.execute(sql)

    def read(
        self, what: str, columns: Sequence[str] | None = None, window: Window | tuple[str, Sequence[str]] | None = None
    ) -> pa.Table:
        """All rows of a table, `schema.name`, or of a query, which starts with SELECT or WITH; in no certain order.

        Only `columns` of them, and only those of `window`: a column and its values, or partitions' keys.

        Raises:
            ValueError: `what` is neither, or a numeric column holds NaN, which no decimal does.
        """
        where = None
        if window:
            rows_of, kind = window if isinstance(window, Window) else Window(*window), None
            if is_of_time(rows_of):
                kind = type_as_read(self._fetch(_query(what, [rows_of.column], "1 = 0")).schema.field(0))
            where = _condition(what, rows_of, kind)
        return as_read(self._fetch(_query(what, columns, where)))

    def exists(self, table: str) -> bool:
        """Whether `schema.name` is a table or view."""
        schema, name = _parts(table)
        found = self._fetch(
            "SELECT 1 AS found FROM information_schema.tables "
            f"WHERE table_schema = {_literal(schema)} AND table_name = {_literal(name)}"
        )
        return found.num_rows > 0

    def count(self, table: str) -> int:
        """How many rows `schema.name` has."""
        return self._fetch(f"SELECT count(*) AS rows FROM {_quoted_table(table)}")["rows"][0].as_py()

    def replace(
        self,
        table: str,
        rows: pa.Table,
        column: str | None = None,
        values: Sequence[str] = (),
        partitions: dg.PartitionsDefinition[Any] | None = None,
    ) -> None:
        """Put `rows` in place of those whose `column` is one of `values` (of all rows when no column is given).

        With `partitions`, values are their keys: a column of dates or times belongs to the key in whose time it lies.

        The schema and the table are made from the Arrow schema when they are missing, with the column types that
        resources/warehouse_types.py lists. A column that an existing table lacks is added to it, null in its other
        rows; columns in another order are matched by name.

        Raises:
            ValueError: a row is outside of `values`; a column is missing, of another type than the stored one, or of a
                type that the engine cannot give back; the engine is neither DuckDB nor PostgreSQL. Nothing is changed.
        """
        if self._engine not in ENGINES:
            raise ValueError(
                f"{table}: {self._engine} is only read from here; tables are written to {', '.join(ENGINES)}."
            )
        (schema, name), target = _parts(table), _quoted_table(table)
        refuse_long_names(table, self._engine)
        stored = self._fetch(f"SELECT * FROM {target} LIMIT 0").schema if self.exists(table) else None
        try:
            rows, added = fitted(table, rows, stored, self._engine)
        except ValueError:
            # The columns of a table without any row, such as an empty first partition's, say nothing of the next.
            if stored is None or not self._is_empty(target):
                raise
            rows, added = self._anew(table, rows, stored), []
        where = "1 = 1"
        if column is not None:
            window = Window(column, values, partitions)
            _refuse_rows_outside(table, rows, window)
            where = _condition(table, window, rows.schema.field(column).type)

        definitions = [f"{quoted(field.name)} {sql_type(field.type, self._engine)}" for field in added]
        if stored is None:
            self.execute(f"CREATE SCHEMA IF NOT EXISTS {quoted(schema)}")
            self.execute(f"CREATE TABLE {target} ({', '.join(definitions)})")
        else:
            if self._engine == "postgresql":
                # Two that replace the same rows at once would otherwise each delete the old ones and both insert.
                self.execute(f"LOCK TABLE {target} IN SHARE ROW EXCLUSIVE MODE")
            for definition in definitions:
                self.execute(f"ALTER TABLE {target} ADD COLUMN {definition}")
            self.execute(f"DELETE FROM {target} WHERE {where}")
        if rows.num_rows == 0:
            return
        if numerics := undeclared_numerics(stored) if stored else []:
            self._insert_casting(target, rows, numerics)
        else:
            self._append(rows, name, schema)

    def _is_empty(self, target: str) -> bool:
        any_row = f"SELECT 1 AS found FROM {target} LIMIT 1"
        if self._engine == "postgresql" and not self._fetch(any_row).num_rows:
            # What another is writing comes to light with the lock.
            self.execute(f"LOCK TABLE {target} IN ACCESS EXCLUSIVE MODE")
        return not self._fetch(any_row).num_rows

    def _anew(self, table: str, rows: pa.Table, stored: pa.Schema) -> pa.Table:
        """Give the table, which is empty, the columns of the rows, as if it were made now; the rows in its order. It
        stays, with the rights that others have on it.
        """
        target = _quoted_table(table)
        rows, columns = fitted(table, rows, None, self._engine)
        types = {field.name: sql_type(field.type, self._engine) for field in columns}
        kept = [name for name in stored.names if name in types]
        added = [name for name in types if name not in kept]
        changes = [f"ADD COLUMN {quoted(name)} {types[name]}" for name in added]
        changes += [f"ALTER COLUMN {quoted(name)} TYPE {types[name]} USING NULL" for name in kept]
        changes += [f"DROP COLUMN {quoted(name)}" for name in stored.names if name not in types]
        for change in changes:
            self.execute(f"ALTER TABLE {target} {change}")
        return rows.select([*kept, *added])

    def _insert_casting(self, target: str, rows: pa.Table, numerics: Sequence[str]) -> None:
        # The bulk path takes no text for a numeric column, and a decimal would change the number of its digits.
        staged = "tilth_staged_rows"
        self._append(rows, staged, None)
        cast = [f"{quoted(c)}::numeric" if c in numerics else quoted(c) for c in rows.column_names]
        names = ", ".join(quoted(c) for c in rows.column_names)
        self.execute(f"INSERT INTO {target} ({names}) SELECT {', '.join(cast)} FROM pg_temp.{staged}")
        self.execute(f"DROP TABLE pg_temp.{staged}")

    def _append(self, rows: pa.Table, name: str, schema: str | None) -> None:
        # A cursor of its own: DuckDB's driver keeps the ingest's binding on the cursor that made it.
        with self._connection.cursor() as cursor:
            try:
                if schema is None:
                    cursor.adbc_ingest(name, rows, mode="create", temporary=True)
                else:
                    cursor.adbc_ingest(name, rows, mode="append", db_schema_name=schema)
            except adbc_driver_manager.Error as error:
                if self._engine == "postgresql" and (column := holding_nul(rows)):
                    raise ValueError(
                        f"{schema or 'pg_temp'}.{name}, column {column}: a text holds the character NUL, for which "
                        f"PostgreSQL has none. Replace it in the asset, such as by .str.replace(chr(0), '')."
                    ) from error
                if self._engine == "postgresql" and (column := beyond_postgres(rows)):
                    raise ValueError(
                        f"{schema or 'pg_temp'}.{name}, column {column}: a value lies before or after all that "
                        "PostgreSQL has a date for. Correct it in the asset."
                    ) from error
                raise

    def _fetch(self, sql: str) -> pa.Table:
        with self._connection.cursor() as cursor:
            cursor.execute(sql)
            return cursor.fetch_arrow_table()


@dataclass(frozen=True)
class Warehouse:
    """Where SQL tables live.

    `uri` is `duckdb:///<path of the file>` or `postgresql://…`; of any other `<scheme>://…` it can be read what the
    package adbc-driver-<scheme> reads. A plain object, so that it works in a notebook without Dagster running, and so
    that the address, which may carry a password, never shows as resource config.

    A DuckDB file takes one process at a time: `wait_seconds` is how long to wait for others to give it back.
    """

    uri: SecretStr
    wait_seconds: float = 120.0

    @property
    def engine(self) -> str:
        """`duckdb`, `postgresql`, or another address's scheme."""
        uri = self.uri.get_secret_value()
        scheme = re.match(r"([a-z][a-z0-9_]*)://", uri)
        if not scheme or (scheme[1] == "duckdb" and not uri.startswith("duckdb:///")):
            # Not shown, for it may hold a password.
            raise ValueError(
                "TILTH_WAREHOUSE_URI must start with duckdb:/// or postgresql:// (or another ADBC driver's scheme://)"
            )
        return "postgresql" if scheme[1] == "postgres" else scheme[1]

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        """One transaction on a connection of its own, which is closed at the end. Times are in UTC within it.

        Raises:
            WarehouseBusyError: the DuckDB file is still held after `wait_seconds`; who holds it is in the message.
            ConnectionError: the engine cannot be reached.
            OSError: its disk is full.
            ModuleNotFoundError: the driver of the address is not installed.
        """
        with self._connection() as connection:
            try:
                transaction = Transaction(connection, self.engine)
                if self.engine in ENGINES:
                    # Not the machine's zone, in which DuckDB would give instants and both would read dates as instants.
                    transaction.execute("SET TimeZone = 'UTC'")
                yield transaction
                connection.commit()
            except BaseException as error:
                connection.rollback()
                if isinstance(error, adbc_driver_manager.Error) and "No space left on device" in str(error):
                    raise OSError(
                        f"The warehouse's disk is full; its tables hold what they held. {self.engine} says: {error} "
                        "Now free some space there, or move TILTH_WAREHOUSE_URI to another disk."
                    ) from error
                raise

    def read(
        self, what: str, columns: Sequence[str] | None = None, window: Window | tuple[str, Sequence[str]] | None = None
    ) -> pa.Table:
        """`Transaction.read` in a transaction of its own."""
        try:
            with self.transaction() as transaction:
                return transaction.read(what, columns, window)
        except adbc_driver_manager.Error as error:
            if "arrow_large_buffer_size" not in str(error):
                raise
        # DuckDB counts the bytes of a batch of rows in 32 bits, unless told. That aborts the transaction.
        with self.transaction() as transaction:
            transaction.execute("SET arrow_large_buffer_size = true")
            return to_arrow(transaction.read(what, columns, window))

    def replace(
        self,
        table: str,
        rows: pa.Table,
        column: str | None = None,
        values: Sequence[str] = (),
        partitions: dg.PartitionsDefinition[Any] | None = None,
    ) -> None:
        """`Transaction.replace` in a transaction of its own."""
        with self.transaction() as transaction:
            transaction.replace(table, rows, column, values, partitions)

    def exists(self, table: str) -> bool:
        """Whether `schema.name` is a table or view."""
        with self.transaction() as transaction:
            return transaction.exists(table)

    @contextmanager
    def turn(self, name: str) -> Iterator[None]:
        """The turn of what connects by another library, such as dbt, and has closed its connections at the end.

        On DuckDB nobody else may write meanwhile; on PostgreSQL, nobody else has the turn of this name.

        Raises:
            WarehouseBusyError: the DuckDB file is still held after `wait_seconds`.
        """
        uri = self.uri.get_secret_value()
        if self.engine == "duckdb":
            with duckdb_turn(Path(uri.removeprefix("duckdb://")), self.wait_seconds):
                yield
            return
        with closing(_connect(self.engine, uri)) as connection, connection.cursor() as cursor:
            # Not idle in a transaction, for which a server may close a session.
            connection.adbc_connection.set_autocommit(True)
            said = False
            while not _locked(cursor, name):
                if not said:
                    log.warning("%s is under way in another process; waiting for its end", name)
                said = True
                time.sleep(TRY_EVERY_SECONDS)
            yield

    @contextmanager
    def _connection(self) -> "Iterator[dbapi.Connection]":
        if self.engine == "duckdb":
            path = Path(self.uri.get_secret_value().removeprefix("duckdb://"))
            with duckdb_connection(path, self.wait_seconds) as connection:
                yield connection
        else:
            with closing(_connect(self.engine, self.uri.get_secret_value())) as connection:
                yield connection


def _connect(engine: str, uri: str) -> "dbapi.Connection":
    try:
        driver = importlib.import_module(f"adbc_driver_{engine}.dbapi")
    except ModuleNotFoundError:
        raise ModuleNotFoundError(
            f"TILTH_WAREHOUSE_URI starts with {engine}://, whose driver is not installed: pip install "
            f"adbc-driver-{engine.replace('_', '-')}, or give an address that starts with duckdb:/// or postgresql://."
        ) from None
    try:
        return driver.connect(uri)
    except adbc_driver_manager.Error as error:
        # The driver may repeat the address in its message, with the password.
        said = str(error)
        for secret in _secrets(uri):
            said = said.replace(secret, "***")
        raise ConnectionError(f"The {engine} of TILTH_WAREHOUSE_URI cannot be reached: {said}") from None


def _locked(cursor: "dbapi.Cursor", name: str) -> bool:
    """Whether this session has got PostgreSQL's lock of that name, which it has until it ends."""
    cursor.execute(f"SELECT pg_try_advisory_lock(hashtext({_literal(name)}))")
    row = cursor.fetchone()
    return bool(row and row[0])


def _secrets(uri: str) -> list[str]:
    parts = urlsplit(uri)
    options = [v for k, v in parse_qsl(parts.query) if re.search("password|secret|token", k, re.IGNORECASE)]
    return [secret for secret in [uri, parts.password, unquote(parts.password or ""), *options] if secret]
