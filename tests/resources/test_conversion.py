"""Frames on their way to a store and back: no value changes, or the frame is refused with what to do."""

import datetime as dt
import subprocess
import sys
from collections.abc import Callable
from decimal import Decimal
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from resources.preview import CHARACTERS, COLUMNS, SCHEMA_COLUMNS, column_schema, preview
from tilth.conversion import to_arrow, to_pandas

BEYOND_FLOATS = 9_007_199_254_740_993

INTEGERS = {
    pa.int8(): (-(2**7), 2**7 - 1),
    pa.int32(): (-(2**31), 2**31 - 1),
    pa.int64(): (-(2**63), 2**63 - 1),
    pa.uint64(): (0, 2**64 - 1),
}


@pytest.mark.parametrize("order", ["pandera.pandas tilth.conversion", "tilth.conversion pandera.pandas"])
def test_an_instant_keeps_its_zone_beside_a_library_that_tells_arrow_to_ignore_it(order: str) -> None:
    # Pandera and pyspark set PYARROW_IGNORE_TIMEZONE for their whole process, and for those that it starts.
    in_another_process = """
import sys
for module in sys.argv[1].split():
    __import__(module)
import datetime as dt, pyarrow as pa
at = dt.datetime(2013, 3, 16, 23, tzinfo=dt.timezone(dt.timedelta(hours=-4)))
print(pa.array([at], pa.timestamp("us", "UTC"))[0].as_py().isoformat())
"""
    found = subprocess.run(
        [sys.executable, "-c", in_another_process, order], capture_output=True, text=True, check=True
    )
    assert dt.datetime.fromisoformat(found.stdout.strip()) == dt.datetime(2013, 3, 17, 3, tzinfo=dt.UTC)


@given(st.data())
def test_whole_numbers_reach_pandas_unchanged_with_nulls_or_without(data: st.DataObject) -> None:
    kind = data.draw(st.sampled_from([*INTEGERS]))
    values = data.draw(st.lists(st.none() | st.integers(*INTEGERS[kind]), max_size=5))
    frame = to_pandas(
        pa.table({"n": pa.array(values, kind), "again": pa.array(values, kind), "x": ["a"] * len(values)})
    )
    assert list(frame.columns) == ["n", "again", "x"]
    for name in ("n", "again"):
        assert [None if pd.isna(value) else int(value) for value in frame[name].astype(object)] == values
    assert to_arrow(frame)["n"].to_pylist() == values


@pytest.mark.parametrize(
    "values",
    [
        pa.array([[BEYOND_FLOATS, None], None]),
        pa.array([{"a": BEYOND_FLOATS, "b": [None, 1]}, {"a": None, "b": None}]),
        pa.array([[("k", BEYOND_FLOATS), ("l", None)]], pa.map_(pa.string(), pa.int64())),
        pa.array([[[BEYOND_FLOATS], [None]]]),
    ],
    ids=lambda values: str(values.type),
)
def test_what_is_nested_keeps_every_digit_in_pandas(values: pa.Array) -> None:
    frame = to_pandas(pa.table({"nested": values}))
    assert frame["nested"].tolist() == values.to_pylist()
    assert frame["nested"].map(lambda value: value).tolist() == values.to_pylist()


def test_a_time_finer_than_pythons_keeps_its_nanoseconds_in_pandas() -> None:
    values = pa.array([1], pa.time64("ns"))
    assert to_arrow(to_pandas(pa.table({"at": values})))["at"].combine_chunks().equals(values)


EAST = dt.timezone(dt.timedelta(hours=5))


@pytest.mark.parametrize(
    "values",
    [
        [dt.date(2020, 1, 1), dt.datetime(2020, 1, 1, 5)],
        [None, dt.date(2020, 1, 1), pd.Timestamp("2020-01-01 23:00")],
        [dt.datetime(2020, 1, 1, 5), dt.datetime(2020, 1, 1, 5, tzinfo=EAST)],
        [dt.time(1, 2, tzinfo=EAST)],
    ],
    ids=["dates and times", "with a null", "with a zone and without", "a time of day with a zone"],
)
def test_times_of_which_arrow_would_cut_some_are_refused(values: list[object]) -> None:
    with pytest.raises(ValueError, match="column at mixes dates and times"):
        to_arrow(pd.DataFrame({"at": pd.Series(values, dtype=object)}))


@pytest.mark.parametrize("series", [pd.Series([1], name="late"), pl.Series("late", [1])])
def test_a_series_is_refused_with_what_to_call(series: object) -> None:
    with pytest.raises(TypeError, match=r"a Series is no table.* Call its to_frame\(\)"):
        to_arrow(series)


