"""Frames of every kind against every store: stored and read back equal by every reader, or refused in a sentence."""

import math
from collections.abc import Callable, Mapping
from datetime import UTC, date, datetime, time, timedelta
from decimal import Decimal
from typing import Any
from uuid import uuid4

import dagster as dg
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
from hypothesis import strategies as st

from resources.frames import arrow_of
from resources.lake import Lake
from resources.warehouse import Warehouse
from tilth.conversion import to_pandas, to_polars

INTEGERS = st.integers(-(2**63), 2**63 - 1)
TEXT = st.text(max_size=4)
INSTANTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))
PRICES = st.decimals(-9999, 9999, places=2)
# As far as microseconds in 64 bits reach, which Python's own exceed.
DURATIONS = st.timedeltas(timedelta(days=-100_000_000), timedelta(days=100_000_000))

# What assets return, by the library that they return it from: values, and how a column is made of them.
ARROW: Mapping[str, tuple[Any, st.SearchStrategy[Any]]] = {
    **{str(kind): (kind, INTEGERS.map(lambda n: n % 100)) for kind in (pa.int8(), pa.uint16(), pa.uint64())},
    "int64": (pa.int64(), INTEGERS),
    "float16": (pa.float16(), st.floats(width=16)),
    "float": (pa.float32(), st.floats(width=32)),
    "double": (pa.float64(), st.floats()),
    "text": (pa.string(), TEXT),
    "view": (pa.string_view(), TEXT),
    "large": (pa.large_string(), TEXT),
    "bytes": (pa.binary(), st.binary(max_size=4)),
    "bool": (pa.bool_(), st.booleans()),
    "date": (pa.date32(), st.dates()),
    "any date": (pa.date32(), st.integers(-(2**31), 2**31 - 1)),
    "time": (pa.time64("us"), st.times()),
    "fine time": (pa.time64("ns"), st.integers(0, 86_399_999_999_999)),
    "naive": (pa.timestamp("us"), INSTANTS),
    "fine": (pa.timestamp("ns"), st.integers(-(2**62), 2**62)),
    "far": (pa.timestamp("s"), st.integers(-(2**62), 2**62)),
    "zoned": (pa.timestamp("us", "Asia/Tokyo"), INSTANTS.map(lambda at: at.replace(tzinfo=UTC))),
    "decimal": (pa.decimal128(9, 2), PRICES),
    "wide decimal": (pa.decimal256(50, 2), PRICES),
    "duration": (pa.duration("us"), DURATIONS),
    "nothing": (pa.null(), st.none()),
    "list": (pa.list_(pa.int64()), st.lists(st.none() | INTEGERS, max_size=2)),
    "struct": (pa.struct([("x", pa.int64()), ("y", pa.string())]), st.fixed_dictionaries({"x": INTEGERS, "y": TEXT})),
}
PANDAS: Mapping[str, tuple[Callable[[list[Any]], Any], st.SearchStrategy[Any]]] = {
    "object": (lambda values: pd.Series(values, dtype=object), INTEGERS | TEXT),
    "Int64": (lambda values: pd.array(values, dtype="Int64"), INTEGERS),
    "integers": (lambda values: pd.Series(values), INTEGERS),
    "floats": (lambda values: pd.Series(values, dtype="float64"), st.floats()),
    "text": (lambda values: pd.Series(values, dtype="str"), TEXT),
    "category": (lambda values: pd.Categorical(values), TEXT),
    "numbered": (lambda values: pd.Categorical(values), INTEGERS),
    "instants": (lambda values: pd.Series(pd.to_datetime(values, utc=True)), INSTANTS),
    "naive": (lambda values: pd.Series(pd.to_datetime(values)), INSTANTS),
    "decimals": (lambda values: pd.Series(values, dtype=object), PRICES),
    "dates": (lambda values: pd.Series(values, dtype=object), st.dates()),
    "times": (lambda values: pd.Series(values, dtype=object), st.times()),
    "periods": (lambda values: pd.Series(pd.PeriodIndex(pd.to_datetime(values), freq="D")), INSTANTS),
    "complex": (lambda values: pd.Series(values, dtype="complex128"), st.complex_numbers(allow_nan=False)),
    "spans": (lambda values: pd.Series(pd.to_timedelta(values, unit="s")), st.integers(0, 1000)),
    "lists": (lambda values: pd.Series(values, dtype=object), st.lists(INTEGERS, max_size=2)),
}
POLARS: Mapping[str, tuple[Any, st.SearchStrategy[Any]]] = {
    "categorical": (pl.Categorical, TEXT),
    "enum": (pl.Enum(["a", "b", ""]), st.sampled_from(["a", "b", ""])),
    "int128": (pl.Int128, INTEGERS),
    "uint64": (pl.UInt64, st.integers(0, 2**64 - 1)),
    "text": (pl.String, TEXT),
    "decimal": (pl.Decimal(10, 2), PRICES),
    "time": (pl.Time, st.times()),
    "datetime": (pl.Datetime("ns", "UTC"), INSTANTS.map(lambda at: at.replace(tzinfo=UTC))),
    "duration": (pl.Duration("ms"), DURATIONS),
    "list": (pl.List(pl.Categorical), st.lists(st.none() | TEXT, max_size=2)),
    "struct": (pl.Struct({"x": pl.Int64, "y": pl.String}), st.fixed_dictionaries({"x": INTEGERS, "y": TEXT})),
}
NAMES = st.sampled_from(["a", "b", "c", "d", "e", "f", "g"]) | st.sampled_from(
    ["A", "", " ", "x y", "ä", 'q"', "t\t", "select", "%", "a.b", "日", "n\0", "_", "a" * 70]
)


