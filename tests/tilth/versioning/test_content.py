"""A data version is the content's: equal values have an equal one however they lie in memory, others another."""

from datetime import UTC, date, datetime
from decimal import Decimal
from itertools import pairwise, product
from random import Random
from typing import Any

import pyarrow as pa
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from tilth.versioning.content import data_version

NESTED = pa.struct([("x", pa.int64()), ("y", pa.list_(pa.string()))])
KINDS: dict[pa.DataType, st.SearchStrategy[Any]] = {
    pa.int8(): st.integers(-128, 127),
    pa.uint64(): st.integers(0, 2**64 - 1),
    pa.float32(): st.floats(width=32),
    pa.float64(): st.floats(),
    pa.bool_(): st.booleans(),
    pa.string(): st.text(max_size=4),
    pa.large_string(): st.text(max_size=4),
    pa.string_view(): st.text(max_size=20),
    pa.binary(): st.binary(max_size=4),
    pa.binary_view(): st.binary(max_size=20),
    pa.date32(): st.dates(),
    pa.timestamp("us", "UTC"): st.datetimes(timezones=st.just(UTC)),
    pa.time64("us"): st.times(),
    pa.decimal128(6, 2): st.decimals(-9999, 9999, places=2),
    pa.list_(pa.int16()): st.lists(st.none() | st.integers(-9, 9), max_size=3),
    pa.large_list(pa.string()): st.lists(st.none() | st.text(max_size=2), max_size=3),
    pa.list_(pa.bool_(), 2): st.lists(st.none() | st.booleans(), min_size=2, max_size=2),
    NESTED: st.fixed_dictionaries(
        {"x": st.none() | st.integers(-9, 9), "y": st.none() | st.lists(st.text(max_size=2), max_size=2)}
    ),
    pa.map_(pa.string(), pa.int64()): st.lists(
        st.tuples(st.text(max_size=2), st.none() | st.integers(0, 9)), max_size=2
    ),
}


def version(column: Any, kind: pa.DataType | None = None) -> str:
    return data_version(pa.table({"a": column if isinstance(column, pa.ChunkedArray) else pa.array(column, kind)}))


@st.composite
def columns(draw: st.DrawFn) -> pa.Array:
    kind = draw(st.sampled_from(list(KINDS)))
    return pa.array(draw(st.lists(st.none() | KINDS[kind], max_size=8)), kind)


@given(columns(), st.data())
def test_neither_chunks_nor_slices_nor_what_lies_around_them_count(column: pa.Array, data: st.DataObject) -> None:
    cuts = sorted(data.draw(st.lists(st.integers(0, len(column)), max_size=3)))
    # Pieces of a longer array, so that no buffer begins where its values do.
    longer = pa.concat_arrays([column, column, column])
    bounds = [0, *cuts, len(column)]
    pieces = [longer.slice(len(column) + start, end - start) for start, end in pairwise(bounds)]
    assert version(pa.chunked_array(pieces, column.type)) == version(pa.chunked_array([column], column.type))


@given(columns(), st.data())
def test_any_other_value_is_another_version(column: pa.Array, data: st.DataObject) -> None:
    other = pa.array(data.draw(st.lists(st.none() | KINDS[column.type], max_size=8)), column.type)
    # By repr, in which -0.0 is another number than 0.0 and nan is one number.
    assume(repr(other.to_pylist()) != repr(column.to_pylist()))
    assert version(other) != version(column)


