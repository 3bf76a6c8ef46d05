"""Frames between assets and stores: what an input or output asks for, and what each materialization says of itself."""

import math
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds

from resources.emptied import say_emptied
from tilth.data_versions import data_version
from tilth.input_versions import NO_PARTITION
from tilth.partition_versions import set_data_versions
from tilth.usage import step_usage

Frame = pd.DataFrame | pa.Table | ds.Dataset

PREVIEW_ROWS = 5


def to_arrow(frame: Any) -> pa.Table:
    """Arrow with one string type, no pandas index and no pandas metadata; pandas, polars and pyarrow frames.

    Raises:
        TypeError: something that is no frame.
    """
    if isinstance(frame, pd.DataFrame):
        table = pa.Table.from_pandas(frame, preserve_index=False)
    elif isinstance(frame, pa.Table):
        table = frame
    elif isinstance(frame, ds.Dataset):
        table = frame.to_table()
    elif hasattr(frame, "__arrow_c_stream__"):  # polars, and every other frame that speaks Arrow
        table = pa.table(frame)
    else:
        raise TypeError(
            f"a {type(frame).__name__} is no table: return a pandas, polars or pyarrow frame, or name another "
            "io_manager_key on the asset."
        )
    fields = [f.with_type(_one_string_type(f.type)) for f in table.schema.remove_metadata()]
    return table.cast(pa.schema(fields))


def _one_string_type(kind: pa.DataType) -> pa.DataType:
    return pa.string() if pa.types.is_large_string(kind) or pa.types.is_string_view(kind) else kind


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """The Arrow schema as Dagster's UI shows it."""
    return dg.TableSchema([dg.TableColumn(f.name, str(f.type)) for f in schema])


def partition_keys(context: dg.OutputContext | dg.InputContext) -> list[str] | None:
    """The partitions that this output or input concerns; None where the asset is not partitioned."""
    return list(context.asset_partition_keys) if context.has_asset_partitions else None


def partition_columns(context: dg.OutputContext | dg.InputContext) -> list[str]:
    """The columns that hold the partition key, in the order of its dimensions; none where it is not partitioned.

    They are named by `partition_expr` in the metadata of the asset that owns the table, the name that Dagster's own IO
    managers use: a column, or for two dimensions a dict of dimension → column.

    Raises:
        ValueError: the asset is partitioned but does not name them.
    """
    if not context.has_asset_partitions:
        return []
    owner = context.upstream_output if isinstance(context, dg.InputContext) else context
    named = _value((owner.definition_metadata or {}).get("partition_expr")) if owner else None
    definition = context.asset_partitions_def
    if isinstance(definition, dg.MultiPartitionsDefinition):
        # Dagster joins a key's parts in the order of its dimensions' names.
        dimensions = [dimension.name for dimension in definition.partitions_defs]
        if isinstance(named, Mapping) and set(named) == set(dimensions):
            return [str(_value(named[dimension])) for dimension in dimensions]
        wanted = "{" + ", ".join(f'"{dimension}": "<column>"' for dimension in dimensions) + "}"
    elif isinstance(named, str):
        return [named]
    else:
        wanted = '"<column>"'
    raise ValueError(
        f"{context.asset_key.to_user_string()} is partitioned: name the column that holds the partition key by "
        f'metadata={{"partition_expr": {wanted}}} on the asset.'
    )


def partition_column(context: dg.OutputContext | dg.InputContext) -> str:
    """The one column that holds the partition key.

    Raises:
        ValueError: the asset is partitioned but names no column, or has two dimensions.
    """
    columns = partition_columns(context)
    if len(columns) != 1:
        raise ValueError(
            f"{context.asset_key.to_user_string()} has {len(columns)} partition columns; a table here takes one."
        )
    return columns[0]


def asked(context: dg.InputContext, name: str) -> Any:
    """What the input's metadata says under this name, such as `columns`; None where it says nothing."""
    return _value((context.definition_metadata or {}).get(name))


def wanted_columns(context: dg.InputContext) -> Sequence[str] | None:
    """The columns named by `metadata={"columns": [...]}` on the input; None for all."""
    return asked(context, "columns")


def _value(metadata: Any) -> Any:
    return metadata.value if isinstance(metadata, dg.MetadataValue) else metadata


