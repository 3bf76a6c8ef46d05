"""What is read from a shared frame is what was shared: all of it, or exactly a partition's rows in their order."""

from datetime import date
from pathlib import Path
from tempfile import TemporaryDirectory

import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tilth.execution.shared_frames import Sliced, share

MONTHS, ORIGINS = ["2013-01", "2013-02"], ["EWR", "JFK"]
KEYS = [f"{month}|{origin}" for month in MONTHS for origin in ORIGINS]
ROWS = st.lists(
    st.tuples(st.sampled_from([*MONTHS, "2013-03"]), st.sampled_from(ORIGINS), st.none() | st.integers(-9, 9))
)


def table(rows: list[tuple[str, str, int | None]], pieces: int = 1) -> pa.Table:
    """The rows in several chunks, the origin as categories that differ from chunk to chunk."""
    schema = pa.schema([("month", pa.string()), ("origin", pa.dictionary(pa.int32(), pa.string())), ("n", pa.int64())])
    size = len(rows) // pieces + 1
    parts = [rows[start : start + size] for start in range(0, max(len(rows), 1), size)]
    return pa.concat_tables(
        pa.Table.from_pylist([dict(zip(schema.names, row, strict=True)) for row in part], schema) for part in parts
    )


@given(rows=ROWS, pieces=st.integers(1, 3), by=st.permutations(["month", "origin"]))
def test_a_partition_reads_exactly_its_rows_in_their_order_however_by_is_ordered(
    rows: list[tuple[str, str, int | None]], pieces: int, by: list[str]
) -> None:
    with TemporaryDirectory() as folder:
        shared = share("rows", Sliced(table(rows, pieces), by), KEYS, Path(folder), ["month", "origin"])
        for key in KEYS:
            wanted = [row for row in rows if f"{row[0]}|{row[1]}" == key]
            assert shared.has(key) == bool(wanted)
            if wanted:
                found = shared.read(key)
                assert isinstance(found, pa.Table)
                assert [tuple(row.values()) for row in found.to_pylist()] == wanted


@given(rows=ROWS, pieces=st.integers(1, 3))
def test_a_whole_frame_is_read_whole(rows: list[tuple[str, str, int | None]], pieces: int) -> None:
    with TemporaryDirectory() as folder:
        shared = share("rows", table(rows, pieces), KEYS, Path(folder))
        assert all(shared.has(key) for key in KEYS)
        assert [tuple(row.values()) for row in shared.read(KEYS[0]).to_pylist()] == rows


def test_a_pandas_frame_comes_back_as_one_that_can_be_written_to(tmp_path: Path) -> None:
    frame = pd.DataFrame(
        {
            "day": [date(2013, 1, 1), date(2013, 1, 2), date(2013, 1, 1)],
            "kind": pd.Categorical(["a", "b", "c"]),
            "n": [1.0, 2.0, None],
        },
        index=[7, 8, 9],
    )
    found = share("days", Sliced(frame, ["day"]), ["2013-01-01"], tmp_path).read("2013-01-01")

    pd.testing.assert_frame_equal(found, frame[frame["day"] == date(2013, 1, 1)].reset_index(drop=True))
    found["n"] += 1
    assert found["n"][0] == 2


def test_what_is_no_frame_and_a_column_that_is_not_there_are_named(tmp_path: Path) -> None:
    with pytest.raises(TypeError, match=r"airports is a list: give a pandas frame .* functools\.partial"):
        share("airports", ["EWR"], KEYS, tmp_path)  # pyright: ignore[reportArgumentType]
    with pytest.raises(ValueError, match=r"sales has no column year to slice by; it has \['month', 'origin', 'n'\]"):
        share("sales", Sliced(table([]), ["year", "origin"]), KEYS, tmp_path, ["month", "origin"])


@pytest.mark.parametrize("by", [["month", "origin"], ["origin", "month"]])
def test_a_column_that_is_no_dimension_holds_the_one_that_is_left(by: list[str], tmp_path: Path) -> None:
    rows = table([("2013-01", "EWR", 1)])
    assert share("rows", Sliced(rows, by), ["EWR|2013-01"], tmp_path, ["entity", "month"]).has("EWR|2013-01")


def test_columns_that_are_no_dimensions_hold_them_in_the_order_of_the_key(tmp_path: Path) -> None:
    rows = table([("2013-01", "EWR", 1)])
    assert share("rows", Sliced(rows, ["origin", "month"]), ["EWR|2013-01"], tmp_path, ["a", "b"]).has("EWR|2013-01")


def test_where_no_key_matches_those_that_there_are_are_named(tmp_path: Path) -> None:
    shared = share("rows", Sliced(table([("2013-01", "EWR", 1)]), ["month", "origin"]), KEYS, tmp_path, ["a", "b"])
    assert shared.others == ""
    shared = share("rows", Sliced(table([("2013-1", "EWR", 1)]), ["month", "origin"]), KEYS, tmp_path, ["a", "b"])
    assert shared.others == "by month and origin it has rows for '2013-1|EWR'"
    many = pa.table({"letter": list("abcdefg")})
    shared = share("rows", Sliced(many, ["letter"]), ["z"], tmp_path)
    assert shared.others == "by letter it has rows for 'a', 'b', 'c', 'd', 'e' and 2 more"
    assert share("rows", Sliced(many.slice(0, 0), ["letter"]), ["z"], tmp_path).others == "it has no rows at all"


def test_a_column_is_named_for_each_dimension(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="rows is sliced by month, but the key has the dimensions month and origin: "):
        share("rows", Sliced(table([]), ["month"]), KEYS, tmp_path, ["month", "origin"])
    with pytest.raises(ValueError, match="rows is sliced by month, origin, but the key has one part: name a column"):
        share("rows", Sliced(table([]), ["month", "origin"]), KEYS, tmp_path)
