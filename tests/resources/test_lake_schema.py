"""What a table's columns may become from one write to the next, and that values come back as the types documented."""

from datetime import UTC, date, datetime
from decimal import Decimal
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.lake import Lake
from resources.lake_errors import LakeError
from resources.lake_schema import lake_type
from tilth.conversion import to_arrow

DAYS, BY_DAY = ["a", "b"], ["day"]


@pytest.fixture
def lake(tmp_path: Path) -> Lake:
    """Where `things` holds two days."""
    lake = Lake(str(tmp_path / "lake"))
    lake.replace("things", pa.table({"day": DAYS, "hours": [1, 2], "note": ["x", None]}), DAYS, BY_DAY)
    return lake


def held(lake: Lake, **read: int) -> dict[str, list[object]]:
    return lake.read("things", **read).to_pydict()


BEFORE = {"day": ["a", "b"], "hours": [1, 2], "note": ["x", None]}


def test_an_added_column_is_null_in_older_rows_and_the_others_keep_their_places(lake: Lake) -> None:
    frame = pa.table({"late": [True], "note": ["y"], "hours": [3], "day": ["b"], "speed": [0.5]})
    lake.replace("things", frame, ["b"], BY_DAY)
    expected = {"day": ["a", "b"], "hours": [1, 3], "note": ["x", "y"], "late": [None, True], "speed": [None, 0.5]}
    assert held(lake) == expected
    assert list(held(lake)) == list(expected)
    assert held(lake, version=1) == BEFORE


def test_a_column_that_one_day_adds_may_be_all_null_on_the_next(lake: Lake) -> None:
    lake.replace("things", pa.table({"day": ["b"], "hours": [3], "note": ["y"], "late": [True]}), ["b"], BY_DAY)
    frame = pd.DataFrame({"day": ["a"], "hours": [4], "note": [None], "late": [None]})
    lake.replace("things", to_arrow(frame), ["a"], BY_DAY)
    assert held(lake) == {"day": ["a", "b"], "hours": [4, 3], "note": [None, "y"], "late": [None, True]}


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"hours": [1.5]}, r"hours: int64 is stored, double came"),
        ({"hours": ["1"]}, r"hours: int64 is stored, string came"),
        ({"hours": pa.array([2**63], pa.uint64())}, r"hours: uint64 does not fit into int64"),
        ({"note": None}, r"note: string is stored, no such column came"),
        ({"new": pa.nulls(1)}, r'new: no value says its type; give it one, such as astype\("float64"\)'),
        ({"new": pa.array([1], pa.duration("s"))}, r"new: the lake has no type for duration\[s\]; turn it into text"),
        ({"new": pa.array([1], pa.time32("s"))}, r"new: the lake has no type for time32\[s\]"),
        ({"new": pa.array([2**63], pa.uint64())}, r"new: uint64 does not fit into int64 \(.*9223372036854775808"),
        ({"hours": [1.5], "note": None}, r"hours: int64 is stored, double came; note: string is stored, no such"),
    ],
)
def test_a_column_that_does_not_fit_is_named_with_both_types_and_the_way_to_change_it(
    lake: Lake, changed: dict[str, object], said: str
) -> None:
    columns = {"day": ["a"], "hours": [1], "note": ["x"]} | changed
    frame = pa.table({name: column for name, column in columns.items() if column is not None})
    with pytest.raises(ValueError, match=rf"^things: columns cannot be stored .*{said}") as refused:
        lake.replace("things", frame, ["a"], BY_DAY)
    assert str(refused.value).endswith('change the whole table first: Lake.migrate("things", schema).')
    assert held(lake) == BEFORE
    assert lake.table("things").version() == 1