def as_annotated(rows: pa.Table, context: dg.InputContext) -> Any:
    """The rows as the input's annotation asks for: `pa.Table`, `pyarrow.dataset.Dataset`, `pl.DataFrame`, else pandas.

    The rows are given up: pandas columns take their place one after another, so that not both are held at once.
    """
    wanted = context.dagster_type.typing_type
    if wanted is pa.Table:
        return rows
    if wanted is ds.Dataset:
        return ds.dataset(rows)
    if getattr(wanted, "__module__", "").partition(".")[0] == "polars":
        import polars

        return polars.from_arrow(rows)
    return to_pandas(rows)


def to_pandas(rows: pa.Table) -> pd.DataFrame:
    """A pandas frame in place of the rows, which must not be used afterwards."""
    # A column in one piece would be handed over as it is, and pandas could not write to it.
    in_pieces = all(column.num_chunks > 1 for column in rows.itercolumns())
    return rows.to_pandas(self_destruct=True, split_blocks=in_pieces)


def by_partition(rows: pa.Table, columns: Sequence[str], keys: Sequence[str]) -> dict[str, pa.Table]:
    """The rows of each partition key in their order; an empty table for a key without rows.

    A key of two dimensions is `<first>|<second>`, as Dagster writes it.
    """
    found = partition_key_of(rows, columns).dictionary_encode().combine_chunks()
    codes = found.indices.to_numpy()
    place = {key: number for number, key in enumerate(found.dictionary.to_pylist())}
    if not np.all(codes[:-1] <= codes[1:]):
        # At once: taken part by part from a table of many chunks, a year of departures took four seconds.
        rows = rows.take(pa.array(np.argsort(codes, kind="stable")))
    ends = np.cumsum(np.bincount(codes, minlength=len(place)))
    parts = {}
    for key in keys:
        if key not in place:
            parts[key] = rows.slice(0, 0)
            continue
        end = int(ends[place[key]])
        start = int(ends[place[key] - 1]) if place[key] else 0
        parts[key] = rows.slice(start, end - start)
    return parts


def partition_key_of(rows: pa.Table, columns: Sequence[str]) -> pa.ChunkedArray:
    """Each row's partition key as text."""
    parts = [rows[column].cast(pa.string()) for column in columns]
    return parts[0] if len(parts) == 1 else pc.call_function("binary_join_element_wise", [*parts, pa.scalar("|")])


def record(
    context: dg.OutputContext,
    rows: pa.Table,
    *,
    table: Mapping[str, Any],
    stored_bytes: Callable[[str | None], int | None] = lambda partition: None,  # noqa: ARG005
) -> None:
    """Attach to the step's materializations what was written.

    On each partition: its rows, the bytes that they take in the store, a preview, and a data version of its content
    (whatever the order of rows, where the asset says `metadata={"ordered": False}`); of one that has become empty, how
    many rows it had. On all: columns and types, what
    the step used, and what `table` says of the store.
    """
    step, key = context.step_context, context.asset_key
    ordered = _value((context.definition_metadata or {}).get("ordered")) is not False
    keys = partition_keys(context)
    if keys is None:
        step.set_data_version(key, dg.DataVersion(data_version(rows, ordered=ordered)))
        emptied = say_emptied(context, key, {NO_PARTITION: rows.num_rows}).get(NO_PARTITION, {})
        step.add_asset_metadata({**_content(rows, stored_bytes(None)), **emptied}, asset_key=key)
    else:
        parts = by_partition(rows, partition_columns(context), keys)
        set_data_versions(context, key, {name: data_version(part, ordered=ordered) for name, part in parts.items()})
        emptied = say_emptied(context, key, {name: part.num_rows for name, part in parts.items()})
        for name, part in parts.items():
            content = {"dagster/partition_row_count": part.num_rows, **_content(part, stored_bytes(name))}
            content |= emptied.get(name, {})
            step.add_asset_metadata(content, asset_key=key, partition_key=name)
    context.add_output_metadata({"dagster/column_schema": column_schema(rows.schema), **table, **step_usage(context)})


def _content(rows: pa.Table, stored_bytes: int | None) -> dict[str, Any]:
    first = rows.slice(0, PREVIEW_ROWS)
    records = [dg.TableRecord({name: _shown(value) for name, value in row.items()}) for row in first.to_pylist()]
    shown = {"preview": dg.MetadataValue.table(records, column_schema(rows.schema))} if records else {}
    return {"bytes": rows.nbytes if stored_bytes is None else stored_bytes, **shown}


def _shown(value: Any) -> str | int | float | bool | None:
    if isinstance(value, float) and not math.isfinite(value):
        return str(value)  # which JSON has no number for
    return value if value is None or isinstance(value, str | int | float | bool) else str(value)
