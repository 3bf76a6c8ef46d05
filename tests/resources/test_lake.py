"""The lake replaces exactly the partitions it is given, and equal content has an equal data version."""

from datetime import date, timedelta
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from deltalake.exceptions import TableNotFoundError
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.frames import data_version
from resources.lake import Lake

KEY = dg.AssetKey(["features", "things"])
DAYS = [date(2013, 1, 1) + timedelta(days=n) for n in range(6)]


def rows(days: list[date], value: int) -> pa.Table:
    return pa.table({"day": pa.array(days, pa.date32()), "value": pa.array([value] * len(days), pa.int64())})


def keys(days: list[date]) -> list[str]:
    return [str(day) for day in days]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path))


def test_replacing_a_day_leaves_the_other_days(lake: Lake) -> None:
    lake.replace(KEY, rows(DAYS, 1), keys(DAYS), "day")
    lake.replace(KEY, rows(DAYS[2:3], 2), keys(DAYS[2:3]), "day")
    assert lake.read(KEY, keys(DAYS), "day")["value"].to_pylist() == [1, 1, 2, 1, 1, 1]


def test_replacing_a_day_by_nothing_empties_that_day(lake: Lake) -> None:
    lake.replace(KEY, rows(DAYS, 1), keys(DAYS), "day")
    lake.replace(KEY, rows([], 0), keys(DAYS[:1]), "day")
    assert lake.read(KEY, keys(DAYS), "day")["day"].to_pylist() == DAYS[1:]


def test_each_replacement_is_one_version(lake: Lake) -> None:
    first = lake.replace(KEY, rows(DAYS, 1), keys(DAYS), "day")
    assert lake.replace(KEY, rows(DAYS, 2), keys(DAYS), "day") == first + 1


def test_a_row_of_another_day_is_refused_and_nothing_is_written(lake: Lake) -> None:
    lake.replace(KEY, rows(DAYS[:2], 1), keys(DAYS[:2]), "day")
    with pytest.raises(ValueError, match=r"features/things: rows with day = \['2013-01-02'\] do not belong"):
        lake.replace(KEY, rows(DAYS[:2], 2), keys(DAYS[:1]), "day")
    assert lake.read(KEY)["value"].to_pylist() == [1, 1]


@pytest.mark.parametrize("came", [pa.array([1.5]), pa.array(["1"]), None])
def test_a_column_of_another_type_or_missing_is_refused_and_nothing_is_written(
    lake: Lake, came: pa.Array | None
) -> None:
    lake.replace(KEY, rows(DAYS, 1), keys(DAYS), "day")
    other = pa.table({"day": pa.array(DAYS[:1], pa.date32())} | ({} if came is None else {"value": came}))
    with pytest.raises(ValueError, match=r"features/things: columns differ .*value: int64 is stored, \w+ came"):
        lake.replace(KEY, other, keys(DAYS[:1]), "day")
    assert set(lake.read(KEY)["value"].to_pylist()) == {1}


def test_reading_what_was_never_stored_says_so(lake: Lake) -> None:
    with pytest.raises(TableNotFoundError, match=r"features/things is not in the lake at .*; materialize it first"):
        lake.read(KEY)


def test_only_the_wanted_partitions_and_columns_are_read(lake: Lake) -> None:
    lake.replace(KEY, rows(DAYS, 1), keys(DAYS), "day")
    found = lake.read(KEY, keys(DAYS[1:3]), "day", columns=["day"])
    assert found.column_names == ["day"]
    assert found["day"].to_pylist() == DAYS[1:3]


def test_branches_do_not_see_each_other(tmp_path: Path) -> None:
    Lake(str(tmp_path), "main").replace(KEY, rows(DAYS, 1), keys(DAYS), "day")
    with pytest.raises(TableNotFoundError):
        Lake(str(tmp_path), "trial").read(KEY)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.tuples(st.sets(st.integers(0, 5), min_size=1), st.integers(0, 9)), min_size=1, max_size=5))
def test_any_sequence_of_replacements_reads_as_the_last_write_of_each_day(
    tmp_path_factory: pytest.TempPathFactory, writes: list[tuple[set[int], int]]
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    expected: dict[date, int] = {}
    for numbers, value in writes:
        days = [DAYS[n] for n in sorted(numbers)]
        lake.replace(KEY, rows(days, value), keys(days), "day")
        expected |= dict.fromkeys(days, value)
    found = lake.read(KEY, keys(DAYS), "day")
    assert dict(zip(found["day"].to_pylist(), found["value"].to_pylist(), strict=True)) == expected


@given(st.lists(st.one_of(st.none(), st.integers(-5, 5)), min_size=1), st.data())
def test_the_data_version_depends_on_values_not_on_chunks(values: list[int | None], data: st.DataObject) -> None:
    cut = data.draw(st.integers(0, len(values)))
    whole = pa.table({"a": pa.array(values, pa.int64())})
    chunked = pa.concat_tables([whole.slice(0, cut), whole.slice(cut)])
    assert data_version(chunked) == data_version(whole)
    changed = [*values[:-1], 99]
    assert data_version(pa.table({"a": pa.array(changed, pa.int64())})) != data_version(whole)


def test_the_data_version_tells_types_and_names_apart() -> None:
    versions = {
        data_version(pa.table({"a": pa.array([1], pa.int64())})),
        data_version(pa.table({"a": pa.array([1], pa.int32())})),
        data_version(pa.table({"b": pa.array([1], pa.int64())})),
    }
    assert len(versions) == 3