@pytest.mark.parametrize(
    ("one", "other", "kind"),
    [
        ([None, 0], [0, None], pa.int64()),
        ([None], [0], pa.int64()),
        ([None], [""], pa.string()),
        ([None], [False], pa.bool_()),
        ([None], [0], pa.date32()),
        ([None], [Decimal(0)], pa.decimal128(5, 2)),
        ([None], [[]], pa.list_(pa.int64())),
        ([None], [[None]], pa.list_(pa.int64())),
        ([[1], [2, 3]], [[1, 2], [3]], pa.list_(pa.int64())),
        ([[1, 2], [], [3]], [[1, 2], [3], []], pa.list_(pa.int64())),
        ([None, {"x": None}], [{"x": None}, None], pa.struct([("x", pa.int64())])),
        ([{"x": 1, "y": None}], [{"x": None, "y": 1}], pa.struct([("x", pa.int64()), ("y", pa.int64())])),
        (["ab", "c"], ["a", "bc"], pa.string()),
        (["a", ""], ["", "a"], pa.string()),
        (["a", None], [None, "a"], pa.string()),
        (["\0", ""], ["", "\0"], pa.string()),
        ([b"ab", b"c"], [b"a", b"bc"], pa.binary()),
        ([1, 2], [2, 1], pa.int64()),
        ([1], [1, 1], pa.int64()),
        ([], [None], pa.int64()),
        ([], [None], pa.null()),
        ([True, False], [False, True], pa.bool_()),
        ([1.0], [1.0000000000000002], pa.float64()),
    ],
)
def test_contents_that_look_alike_in_memory_have_other_versions(one: list[Any], other: list[Any], kind: Any) -> None:
    assert version(one, kind) != version(other, kind)


def test_types_names_and_their_order_count() -> None:
    one = pa.array([1], pa.int64())
    tables = [
        pa.table({"a": one}),
        pa.table({"a": one.cast(pa.int32())}),
        pa.table({"a": one.cast(pa.float64())}),
        pa.table({"a": one.cast(pa.string())}),
        pa.table({"a": one.view(pa.timestamp("us"))}),
        pa.table({"a": one.view(pa.timestamp("us", "UTC"))}),
        pa.table({"b": one}),
        pa.table({"a": one, "b": one}),
        pa.table({"b": one, "a": one}),
        pa.table({"a": pa.array(["1"]), "b": one}),
        pa.table({"a": one.slice(1)}),
        pa.table({"a": one.slice(1).cast(pa.int32())}),
        pa.schema([("b", pa.int64())]).empty_table(),
    ]
    assert len({data_version(table) for table in tables}) == len(tables)


def test_what_is_the_end_of_one_column_is_not_the_beginning_of_the_next() -> None:
    one = pa.table({"a": ["xy"], "b": ["z"]})
    other = pa.table({"a": ["x"], "b": ["yz"]})
    assert data_version(one) != data_version(other)


# What lies beneath a null


def beneath(values: pa.Array, seen: list[bool]) -> pa.Array:
    """The array with some of its values hidden by nulls; they stay in its buffers."""
    bits = sum(1 << place for place, visible in enumerate(seen) if visible).to_bytes((len(seen) + 7) // 8, "little")
    _, *buffers = values.buffers()
    children = [values.values] if pa.types.is_list(values.type) else []
    if pa.types.is_struct(values.type):
        children, buffers = [values.field(place) for place in range(values.type.num_fields)], []
    own = buffers[:1] if children and not pa.types.is_struct(values.type) else buffers
    return pa.Array.from_buffers(values.type, len(values), [pa.py_buffer(bits), *own], children=children)


@pytest.mark.parametrize(
    ("kind", "values", "others"),
    [
        (pa.int64(), [1, 2, 3], [1, 99, 3]),
        (pa.float64(), [1.0, 2.0, 3.0], [1.0, float("nan"), 3.0]),
        (pa.bool_(), [True, False, True], [True, True, True]),
        (pa.date32(), [date(2013, 1, 1)] * 3, [date(2013, 1, 1), date(1990, 1, 1), date(2013, 1, 1)]),
        (
            pa.timestamp("us"),
            [datetime(2013, 1, 1)] * 3,
            [datetime(2013, 1, 1), datetime(1990, 1, 1), datetime(2013, 1, 1)],
        ),
        (pa.string(), ["a", "hidden", "c"], ["a", "x", "c"]),
        (pa.binary(), [b"a", b"hidden", b"c"], [b"a", b"x", b"c"]),
        (pa.decimal128(5, 2), [Decimal(1), Decimal(2), Decimal(3)], [Decimal(1), Decimal(9), Decimal(3)]),
        (pa.list_(pa.int64()), [[1], [2, 2], [3]], [[1], [9], [3]]),
        (pa.struct([("x", pa.int64())]), [{"x": 1}, {"x": 2}, {"x": 3}], [{"x": 1}, {"x": 9}, {"x": 3}]),
    ],
    ids=lambda value: str(value) if isinstance(value, pa.DataType) else "",
)
def test_what_lies_in_memory_beneath_a_null_does_not_count(
    kind: pa.DataType, values: list[Any], others: list[Any]
) -> None:
    seen = [True, False, True]
    one, other = beneath(pa.array(values, kind), seen), beneath(pa.array(others, kind), seen)
    plain = pa.array([values[0], None, values[2]], kind)
    assert one.to_pylist() == other.to_pylist() == plain.to_pylist()
    assert version(one) == version(other) == version(plain)


def test_a_bitmap_that_hides_nothing_does_not_count() -> None:
    assert version(beneath(pa.array([1, 2, 3]), [True] * 3)) == version([1, 2, 3], pa.int64())


# Categories


def test_a_column_of_categories_is_a_column_of_its_values() -> None:
    plain = pa.array(["b", "a", None, "b"])
    ways = [
        plain,
        plain.dictionary_encode(),
        pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0], pa.int8()), ["b", "a"]),
        pa.DictionaryArray.from_arrays(pa.array([2, 1, 0, 2], pa.int32()), [None, "a", "b", "unused"]),
        pa.chunked_array([plain.slice(0, 1).dictionary_encode(), plain.slice(1).dictionary_encode()]),
    ]
    assert len({version(way) for way in ways}) == 1
    assert version(pa.DictionaryArray.from_arrays(pa.array([0, 1, None, 0]), ["a", "b"])) != version(plain)


