"""Which rows of a warehouse table belong to which partitions: by what a key means, not by how it is written.

A column of text, dates or whole numbers holds the key itself. A column of dates or times of time partitions belongs to
the partition whose window [start, end) it lies in, as with Dagster's own IO managers: an instant by the instants of the
window, a time without a zone by the clock of the partitions' zone.
"""

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any, NamedTuple

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

_PER_SECOND = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}
_EPOCH = datetime(1970, 1, 1)


class Window(NamedTuple):
    """The rows of some partitions: those whose `column` means one of `keys`, under `partitions` where that is known."""

    column: str
    keys: Sequence[str]
    partitions: dg.PartitionsDefinition[Any] | None = None


def is_of_time(window: Window) -> bool:
    """Whether its keys stand for stretches of time."""
    return isinstance(window.partitions, dg.TimeWindowPartitionsDefinition)


def positions(table: str, values: pa.ChunkedArray, window: Window) -> np.ndarray:
    """For each value the place of its partition in the window's keys; -1 where it belongs to none of them.

    Raises:
        ValueError: a column of a type that does not tell the partition, or a key that the type has no value for.
    """
    values = values.cast(values.type.value_type) if pa.types.is_dictionary(values.type) else values
    kind = values.type
    if pa.types.is_null(kind):  # an empty frame's, or of nulls, which belong nowhere
        return np.full(len(values), -1)
    if _by_time(kind, window):
        moments = values.cast(pa.timestamp("s") if pa.types.is_date(kind) else kind)
        scale = _PER_SECOND[moments.type.unit]
        spans = _spans(table, kind, window)
        order = sorted(range(len(spans)), key=spans.__getitem__)
        starts = np.array([spans[place][0] * scale for place in order], "int64")
        ends = np.array([spans[place][1] * scale for place in order], "int64")
        numbers = moments.cast(pa.int64()).fill_null(np.iinfo("int64").min).to_numpy()
        if not order:
            return np.full(len(numbers), -1)
        at = np.searchsorted(starts, numbers, "right") - 1
        inside = (at >= 0) & (numbers < ends[at])
        return np.where(inside, np.array(order)[at], -1)
    if not (_is_text(kind) or pa.types.is_integer(kind) or pa.types.is_date(kind)):
        raise ValueError(
            f"{table}, column {window.column}: {kind} does not tell the partition. Make it text, a date or a whole "
            "number as the key is; a time does for partitions of time."
        )
    try:
        wanted = pa.array(window.keys, pa.string()).cast(kind)
    except pa.ArrowInvalid as error:
        raise ValueError(f"{table}, column {window.column}: the partition keys are no {kind} ({error}).") from error
    if len(wanted.unique()) < len(set(window.keys)):
        raise ValueError(f"{table}, column {window.column}: two partition keys are one {kind}. Make the column text.")
    return pc.call_function("index_in", [values], pc.SetLookupOptions(wanted)).fill_null(-1).to_numpy()


def time_conditions(table: str, column: str, kind: pa.DataType, window: Window) -> list[str] | None:
    """SQL conditions, one for each unbroken stretch, of which the window's rows meet one; None where it is not of time.

    `column` is the SQL for a column that holds values of type `kind`.
    """
    if not _by_time(kind, window):
        return None
    name = "TIMESTAMPTZ" if pa.types.is_timestamp(kind) and kind.tz else "TIMESTAMP"
    zone = "+00" if name == "TIMESTAMPTZ" else ""
    if kind == pa.timestamp("ns", "UTC"):  # which DuckDB compares with no other type
        column = f"CAST({column} AS TIMESTAMPTZ)"

    def literal(second: int) -> str:
        return f"{name} '{np.datetime64(second, 's').item().isoformat(sep=' ')}{zone}'"

    return [
        f"({column} >= {literal(start)} AND {column} < {literal(end)})"
        for start, end in _joined(_spans(table, kind, window))
    ]


def _by_time(kind: pa.DataType, window: Window) -> bool:
    return is_of_time(window) and (pa.types.is_timestamp(kind) or pa.types.is_date(kind))


def _is_text(kind: pa.DataType) -> bool:
    return pa.types.is_string(kind) or pa.types.is_large_string(kind) or pa.types.is_string_view(kind)


def _spans(table: str, kind: pa.DataType, window: Window) -> list[tuple[int, int]]:
    """By key its start and end in seconds since 1970: of instants, or of the clock in the partitions' zone."""
    partitions = window.partitions
    assert isinstance(partitions, dg.TimeWindowPartitionsDefinition)  # noqa: S101
    spans = []
    for key in window.keys:
        of_key = partitions.time_window_for_partition_key(key)
        if pa.types.is_timestamp(kind) and kind.tz:
            start, end = round(of_key.start.timestamp()), round(of_key.end.timestamp())
        else:
            clock = [at.replace(tzinfo=None) for at in (of_key.start, of_key.end)]
            if pa.types.is_date(kind):
                # A day that begins at six belongs to the date on which it begins.
                clock = [at.replace(hour=0, minute=0, second=0) for at in clock]
            start, end = (round((at - _EPOCH).total_seconds()) for at in clock)
        if end <= start and pa.types.is_date(kind):
            raise ValueError(
                f"{table}, column {window.column}: a date does not tell partition {key}, which is shorter than a day. "
                "Give the column a time."
            )
        if end <= start:
            raise ValueError(
                f"{table}, column {window.column}: the clock passes partition {key} twice as summer time ends. Give "
                "the column a time zone."
            )
        spans.append((start, end))
    return spans


def _joined(spans: Iterable[tuple[int, int]]) -> list[tuple[int, int]]:
    joined: list[tuple[int, int]] = []
    for start, end in sorted(spans):
        if joined and start <= joined[-1][1]:
            joined[-1] = (joined[-1][0], max(end, joined[-1][1]))
        else:
            joined.append((start, end))
    return joined