def test_a_named_index_becomes_columns() -> None:
    frame = pd.DataFrame({"carrier": ["UA", "UA", "AA"], "origin": ["EWR", "EWR", "JFK"], "late": [1, 2, 3]})
    assert to_arrow(frame.groupby("carrier")[["late"]].sum()).to_pylist() == [
        {"carrier": "AA", "late": 3},
        {"carrier": "UA", "late": 3},
    ]
    assert to_arrow(frame.groupby(["carrier", "origin"])[["late"]].sum()).column_names == ["carrier", "origin", "late"]
    # One that a column repeats says nothing more, nor do row numbers.
    assert to_arrow(frame.set_index("carrier", drop=False)).column_names == ["carrier", "origin", "late"]
    assert to_arrow(frame[frame["late"] > 1]).column_names == ["carrier", "origin", "late"]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pd.DataFrame({"a": [1]}, index=["UA"]), "index holds 'UA' and has no name"),
        (pd.DataFrame({"a": [1]}, index=[pd.Timestamp("2013-01-01")]), "has no name"),
        (pd.DataFrame({"a": [1]}, index=pd.Index([2], name="a")), r"cannot become columns because of 'a'"),
        (pd.DataFrame({"a": [1]}, index=pd.MultiIndex.from_tuples([(1, 2)], names=["b", None])), "because of None"),
        (pd.DataFrame({0: [1]}), "the column name 0 is no text"),
        (pd.DataFrame([[1]], columns=pd.MultiIndex.from_tuples([("a", "sum")])), r"name \('a', 'sum'\) is no text"),
    ],
)
def test_an_index_or_a_name_that_would_be_lost_is_refused(frame: pd.DataFrame, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_arrow(frame)


@pytest.mark.parametrize(
    "series",
    [
        pl.Series("c", ["a", None, "b"], pl.Categorical),
        pl.Series("c", ["a", None, "b"], pl.Enum(["a", "b"])),
        pl.Series("c", [["a", None], None, ["b"]], pl.List(pl.Categorical)),
        pl.Series("c", [{"x": "a"}, None, {"x": None}], pl.Struct({"x": pl.Categorical})),
        pl.Series("c", [["a", "b"], None], pl.Array(pl.String, 2)),
        pl.Series("c", [["a", "b"], None, ["b", "b"]], pl.Array(pl.Categorical, 2)),
    ],
    ids=lambda series: str(series.dtype),
)
def test_categories_of_polars_are_their_values_wherever_they_are_nested(series: pl.Series) -> None:
    values = series.to_list()
    nested = isinstance(series.dtype, pl.Struct)
    found = to_arrow(pl.DataFrame({"c": series}))["c"].to_pylist()
    assert found == [{"x": None} if nested and value is None and found[1] else value for value in values]


@pytest.mark.parametrize(
    ("frame", "said"),
    [
        (pl.DataFrame({"i": pl.Series([1], dtype=pl.Int128)}), "column i is Int128, which Arrow has not: cast it"),
        (pl.DataFrame({"n\0": ["x"]}), "holds the character NUL: rename the column"),
        (
            pl.DataFrame({"o": pl.Series([object()], dtype=pl.Object)}),
            "column o is Object.*, which Arrow has not",
        ),
    ],
)
def test_what_polars_would_break_on_is_refused(frame: pl.DataFrame, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        to_arrow(frame)


def test_decimals_of_python_have_room_for_the_next_rows() -> None:
    kind = to_arrow(pd.DataFrame({"price": [Decimal("112.50")]})).schema.field("price").type
    assert kind == pa.decimal128(38, 2)


@pytest.mark.parametrize(
    "column",
    [
        pa.array([-(2**31), 2**31 - 1], pa.date32()),
        pa.array([2**62], pa.timestamp("s")),
        pa.array([2**62], pa.timestamp("s", "UTC")),
        pa.array([2**62], pa.timestamp("us", "UTC")),
        pa.array([2**62], pa.duration("s")),
        pa.array([[2**62]], pa.list_(pa.timestamp("s"))),
        pa.array([1], pa.timestamp("us", "Foo/Bar")),
        pa.array([float("nan"), float("inf")]),
    ],
    ids=lambda column: str(column.type),
)
def test_a_preview_shows_what_python_has_no_value_for(column: pa.Array) -> None:
    shown = preview(pa.table({"c": column}))["preview"]
    assert len(shown.records) == len(column)  # pyright: ignore[reportAttributeAccessIssue]


@pytest.mark.parametrize(
    "make", [lambda n: "x" * n, lambda n: b"x" * n, lambda n: ["x" * n]], ids=["text", "bytes", "list"]
)
def test_a_preview_is_short_whatever_the_rows_hold(make: Callable[[int], Any]) -> None:
    rows = pa.table({str(number): [make(3_000_000)] * 5 if number < 1 else [1] * 5 for number in range(1000)})
    shown: Any = preview(rows)["preview"]
    assert len(shown.records[0].data) == COLUMNS
    assert all(len(str(value)) <= CHARACTERS for record in shown.records for value in record.data.values())
    assert len(column_schema(rows.schema).columns) == SCHEMA_COLUMNS


def test_a_column_of_several_types_is_refused_by_its_name() -> None:
    with pytest.raises(pa.ArrowException, match="mixed"):
        to_arrow(pd.DataFrame({"mixed": ["a", 1, dt.date(2013, 1, 1), np.float64(1)]}))
