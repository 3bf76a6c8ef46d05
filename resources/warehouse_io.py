"""Warehouse tables as inputs and outputs of assets: the table `<schema>.<name>` of the asset key `[schema, name]`."""

from collections.abc import Iterable, Sequence
from typing import Any

import adbc_driver_manager
import dagster as dg

from resources.frames import arrow_of, in_parts, partition_column, partition_keys, record, wanted_columns
from resources.partition_windows import Window, positions
from resources.warehouse import Warehouse
from resources.warehouse_types import quoted, refuse_long_names
from tilth.conversion import as_annotated
from tilth.observability.usage import watch


def _table(key: dg.AssetKey) -> str:
    if len(key.path) != 2:
        raise ValueError(
            f"{key.to_user_string()}: a warehouse table has the asset key [schema, name]. Give it one of two parts, or "
            "leave out io_manager_key to store it in the lake."
        )
    return ".".join(key.path)


def refuse_shared_tables(assets: Iterable[dg.AssetsDefinition], warehouse: Warehouse, io_manager_key: str) -> None:
    """To be called when definitions load: no two assets may have one table.

    Raises:
        ValueError: two keys that the engine takes for one name, or one that is longer than its names.
    """
    engine, taken = warehouse.engine, {}
    for key in (key for of in assets for key in of.keys if of.get_io_manager_key_for_asset_key(key) == io_manager_key):
        table = _table(key)
        refuse_long_names(table, engine)
        # DuckDB does not tell upper from lower case.
        other = taken.setdefault(table.lower() if engine == "duckdb" else table, key)
        if other != key:
            raise ValueError(
                f"{key.to_user_string()} and {other.to_user_string()} are one table in {engine}, which does not tell "
                "upper from lower case. Give one of them another key."
            )


def _window(context: dg.InputContext | dg.OutputContext) -> Window | None:
    keys = partition_keys(context)
    return None if keys is None else Window(partition_column(context), keys, context.asset_partitions_def)


class WarehouseIOManager(dg.IOManager):
    """Stores frames (pandas, polars, pyarrow) as warehouse tables and hands them on as the parameter's annotation asks:
    only the partitions that the mapping asks for, and only the columns named in the input's metadata.

    An output's partitions are replaced in one transaction, also by nothing; what is recorded of them is in
    `resources.frames.record`.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse
        watch()

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        table = _table(context.asset_key)
        rows, window = arrow_of(obj, context), _window(context)
        parts = None
        if window and window.column in rows.column_names:
            places = positions(table, rows[window.column], window)
            # What lies outside is refused below, in words.
            if places.size == 0 or places.min() >= 0:
                parts = dict(zip(window.keys, in_parts(rows, places, len(window.keys)), strict=True))
        with self._warehouse.transaction() as transaction:
            if window:
                transaction.replace(table, rows, window.column, window.keys, window.partitions)
            else:
                transaction.replace(table, rows)
            count = transaction.count(table)
        record(context, rows, parts, table={"dagster/row_count": count})

    def load_input(self, context: dg.InputContext) -> Any:
        table, columns, window = _table(context.asset_key), wanted_columns(context), _window(context)
        try:
            rows = self._warehouse.read(table, columns, window)
        except adbc_driver_manager.Error as error:
            if absent := self._absent(context.asset_key, [*(columns or ()), *(window or ())[:1]]):
                raise LookupError(absent) from error
            raise
        return as_annotated(rows, context)

    def _absent(self, key: dg.AssetKey, columns: Sequence[str]) -> str:
        """What of the table is not there; empty where all is."""
        name, table = key.to_user_string(), _table(key)
        if not self._warehouse.exists(table):
            return f"{name} is not in the warehouse; materialize it first."
        nothing = f"SELECT * FROM {'.'.join(map(quoted, key.path))} LIMIT 0"  # noqa: S608
        there = self._warehouse.read(nothing).column_names
        if unknown := [column for column in columns if column not in there]:
            return f"{name} has no column {', '.join(unknown)}; it has {', '.join(there)}."
        return ""