def test_a_first_write_without_types_is_refused_and_leaves_no_table(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    with pytest.raises(ValueError, match="note: no value says its type"):
        lake.replace("things", pa.table({"day": ["a"], "note": pa.nulls(1)}), ["a"], BY_DAY)
    assert not lake.holds("things")


@pytest.mark.parametrize(
    "empty",
    [
        pd.DataFrame({"day": [], "hours": [], "note": []}),
        pd.DataFrame({"day": pd.Series([], dtype="str"), "hours": pd.Series([], dtype="float64")}),
        pd.DataFrame({"day": []}),
    ],
    ids=["without types", "of other types", "with columns missing"],
)
def test_an_empty_frame_of_any_types_empties_partitions(lake: Lake, empty: pd.DataFrame) -> None:
    lake.replace("things", to_arrow(empty), ["a"], BY_DAY)
    assert held(lake) == {"day": ["b"], "hours": [2], "note": [None]}


def test_the_columns_of_an_empty_table_bind_nothing(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    nothing = pa.table({"day": pa.array([], pa.string()), "note": pa.array([], pa.float64())})
    lake.replace("things", nothing, ["a"], BY_DAY)
    came = pa.table({"day": ["b"], "note": ["late"]})
    lake.replace("things", came, ["b"], BY_DAY)
    assert lake.read("things").equals(came)
    assert lake.table("things").metadata().partition_columns == BY_DAY


def test_numbers_of_another_width_are_stored_where_they_fit(tmp_path: Path) -> None:
    lake = Lake(str(tmp_path))
    lake.replace("things", to_arrow(pd.DataFrame({"price": [Decimal("112.50")], "n": [1]})))
    for price, n in (("9.99", np.int32(2)), ("1200.00", np.uint8(3)), ("5.5", np.int64(4))):
        lake.replace("things", to_arrow(pd.DataFrame({"price": [Decimal(price)], "n": [n]})))
        assert lake.read("things").to_pylist() == [{"price": Decimal(price), "n": int(n)}]
    with pytest.raises(ValueError, match=r"price: decimal128\(38, 3\) does not fit into decimal128\(38, 2\)"):
        lake.replace("things", to_arrow(pd.DataFrame({"price": [Decimal("5.555")], "n": [1]})))


def test_an_empty_frame_brings_its_new_columns(lake: Lake) -> None:
    lake.replace("things", pa.schema([("day", pa.string()), ("new", pa.uint8())]).empty_table(), ["a"], BY_DAY)
    assert held(lake) == {"day": ["b"], "hours": [2], "note": [None], "new": [None]}
    assert lake.read("things").schema.field("new").type == pa.int16()


# Migration

WANTED = pa.schema([("speed", pa.float64()), ("hours", pa.string()), ("day", pa.string())])


def test_a_migration_casts_adds_and_drops_columns_in_one_commit_and_old_versions_keep_theirs(lake: Lake) -> None:
    assert lake.migrate("things", WANTED) == 2
    assert lake.read("things").schema == WANTED
    assert held(lake) == {"speed": [None, None], "hours": ["1", "2"], "day": ["a", "b"]}
    assert held(lake, version=1) == BEFORE

    lake.replace("things", pa.table({"speed": [1.5], "hours": ["three"], "day": ["b"]}), ["b"], BY_DAY)
    assert held(lake) == {"speed": [None, 1.5], "hours": ["1", "three"], "day": ["a", "b"]}
    assert lake.read("things", ["a"])["hours"].to_pylist() == ["1"]


def test_a_migration_keeps_the_order_of_rows(lake: Lake) -> None:
    numbers = [(7919 * n) % 20_000 for n in range(20_000)]
    frame = pa.table({"day": ["a"] * 20_000, "hours": numbers, "note": ["x"] * 20_000})
    lake.replace("things", frame, ["a"], BY_DAY)
    lake.migrate("things", WANTED)
    assert [int(hours) for hours in lake.read("things", ["a"])["hours"].to_pylist()] == numbers


def test_a_migrated_column_takes_the_frames_that_the_wanted_type_describes(lake: Lake) -> None:
    schema = pa.schema([("day", pa.string()), ("hours", pa.uint8()), ("note", pa.dictionary(pa.int8(), pa.string()))])
    lake.migrate("things", schema)
    frame = pa.table({"day": ["b"], "hours": pa.array([200], pa.uint8()), "note": pa.array(["z"]).dictionary_encode()})
    lake.replace("things", frame, ["b"], BY_DAY)
    assert held(lake) == {"day": ["a", "b"], "hours": [1, 200], "note": ["x", "z"]}


@pytest.mark.parametrize(
    ("schema", "error", "said"),
    [
        (WANTED.remove(2), LakeError, r"^things is partitioned by day: keep them in the schema\.$"),
        (WANTED.set(0, pa.field("note", pa.int64())), LakeError, r"things cannot be migrated .*\bx\b.*int64"),
        (WANTED.set(0, pa.field("new", pa.duration("s"))), ValueError, r"^things: the lake has no type for new: dura"),
        (WANTED.set(0, pa.field("new", pa.null())), ValueError, r"^things: the lake has no type for new: null"),
    ],
    ids=["partition column dropped", "a value does not fit", "no such type", "no type"],
)
def test_a_migration_that_cannot_be_made_is_refused_and_changes_nothing(
    lake: Lake, schema: pa.Schema, error: type[Exception], said: str
) -> None:
    with pytest.raises(error, match=said):
        lake.migrate("things", schema)
    assert held(lake) == BEFORE
    assert lake.table("things").version() == 1


# Types

INSTANTS = st.datetimes(datetime(1900, 1, 1), datetime(2200, 1, 1))  # what 64 bits of nanoseconds hold
DATES = st.dates(date(1600, 1, 1), date(2600, 1, 1))
FLOATS = st.floats(allow_nan=False)
SMALL_FLOATS = st.floats(width=16, allow_nan=False)


def integers(bits: int, signed: bool) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2 ** min(bits, 63) - 1)


SIMPLE: dict[pa.DataType, st.SearchStrategy[object]] = {
    **{getattr(pa, f"int{bits}")(): integers(bits, signed=True) for bits in (8, 16, 32, 64)},
    **{getattr(pa, f"uint{bits}")(): integers(bits, signed=False) for bits in (8, 16, 32, 64)},
    pa.float16(): SMALL_FLOATS,
    pa.float32(): st.floats(width=32, allow_nan=False),
    pa.float64(): FLOATS,
    pa.bool_(): st.booleans(),
    pa.string(): st.text(),
    pa.large_string(): st.text(),
    pa.string_view(): st.text(),
    pa.binary(): st.binary(),
    pa.large_binary(): st.binary(),
    pa.binary_view(): st.binary(),
    pa.dictionary(pa.int8(), pa.string()): st.sampled_from(["a", "b", ""]),
    pa.date32(): DATES,
    pa.date64(): DATES,
    pa.timestamp("s"): INSTANTS.map(lambda instant: instant.replace(microsecond=0)),
    pa.timestamp("ms"): INSTANTS.map(lambda instant: instant.replace(microsecond=123000)),
    pa.timestamp("us"): INSTANTS,
    pa.timestamp("ns"): INSTANTS,
    pa.timestamp("us", "UTC"): INSTANTS.map(lambda instant: instant.replace(tzinfo=UTC)),
    pa.timestamp("ns", "America/New_York"): INSTANTS.map(lambda instant: instant.replace(tzinfo=UTC)),
    pa.decimal128(7, 2): st.decimals(-99999, 99999, places=2),
    pa.decimal128(38, 0): st.integers(-(10**38) + 1, 10**38 - 1).map(Decimal),
}


def lists_of(kind: pa.DataType, values: st.SearchStrategy[object]) -> dict[pa.DataType, st.SearchStrategy[object]]:
    several = st.lists(st.none() | values, max_size=3)
    return {
        pa.list_(kind): several,
        pa.large_list(kind): several,
        pa.list_(kind, 2): st.lists(st.none() | values, min_size=2, max_size=2),
        pa.struct([("x", kind), ("y", pa.list_(pa.uint8()))]): st.fixed_dictionaries(
            {"x": st.none() | values, "y": st.none() | st.lists(st.integers(0, 255), max_size=2)}
        ),
        pa.map_(pa.string(), kind): st.lists(
            st.tuples(st.text(max_size=3), st.none() | values), max_size=3, unique_by=lambda entry: entry[0]
        ),
    }


NESTED = {
    nested: values
    for kind in (pa.uint32(), pa.large_string(), pa.timestamp("ns", "Asia/Tokyo"), pa.decimal128(7, 2))
    for nested, values in lists_of(kind, SIMPLE.get(kind, SIMPLE[pa.timestamp("us", "UTC")])).items()
}
TYPES = SIMPLE | NESTED


@settings(max_examples=8)
@given(st.data())
def test_values_of_every_admitted_type_come_back_equal_in_the_type_documented(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    lake = Lake(str(tmp_path_factory.mktemp("lake")))
    count = data.draw(st.integers(1, 5))
    names = {str(number): kind for number, kind in enumerate(TYPES)}
    drawn = {
        name: pa.array(data.draw(st.lists(st.none() | TYPES[kind], min_size=count, max_size=count)), kind)
        for name, kind in names.items()
    }
    frame = pa.table({"day": ["a"] * count} | drawn)
    lake.replace("things", frame, ["a"], BY_DAY)
    lake.replace("things", frame, ["a"], BY_DAY)  # now against the stored schema
    found = lake.read("things")

    for name, kind in names.items():
        assert found.schema.field(name).type == lake_type(kind), kind
        assert found[name].to_pylist() == frame[name].to_pylist(), kind


@pytest.mark.parametrize(
    ("kind", "stored"),
    [
        (pa.uint8(), pa.int16()),
        (pa.uint16(), pa.int32()),
        (pa.uint32(), pa.int64()),
        (pa.uint64(), pa.int64()),
        (pa.float16(), pa.float32()),
        (pa.date64(), pa.date32()),
        (pa.large_string(), pa.string()),
        (pa.timestamp("ns"), pa.timestamp("us")),
        (pa.timestamp("s", "Asia/Tokyo"), pa.timestamp("us", "UTC")),
        (pa.dictionary(pa.int32(), pa.large_string()), pa.string()),
        (pa.list_(pa.uint8(), 3), pa.list_(pa.int16())),
        (pa.struct([("x", pa.uint8())]), pa.struct([("x", pa.int16())])),
        (pa.map_(pa.large_string(), pa.float16()), pa.map_(pa.string(), pa.float32())),
        (pa.decimal128(20, 3), pa.decimal128(20, 3)),
    ],
)
def test_a_type_is_stored_as_the_next_that_holds_all_its_values(kind: pa.DataType, stored: pa.DataType) -> None:
    assert lake_type(kind) == stored
    assert lake_type(stored) == stored


@pytest.mark.parametrize(
    "kind", [pa.time64("us"), pa.duration("s"), pa.decimal256(50, 2), pa.binary(3), pa.month_day_nano_interval()]
)
def test_a_type_without_one_in_the_lake_is_an_error(kind: pa.DataType) -> None:
    with pytest.raises(TypeError, match=str(kind).partition("(")[0].partition("[")[0]):
        lake_type(pa.list_(kind))


def test_an_instant_finer_than_microseconds_is_refused_rather_than_cut(lake: Lake) -> None:
    frame = pa.table({"day": ["a"], "hours": [1], "note": ["x"], "at": pa.array([1], pa.timestamp("ns"))})
    with pytest.raises(ValueError, match=r"at: timestamp\[ns\] does not fit into timestamp\[us\] \(.*would lose data"):
        lake.replace("things", frame, ["a"], BY_DAY)


def test_a_zone_changes_how_an_instant_is_shown_and_not_which_it_is(lake: Lake) -> None:
    noon = datetime(2013, 7, 1, 12, tzinfo=UTC)
    frame = pd.DataFrame({"day": ["a"], "hours": [1], "note": ["x"], "at": pd.to_datetime([noon])})
    frame["at"] = frame["at"].dt.tz_convert("America/New_York")
    lake.replace("things", to_arrow(frame), ["a"], BY_DAY)
    assert lake.read("things", ["a"])["at"].to_pylist() == [noon]


@pytest.mark.parametrize(
    ("values", "said"),
    [
        (pa.array([[5_000_000]], pa.list_(pa.date32())), "before the year 1 or after 9999"),
        (pa.array([{}], pa.struct([])), "column c holds structs without any part"),
        (pa.array([[{"x": 1, "X": 2}]]), "in column c: columns x, X have one name"),
    ],
)
def test_what_is_nested_and_cannot_be_read_again_is_refused(tmp_path: Path, values: pa.Array, said: str) -> None:
    lake = Lake(str(tmp_path))
    with pytest.raises(ValueError, match=said):
        lake.replace("things", pa.table({"c": values}))
    assert not lake.holds("things")


def test_a_partition_column_of_times_is_refused_by_its_type(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^things: day holds the partition key as timestamp.*make it text, a date"):
        Lake(str(tmp_path)).replace(
            "things", pa.table({"day": [datetime(2013, 1, 1)], "n": [1]}), ["2013-01-01"], BY_DAY
        )


def test_a_partition_key_that_is_too_long_for_a_folder_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="too long for a folder's name"):
        Lake(str(tmp_path)).replace("things", pa.table({"day": ["k" * 300], "n": [1]}), ["k" * 300], BY_DAY)