# Order


@given(st.lists(st.tuples(st.none() | st.integers(0, 3), st.none() | st.sampled_from("abc")), max_size=6), st.randoms())
def test_an_unordered_table_has_one_version_in_any_order_and_an_ordered_one_does_not(
    rows: list[tuple[int | None, str | None]], random: Any
) -> None:
    def table(of: list[tuple[int | None, str | None]]) -> pa.Table:
        words = pa.array([row[1] for row in of], pa.string()).dictionary_encode()
        return pa.table({"n": pa.array([row[0] for row in of], pa.int64()), "w": words})

    shuffled = random.sample(rows, len(rows))
    assert data_version(table(shuffled), ordered=False) == data_version(table(rows), ordered=False)
    assert (data_version(table(shuffled)) == data_version(table(rows))) == (shuffled == rows)
    if rows:
        assert data_version(table([*rows[:-1], (9, "z")]), ordered=False) != data_version(table(rows), ordered=False)


@example(pa.array([0.0, -0.0]), Random(0))  # noqa: S311 (it mixes rows)
@given(columns(), st.randoms())
def test_columns_of_every_kind_can_be_unordered(column: pa.Array, random: Random) -> None:
    table = pa.table({"a": column})
    shuffled = pa.table({"a": pa.array(random.sample(column.to_pylist(), len(column)), column.type)})
    assert data_version(shuffled, ordered=False) == data_version(table, ordered=False)
    if len(column):
        assert data_version(table.slice(1), ordered=False) != data_version(table, ordered=False)


@pytest.mark.parametrize(
    ("values", "kind"),
    [((None, 0, 1, 256), pa.int64()), ((None, "", "\0", "a"), pa.string()), ((None, [], [0]), pa.list_(pa.int8()))],
)
def test_every_short_column_has_a_version_of_its_own(values: tuple[Any, ...], kind: pa.DataType) -> None:
    contents = [content for length in range(5) for content in product(values, repeat=length)]
    assert len({version(content, kind) for content in contents}) == len(contents)


def test_the_version_of_a_content_is_the_same_in_every_release() -> None:
    # Were it not, an upgrade would make everything downstream again. Change it knowingly, and say so in the notes.
    table = pa.table({"day": [date(2013, 1, 1)], "late": [True], "minutes": [15.5], "note": ["é"], "gone": [None]})
    assert data_version(table.set_column(4, "gone", pa.array([None], pa.int32()))) == "3f249e2565774ce4"
