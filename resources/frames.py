"""Frames between assets and stores: one set of Arrow types, and what an input or output asks for."""

import hashlib
from collections.abc import Sequence
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa

Frame = pd.DataFrame | pa.Table


def data_version(table: pa.Table) -> str:
    """A hash of the table's content: column names, types and values in their order, but not how they are chunked."""
    digest = hashlib.sha256()
    for name, column in zip(table.column_names, table.itercolumns(), strict=True):
        digest.update(f"{name}:{column.type}:".encode())
        # Through IPC, so that neither chunks nor slices of the same values differ.
        batch = pa.record_batch([pa.concat_arrays(column.chunks or [pa.array([], column.type)])], names=["c"])
        digest.update(batch.serialize())
    return digest.hexdigest()[:16]


def to_arrow(frame: Frame) -> pa.Table:
    """Arrow with the types that every engine reads: one string type, no pandas index, no pandas metadata."""
    table = pa.Table.from_pandas(frame, preserve_index=False) if isinstance(frame, pd.DataFrame) else frame
    fields = [
        f.with_type(pa.string()) if pa.types.is_large_string(f.type) else f for f in table.schema.remove_metadata()
    ]
    return table.cast(pa.schema(fields))


def column_schema(schema: pa.Schema) -> dg.TableSchema:
    """The Arrow schema as Dagster's UI shows it."""
    return dg.TableSchema([dg.TableColumn(f.name, str(f.type)) for f in schema])


def partition_keys(context: dg.OutputContext | dg.InputContext) -> list[str] | None:
    """The partitions that this output or input concerns; None where the asset is not partitioned."""
    return list(context.asset_partition_keys) if context.has_asset_partitions else None


def partition_column(context: dg.OutputContext | dg.InputContext) -> str:
    """The column that holds the partition key: `partition_expr` in the metadata of the asset that owns the table, the
    name that Dagster's own IO managers use.

    Raises:
        ValueError: the asset is partitioned but does not name the column.
    """
    owner = context.upstream_output if isinstance(context, dg.InputContext) else context
    column = (owner.definition_metadata or {}).get("partition_expr") if owner else None
    if column is None:
        raise ValueError(
            f"{context.asset_key.to_user_string()} is partitioned: name the column that holds the partition key by "
            'metadata={"partition_expr": "<column>"} on the asset.'
        )
    return str(column.value if isinstance(column, dg.MetadataValue) else column)


def wanted_columns(context: dg.InputContext) -> Sequence[str] | None:
    """The columns named by `metadata={"columns": [...]}` on the input; None for all."""
    columns: Any = (context.definition_metadata or {}).get("columns")
    return columns.value if isinstance(columns, dg.MetadataValue) else columns


def as_annotated(rows: pa.Table, context: dg.InputContext) -> Frame:
    """The rows as the input's annotation asks for: `pa.Table`, else a pandas frame."""
    return rows if context.dagster_type.typing_type is pa.Table else rows.to_pandas()