@st.composite
def frames(draw: st.DrawFn) -> Any:
    """A frame of pandas, polars or pyarrow: up to four columns, up to four rows, nulls among their values."""
    size = draw(st.integers(0, 4))
    names = draw(st.lists(NAMES, min_size=1, max_size=4))
    library = draw(st.sampled_from([ARROW, PANDAS, POLARS]))
    columns = []
    for _ in names:
        make, values = library[draw(st.sampled_from(sorted(library)))]
        nullable = draw(st.booleans())
        columns.append((make, draw(st.lists(st.none() | values if nullable else values, min_size=size, max_size=size))))
    if library is ARROW:
        return pa.Table.from_arrays([pa.array(values, kind) for kind, values in columns], names=names)
    if library is POLARS:
        unique = dict(zip(names, columns, strict=True))
        return pl.DataFrame([pl.Series(name, values, kind, strict=False) for name, (kind, values) in unique.items()])
    frame = pd.DataFrame({place: make(values) for place, (make, values) in enumerate(columns)})
    frame.columns = names
    return frame


def plain(value: Any) -> Any:
    """A value as all readers agree on it: a null is a null, an instant in UTC, a number its exact value."""
    if isinstance(value, np.ndarray | list | tuple):
        return [plain(part) for part in value]
    if isinstance(value, dict):
        return {name: plain(part) for name, part in value.items()}
    if value is None or value is pd.NA or value is pd.NaT or (isinstance(value, float) and math.isnan(value)):
        return None
    if isinstance(value, pd.Timestamp | datetime):
        return pd.Timestamp(value) if value.tzinfo is None else pd.Timestamp(value).tz_convert("UTC").tz_localize(None)
    if isinstance(value, bool | np.bool_):
        return ("bool", bool(value))
    if isinstance(value, int | float | np.integer | np.floating):
        return Decimal(repr(float(value))) if isinstance(value, float | np.floating) else Decimal(int(value))
    return value if isinstance(value, str | bytes | date | time | Decimal) else str(value)


def content(rows: pa.Table) -> list[list[Any]]:
    """By column, its values; as Arrow's own text where Python has none for them."""
    found = []
    for column in rows.itercolumns():
        try:
            found.append([plain(value) for value in column.to_pylist()])
        except (ValueError, OverflowError):
            whole = column.cast(pa.int64()) if pa.types.is_timestamp(column.type) else column.cast(pa.int32())
            unit = {"s": 10**6, "ms": 10**3, "us": 1}.get(getattr(column.type, "unit", "us"), 1)
            found.append([None if value.as_py() is None else value.as_py() * unit for value in whole])
    return found


def check(frame: Any, warehouse: Warehouse, lake: Lake | None = None) -> None:
    """Store the frame as a table of its own, in the lake too where there is one, and read it by every reader.

    Raises:
        AssertionError: it was stored and a reader gives anything else, or it was refused and something is there, or the
            refusal does not begin with the asset's name.
    """
    name = f"t{uuid4().hex[:8]}"
    asset, table = f"raw/{name}", f"raw.{name}"
    try:
        rows = arrow_of(frame, dg.build_output_context(asset_key=dg.AssetKey(["raw", name])))
    except (TypeError, ValueError) as error:
        _begins(error, asset)
        return
    expected = content(rows)
    if lake:
        try:
            lake.replace(asset, rows)
        except ValueError as error:
            _begins(error, asset)
            assert not lake.holds(asset)
        else:
            for found in (lake.read(asset), lake.dataset(asset).to_table()):
                assert content(found) == expected
            _in_frames(lake.read(asset), expected)
    try:
        warehouse.replace(table, rows)
    except ValueError as error:
        _begins(error, table)
        assert not warehouse.exists(table)
    else:
        for found in (warehouse.read(table), warehouse.read(f'SELECT * FROM raw."{name}"')):
            assert content(found) == expected
        _in_frames(warehouse.read(table), expected)


def _begins(refusal: Exception, name: str) -> None:
    assert str(refusal).startswith(name), refusal


def _in_frames(rows: pa.Table, expected: list[list[Any]]) -> None:
    assert content(to_polars(rows).to_arrow()) == expected
    frame = to_pandas(rows)
    for place, values in enumerate(expected):
        if not any(isinstance(value, int) for value in values):  # a date that Python has none for
            assert [plain(value) for value in frame.iloc[:, place].astype(object)] == values
