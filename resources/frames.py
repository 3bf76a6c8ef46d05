"""What an input or output asks of a store, and what each materialization says of itself."""

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import dagster as dg
import numpy as np
import pyarrow as pa

from resources.emptied import say_emptied
from resources.preview import column_schema, preview
from tilth._dagster.event_log import NO_PARTITION
from tilth._dagster.step_events import step_of
from tilth.conversion import take, to_arrow
from tilth.observability.usage import step_usage
from tilth.partition_keys import row_keys
from tilth.versioning.content import data_version
from tilth.versioning.partitions import set_data_versions


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


def arrow_of(frame: Any, context: dg.OutputContext) -> pa.Table:
    """The frame that the asset returned, as Arrow.

    Raises:
        TypeError, ValueError: as `to_arrow`, with the asset's name.
    """
    try:
        return to_arrow(frame)
    except pa.ArrowException as error:
        # pyarrow names the column, and the type that it took from the first values.
        said = " ".join(str(part) for part in error.args)
        raise ValueError(
            f"{context.asset_key.to_user_string()}: {said}. Give the column one type in the asset, such as by "
            'astype("string").'
        ) from error
    except OverflowError as error:
        wide = "a whole number has more than 64 bits: make the column text, or decimals"
        raise ValueError(f"{context.asset_key.to_user_string()}: {wide} ({error}).") from error
    except (TypeError, ValueError) as error:
        raise type(error)(f"{context.asset_key.to_user_string()}: {error}") from None


def asked(context: dg.InputContext, name: str) -> Any:
    """What the input's metadata says under this name, such as `columns`; None where it says nothing."""
    return _value((context.definition_metadata or {}).get(name))


def wanted_columns(context: dg.InputContext) -> Sequence[str] | None:
    """The columns named by `metadata={"columns": [...]}` on the input; None for all."""
    return asked(context, "columns")


def _value(metadata: Any) -> Any:
    return metadata.value if isinstance(metadata, dg.MetadataValue) else metadata


def by_partition(rows: pa.Table, columns: Sequence[str], keys: Sequence[str]) -> dict[str, pa.Table]:
    """The rows of each partition key in their order; an empty table for a key without rows.

    A key of two dimensions is `<first>|<second>`, as Dagster writes it.
    """
    found = row_keys(rows, columns).dictionary_encode().combine_chunks()
    place = {key: number for number, key in enumerate(found.dictionary.to_pylist())}
    parts = in_parts(rows, found.indices.to_numpy(), len(place))
    return {key: parts[place[key]] if key in place else rows.slice(0, 0) for key in keys}


def in_parts(rows: pa.Table, places: np.ndarray, count: int) -> list[pa.Table]:
    """The rows of each of `count` places in their order, by the place of each row."""
    if not np.all(places[:-1] <= places[1:]):
        # At once: taken part by part from a table of many chunks, a year of departures took four seconds.
        rows = take(rows, pa.array(np.argsort(places, kind="stable")))
    ends = [0, *np.cumsum(np.bincount(places, minlength=count)).tolist()]
    return [rows.slice(ends[place], ends[place + 1] - ends[place]) for place in range(count)]


def record(
    context: dg.OutputContext,
    rows: pa.Table,
    parts: Mapping[str, pa.Table] | None,
    *,
    table: Mapping[str, Any],
    stored_bytes: Callable[[str | None], int | None] = lambda partition: None,  # noqa: ARG005
) -> None:
    """Attach to the step's materializations what was written: `rows`, of which each partition has its part.

    On each partition: its rows, the bytes that they take in the store, a preview, and a data version of its content
    (whatever the order of rows, where the asset says `metadata={"ordered": False}`); of one that has become empty, how
    many rows it had. On all: columns and types, what
    the step used, and what `table` says of the store.
    """
    step, key = step_of(context), context.asset_key
    ordered = _value((context.definition_metadata or {}).get("ordered")) is not False
    if parts is None:
        step.set_data_version(key, data_version(rows, ordered=ordered))
        emptied = say_emptied(context, key, {NO_PARTITION: rows.num_rows}).get(NO_PARTITION, {})
        step.add_metadata(key, {**_content(rows, stored_bytes(None)), **emptied})
    else:
        set_data_versions(context, key, {name: data_version(part, ordered=ordered) for name, part in parts.items()})
        emptied = say_emptied(context, key, {name: part.num_rows for name, part in parts.items()})
        for name, part in parts.items():
            content = {"dagster/partition_row_count": part.num_rows, **_content(part, stored_bytes(name))}
            content |= emptied.get(name, {})
            step.add_metadata(key, content, name)
    context.add_output_metadata({"dagster/column_schema": column_schema(rows.schema), **table, **step_usage(context)})


def _content(rows: pa.Table, stored_bytes: int | None) -> dict[str, Any]:
    return {"bytes": rows.nbytes if stored_bytes is None else stored_bytes, **preview(rows)}
