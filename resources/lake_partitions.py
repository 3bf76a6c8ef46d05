"""Partitions of a lake's table: which rows belong to them, and the conditions that hold for exactly these rows."""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from functools import reduce
from operator import and_
from typing import Any
from urllib.parse import quote

import pyarrow as pa
import pyarrow.dataset as ds

from tilth.partition_keys import parts, row_keys

_LONGEST_KEY = 200


def refuse_foreign(name: str, rows: pa.Table, columns: Sequence[str], partitions: Sequence[str]) -> None:
    if missing := [column for column in columns if column not in rows.column_names]:
        raise ValueError(
            f"{name}: the frame has no column {', '.join(missing)}, which holds the partition key; it has "
            f"{', '.join(rows.column_names)}."
        )
    if rows.num_rows and len(rows.column_names) == len(columns):
        raise ValueError(f"{name}: the frame has no column but {', '.join(columns)}; the lake needs one more.")
    for column in columns if rows.num_rows else ():
        kind = rows.schema.field(column).type
        kind = kind.value_type if pa.types.is_dictionary(kind) else kind
        if not (_is_key(kind) or pa.types.is_null(kind) or pa.types.is_large_string(kind) or kind == pa.date64()):
            raise ValueError(f"{name}: {column} holds the partition key as {kind}; make it text, a date or an integer.")
    # Some systems have no longer names of folders.
    if long := next((key for key in partitions if len(quote(key, safe="")) > _LONGEST_KEY), None):
        raise ValueError(
            f"{name}: the key {long[:40]}… is too long for a folder's name; give the partition a shorter one."
        )
    # Delta keeps an empty text in a partition column as null, and could not find the partition again.
    if any("" in (parts(partition) if len(columns) > 1 else [partition]) for partition in partitions):
        raise ValueError(f"{name}: the lake cannot hold a partition whose key is empty; give it a name.")
    foreign = set(row_keys(rows, columns).unique().to_pylist()) - set(partitions)
    if foreign:
        raise ValueError(
            f"{name}: rows with {', '.join(columns)} = {sorted(map(str, foreign))[:3]} do not belong to the partitions "
            f"that are written ({min(partitions)} to {max(partitions)}): in the lake the column holds the key "
            "itself, as it is written. Keep other rows out of the frame that the asset returns."
        )


def boxes(partitions: Sequence[str], dimensions: int) -> list[list[list[str]]]:
    """The partitions as few products of values of each dimension."""
    if dimensions == 1:
        return [[sorted(set(partitions))]]
    seconds_of = defaultdict(set)
    for partition in partitions:
        first, second = parts(partition)
        seconds_of[first].add(second)
    firsts_of = defaultdict(list)
    for first, seconds in seconds_of.items():
        firsts_of[frozenset(seconds)].append(first)
    return [[sorted(firsts), sorted(seconds)] for seconds, firsts in firsts_of.items()]


def predicate(name: str, schema: pa.Schema, columns: Sequence[str], partitions: Sequence[str]) -> str:
    """The SQL condition of exactly these partitions' rows; empty where there are none.

    Raises:
        ValueError: a column of a type that no partition key is text of.
    """
    for column in columns:
        kind = schema.field(column).type
        if not _is_key(kind):
            raise ValueError(f"{name}: {column} holds the partition key as {kind}; make it text, a date or an integer.")
    quoted = ['"' + column.replace('"', '""') + '"' for column in columns]
    kinds = [schema.field(column).type for column in columns]
    return " OR ".join(
        "("
        + " AND ".join(
            f"{column} IN ({', '.join(_literal(kind, value) for value in values)})"
            for column, kind, values in zip(quoted, kinds, box, strict=True)
        )
        + ")"
        for box in boxes(partitions, len(columns))
        if all(box)
    )


def guarantee(
    schema: pa.Schema, partition: Mapping[str, Any], columns: Sequence[str], ends: Mapping[str, Any]
) -> ds.Expression:
    """What holds for every row of a file: its partition, and the ends of other columns by its flattened add action.

    Not what delta-rs says holds: it keeps decimals as floats, instants as milliseconds, and null as the end of columns
    with an infinity, so that a filter would pass over files that have rows for it.
    """
    held = [ds.field(column) == pa.scalar(partition[column], schema.field(column).type) for column in columns]
    for field in schema:
        low, high = ends.get(f"min.{field.name}"), ends.get(f"max.{field.name}")
        if field.name in columns or low is None or high is None or not _is_key(field.type):
            continue
        between = (ds.field(field.name) >= low) & (ds.field(field.name) <= high)
        held.append(between if ends[f"null_count.{field.name}"] == 0 else between | ds.field(field.name).is_null())
    return reduce(and_, held, ds.scalar(True))


def _is_key(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_date(kind) or pa.types.is_integer(kind)


def _literal(kind: pa.DataType, value: str) -> str:
    if pa.types.is_integer(kind):
        return str(int(value))
    quoted = "'" + value.replace("'", "''") + "'"
    return f"DATE {quoted}" if pa.types.is_date(kind) else quoted
