"""Warehouse tables as inputs and outputs of assets: the table `<schema>.<name>` of the asset key `[schema, name]`."""

from collections import Counter

import dagster as dg
import pandas as pd
import pyarrow as pa

from resources.frames import (
    Frame,
    as_annotated,
    column_schema,
    data_version,
    partition_column,
    partition_keys,
    to_arrow,
    wanted_columns,
)
from resources.warehouse import Warehouse, Window


def _table(key: dg.AssetKey) -> str:
    if len(key.path) != 2:
        raise ValueError(
            f"{key.to_user_string()}: a warehouse table has the asset key [schema, name]. Give it one of two parts, or "
            "leave out io_manager_key to store it in the lake."
        )
    return ".".join(key.path)


def _window(context: dg.InputContext | dg.OutputContext) -> Window | None:
    keys = partition_keys(context)
    return None if keys is None else (partition_column(context), keys)


class WarehouseIOManager(dg.IOManager):
    """Stores frames (pandas or pyarrow) as warehouse tables, replacing the step's partitions in one transaction, and
    hands them on as the parameter's annotation asks: only the partitions that the mapping asks for, and only the
    columns named in the input's metadata.
    """

    def __init__(self, warehouse: Warehouse) -> None:
        self._warehouse = warehouse

    def handle_output(self, context: dg.OutputContext, obj: Frame) -> None:
        table = _table(context.asset_key)
        if not isinstance(obj, pd.DataFrame | pa.Table):
            raise TypeError(
                f"{context.asset_key.to_user_string()} returned a {type(obj).__name__}, which is no warehouse table: "
                "return a pandas frame or a pyarrow table, or a MaterializeResult where the asset wrote it itself."
            )
        rows, window = to_arrow(obj), _window(context)
        column, keys = window or (None, ())
        self._warehouse.replace(table, rows, column, keys)
        _record(context, rows, window)

    def load_input(self, context: dg.InputContext) -> Frame:
        rows = self._warehouse.read(_table(context.asset_key), wanted_columns(context), _window(context))
        return as_annotated(rows, context)


def _record(context: dg.OutputContext, rows: pa.Table, window: Window | None) -> None:
    """What the materialization says of the rows that were written."""
    step = context.step_context
    step.set_data_version(context.asset_key, dg.DataVersion(data_version(rows)))
    if window is not None:
        counted = Counter(rows[window[0]].cast(pa.string()).to_pylist())
        for key in window[1]:
            step.add_asset_metadata(
                {"dagster/partition_row_count": counted[key]}, asset_key=context.asset_key, partition_key=key
            )
    context.add_output_metadata(
        {"dagster/row_count": rows.num_rows, "dagster/column_schema": column_schema(rows.schema)}
    )
