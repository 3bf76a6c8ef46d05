"""What a warehouse does, whichever engine it is on: each engine's test file inherits these tests."""

import re
import threading
from collections.abc import Callable
from datetime import date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import uuid4

import dagster as dg
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from resources.partition_windows import Window
from resources.warehouse import Warehouse

POSTGRES_TEXT = st.characters(exclude_categories=["Cs"], exclude_characters="\0")
ANY_TEXT = st.characters(exclude_categories=["Cs"])


def integers(bits: int, *, signed: bool = True) -> st.SearchStrategy[int]:
    return st.integers(-(2 ** (bits - 1)), 2 ** (bits - 1) - 1) if signed else st.integers(0, 2**bits - 1)


def floats(width: int) -> st.SearchStrategy[float]:
    return st.floats(width=width, allow_nan=False)


def digits(precision: int, scale: int) -> st.SearchStrategy[Decimal]:
    """Decimals of so many digits, `scale` of them after the point."""
    # Not by arithmetic, which would round them to 28 digits.
    return st.integers(-(10**precision) + 1, 10**precision - 1).map(
        lambda n: Decimal((int(n < 0), [int(d) for d in str(abs(n))], -scale))
    )


def instants(unit: str, step: int = 1) -> st.SearchStrategy[int]:
    """Numbers of `unit` since 1970: the years 1 to 9999, for ns 1700 to 2200."""
    per_second = {"s": 1, "ms": 10**3, "us": 10**6, "ns": 10**9}[unit]
    first, last = (-8_520_336_000, 7_258_118_400) if unit == "ns" else (-62_135_596_800, 253_402_300_799)
    return st.integers(first * per_second // step, last * per_second // step).map(lambda n: n * step)


def values_of(engine: str) -> dict[pa.DataType, st.SearchStrategy[Any]]:
    """Every type that the engine takes, with all of the values of it that it gives back."""
    finest = 1000 if engine == "postgresql" else 1
    text = st.text(POSTGRES_TEXT if engine == "postgresql" else ANY_TEXT, max_size=8)
    zones = ["UTC", "America/New_York", "+05:30"]
    return {
        pa.bool_(): st.booleans(),
        **{getattr(pa, f"int{n}")(): integers(n) for n in (8, 16, 32, 64)},
        **{getattr(pa, f"uint{n}")(): integers(n, signed=False) for n in (8, 16, 32)},
        pa.uint64(): integers(63 if engine == "postgresql" else 64, signed=False),
        **{getattr(pa, f"float{n}")(): floats(n) for n in (16, 32, 64)},
        **dict.fromkeys((pa.string(), pa.large_string(), pa.string_view()), text),
        pa.dictionary(pa.int8(), pa.string()): text,
        pa.dictionary(pa.int32(), pa.int64()): integers(64),
        **{kind: st.binary(max_size=8) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())},
        pa.binary(3): st.binary(min_size=3, max_size=3),
        pa.date32(): st.dates(),
        pa.date64(): st.dates(),
        pa.time32("s"): st.integers(0, 86_399),
        pa.time32("ms"): st.integers(0, 86_399_999),
        pa.time64("us"): st.times(),
        pa.time64("ns"): st.integers(0, 86_399_999_999_999 // finest).map(lambda n: n * finest),
        **{pa.timestamp(unit): instants(unit) for unit in ("s", "ms", "us")},
        **{pa.timestamp(unit, zone): instants(unit) for unit in ("s", "ms", "us") for zone in zones},
        **{pa.timestamp("ns", zone): instants("ns", finest) for zone in [None, *zones]},
        **{pa.decimal128(p, s): digits(p, s) for p, s in [(1, 0), (5, 2), (18, 0), (18, 18), (38, 10), (38, 38)]},
        pa.decimal128(5, -2): digits(5, -2),
        pa.decimal32(5, 1): digits(5, 1),
        pa.decimal64(12, 4): digits(12, 4),
        pa.decimal256(20, 2): digits(20, 2),
        **({pa.decimal256(76, 30): digits(76, 30)} if engine == "postgresql" else {}),
    }


def given_back(kind: pa.DataType, engine: str) -> pa.DataType:
    """The documented widenings; any other type is given back as it is."""
    both = {
        pa.float16(): pa.float32(),
        pa.large_string(): pa.string(),
        pa.string_view(): pa.string(),
        pa.dictionary(pa.int8(), pa.string()): pa.string(),
        pa.dictionary(pa.int32(), pa.int64()): pa.int64(),
        pa.large_binary(): pa.binary(),
        pa.binary_view(): pa.binary(),
        pa.binary(3): pa.binary(),
        pa.date64(): pa.date32(),
        pa.time32("s"): pa.time64("us"),
        pa.time32("ms"): pa.time64("us"),
        pa.decimal128(5, -2): pa.decimal128(7, 0),
        pa.decimal32(5, 1): pa.decimal128(5, 1),
        pa.decimal64(12, 4): pa.decimal128(12, 4),
        pa.decimal256(20, 2): pa.decimal128(20, 2),
    }
    postgres = {
        pa.int8(): pa.int16(),
        pa.uint8(): pa.int16(),
        pa.uint16(): pa.int32(),
        pa.uint32(): pa.int64(),
        pa.uint64(): pa.int64(),
        pa.time64("ns"): pa.time64("us"),
    }
    if pa.types.is_timestamp(kind):
        finest = kind.unit == "ns" and engine == "duckdb"
        return pa.timestamp(
            "ns" if finest else "us" if kind.tz or engine == "postgresql" else kind.unit, "UTC" if kind.tz else None
        )
    return both.get(kind) or (postgres.get(kind, kind) if engine == "postgresql" else kind)


@st.composite
def tables(draw: st.DrawFn, engine: str) -> pa.Table:
    """Some rows, numbered in `row`, of some columns of any type, nulls among their values."""
    types = values_of(engine)
    kinds = draw(st.lists(st.sampled_from(list(types)), min_size=1, max_size=12))
    size = draw(st.integers(0, 5))
    columns = {"row": pa.array(range(size), pa.int64())}
    for n, kind in enumerate(kinds):
        values = draw(st.lists(st.none() | types[kind], min_size=size, max_size=size))
        columns[f"c{n}"] = (
            pa.array(values, kind.value_type).dictionary_encode().cast(kind)
            if pa.types.is_dictionary(kind)
            else pa.array(values, kind)
        )
    return pa.table(columns)


def rows(days: list[str], value: int) -> pa.Table:
    return pa.table({"day": [date.fromisoformat(day) for day in days], "value": pa.array([value] * len(days))})


FIRST, SECOND, THIRD = "2013-01-01", "2013-01-02", "2013-01-03"
UNSTORABLE = {
    "duration[us]": pa.array([5], pa.duration("us")),
    "month_day_nano_interval": pa.array([pa.MonthDayNano([1, 2, 3])]),
    "list<": pa.array([[1, 2]]),
    "struct<": pa.array([{"x": 1}]),
    "map<": pa.array([[("k", 1)]], pa.map_(pa.string(), pa.int64())),
    "no value and so no type": pa.nulls(1),
}


class WarehouseContract:
    """To inherit by a class with a fixture `warehouse`."""

    @pytest.fixture
    def things(self) -> str:
        """The name of a table that is not there yet, in a schema that is not there either."""
        return f"raw_{uuid4().hex[:12]}.things"

    @pytest.fixture
    def values(self, warehouse: Warehouse, things: str) -> Callable[[], dict[str, Any]]:
        def values() -> dict[str, Any]:
            found = warehouse.read(things).sort_by("day")
            return dict(zip(map(str, found["day"].to_pylist()), found["value"].to_pylist(), strict=True))

        return values

    def test_any_table_is_given_back_as_it_was(self, warehouse: Warehouse) -> None:
        @settings(max_examples=25)
        @given(tables(warehouse.engine))
        def check(table: pa.Table) -> None:
            things = f"raw.t{uuid4().hex[:12]}"
            with warehouse.transaction() as transaction:
                transaction.replace(things, table)
                found = transaction.read(things).sort_by("row")
                expected = [given_back(kind, warehouse.engine) for kind in table.schema.types]
                assert found.schema.types == expected
                assert found.equals(table.cast(pa.schema(zip(table.column_names, expected, strict=True))))
                # It takes what it gives, by the types that the table has by now.
                transaction.replace(things, found)
                assert transaction.read(things).sort_by("row").equals(found)

        check()

    def test_not_a_number_and_the_infinities_are_values(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, pa.table({"x": [float("nan"), float("inf"), float("-inf"), None]}))
        assert sorted(map(str, warehouse.read(things)["x"].to_pylist())) == ["-inf", "None", "inf", "nan"]

    @pytest.mark.parametrize("said", UNSTORABLE)
    def test_what_would_not_come_back_is_refused(self, warehouse: Warehouse, things: str, said: str) -> None:
        with pytest.raises(ValueError, match=rf"^{things}, column c: .*{re.escape(said)}"):
            warehouse.replace(things, pa.table({"day": [FIRST], "c": UNSTORABLE[said]}))
        assert not warehouse.exists(things)

    def test_a_column_without_a_value_takes_the_type_that_is_stored(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, pa.table({"x": pa.array([1], pa.int64())}))
        warehouse.replace(things, pa.table({"x": pa.nulls(2)}))
        assert warehouse.read(things).equals(pa.table({"x": pa.array([None, None], pa.int64())}))

    def test_replacing_a_day_leaves_the_other_days(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]]
    ) -> None:
        warehouse.replace(things, rows([FIRST, SECOND], 1), "day", [FIRST, SECOND])
        warehouse.replace(things, rows([SECOND], 2), "day", [SECOND])
        assert values() == {FIRST: 1, SECOND: 2}

    def test_replacing_a_day_by_nothing_empties_that_day(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]]
    ) -> None:
        warehouse.replace(things, rows([FIRST, SECOND], 1), "day", [FIRST, SECOND])
        warehouse.replace(things, rows([], 2), "day", [SECOND])
        assert values() == {FIRST: 1}

    def test_replacing_without_a_window_replaces_everything(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]]
    ) -> None:
        warehouse.replace(things, rows([FIRST, SECOND], 1))
        warehouse.replace(things, rows([THIRD], 2))
        assert values() == {THIRD: 2}

    @pytest.mark.parametrize("stray", [date(2013, 1, 3), None])
    def test_a_row_outside_of_the_window_is_refused(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]], stray: date | None
    ) -> None:
        warehouse.replace(things, rows([FIRST], 1), "day", [FIRST])
        came = pa.table({"day": pa.array([date(2013, 1, 1), stray]), "value": [2, 2]})
        with pytest.raises(ValueError, match=rf"^{things}: rows with day = \['{stray}'\] do not belong"):
            warehouse.replace(things, came, "day", [FIRST])
        assert values() == {FIRST: 1}

    def test_an_error_in_the_transaction_leaves_everything_as_it_was(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]]
    ) -> None:
        warehouse.replace(things, rows([FIRST], 1), "day", [FIRST])

        def fail_in_the_middle() -> None:
            with warehouse.transaction() as transaction:
                transaction.replace(things, rows([FIRST], 2), "day", [FIRST])
                transaction.replace(f"{things}_too", rows([FIRST], 2))
                raise RuntimeError("in the middle")

        with pytest.raises(RuntimeError, match="in the middle"):
            fail_in_the_middle()
        assert values() == {FIRST: 1}
        assert not warehouse.exists(f"{things}_too")

    def test_names_and_values_with_quotes_in_them_are_names_and_values(self, warehouse: Warehouse, things: str) -> None:
        odd = f'{things}"; x'
        came = pa.table({'wh"o': ["O'Hare", "b"], "select": [1, 1]})
        warehouse.replace(odd, came, 'wh"o', ["O'Hare", "b"])
        warehouse.replace(odd, came.slice(0, 1), 'wh"o', ["O'Hare"])
        assert warehouse.exists(odd)
        assert warehouse.read(odd, ["select", 'wh"o'], ('wh"o', ["O'Hare"])).to_pylist() == [
            {"select": 1, 'wh"o': "O'Hare"}
        ]

    def test_columns_in_another_order_are_matched_by_name(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, pa.table({"a": [1], "b": [2]}))
        warehouse.replace(things, pa.table({"b": [20], "a": [10]}))
        assert warehouse.read(things).to_pylist() == [{"a": 10, "b": 20}]

    def test_a_new_column_is_null_in_the_rows_that_were_there(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, rows([FIRST, SECOND], 1), "day", [FIRST, SECOND])
        came = rows([SECOND], 2).add_column(0, "why", pa.array([Decimal("1.50")], pa.decimal128(4, 2)))
        warehouse.replace(things, came, "day", [SECOND])
        found = warehouse.read(things).sort_by("day")
        assert found.column_names == ["day", "value", "why"]
        assert found["why"].combine_chunks().equals(pa.array([None, Decimal("1.50")], pa.decimal128(4, 2)))

    def test_a_new_column_that_may_not_be_null_is_refused(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, rows([FIRST], 1), "day", [FIRST])
        came = rows([SECOND], 2).append_column(pa.field("why", pa.int64(), nullable=False), pa.array([1]))
        with pytest.raises(ValueError, match=rf"^{things}, column why: is new and may not be null"):
            warehouse.replace(things, came, "day", [SECOND])

    @pytest.mark.parametrize("came", [pa.array([1.5]), pa.array(["1"])])
    def test_a_column_of_another_type_is_refused_and_its_migration_said(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]], came: pa.Array
    ) -> None:
        warehouse.replace(things, rows([FIRST], 1), "day", [FIRST])
        other = pa.table({"day": [date(2013, 1, 1)], "value": came})
        with pytest.raises(ValueError, match=rf"column value: int64 is stored, {came.type} came") as refused:
            warehouse.replace(things, other, "day", [FIRST])
        assert str(refused.value).startswith(things)
        assert values() == {FIRST: 1}
        statement = str(refused.value).partition("first run ")[2].rstrip(".").partition(" and materialize")[0]
        with warehouse.transaction() as transaction:
            transaction.execute(statement)
        warehouse.replace(things, other, "day", [FIRST])
        assert warehouse.read(things)["value"].combine_chunks().equals(came)

    def test_numbers_of_another_width_are_stored_where_they_fit_and_advice_keeps_every_digit(
        self, warehouse: Warehouse, things: str
    ) -> None:
        def priced(*prices: str, digits: int) -> pa.Table:
            return pa.table({"price": pa.array([Decimal(price) for price in prices], pa.decimal128(digits, 2))})

        warehouse.replace(things, priced("112.50", "5.55", digits=5))
        for came in (
            pa.table({"price": pa.array([Decimal("5.5")], pa.decimal128(2, 1))}),
            pa.table({"price": pa.array([9], pa.int16())}),
            priced("112.50", "5.55", digits=12),
        ):
            warehouse.replace(things, came)
            assert warehouse.read(things)["price"].to_pylist() == came["price"].to_pylist()
        with pytest.raises(
            ValueError, match=r"column price: decimal128\(6, 2\) does not fit decimal128\(5, 2\)"
        ) as refused:
            warehouse.replace(things, priced("1200.00", digits=6))
        with warehouse.transaction() as transaction:
            transaction.execute(str(refused.value).partition("first run ")[2].rstrip("."))
        assert warehouse.read(things)["price"].to_pylist() == [Decimal("112.50"), Decimal("5.55")]
        warehouse.replace(things, priced("1200.00", digits=6))
        assert warehouse.read(things)["price"].to_pylist() == [Decimal("1200.00")]

    @pytest.mark.parametrize(
        "kind", [pa.timestamp("us"), pa.timestamp("us", "UTC"), pa.timestamp("ns", "UTC"), pa.date32()]
    )
    def test_a_time_belongs_to_the_partition_in_whose_window_it_lies(
        self, warehouse: Warehouse, things: str, kind: pa.DataType
    ) -> None:
        # Summer time begins in the first of these weeks.
        weekly = dg.WeeklyPartitionsDefinition("2013-03-03", timezone="America/New_York")
        first, second = "2013-03-10", "2013-03-17"
        zone = timezone(timedelta(hours=-4)) if pa.types.is_timestamp(kind) and kind.tz else None
        last = datetime(2013, 3, 16, 23, tzinfo=zone) if pa.types.is_timestamp(kind) else date(2013, 3, 16)
        following = datetime(2013, 3, 17, tzinfo=zone) if pa.types.is_timestamp(kind) else date(2013, 3, 17)
        both = pa.table({"at": pa.array([last, following], kind), "n": [1, 2]})
        warehouse.replace(things, both, "at", [first, second], weekly)
        assert warehouse.read(things, window=Window("at", [second], weekly))["n"].to_pylist() == [2]
        warehouse.replace(things, both.slice(0, 1).set_column(1, "n", pa.array([3])), "at", [first], weekly)
        assert sorted(warehouse.read(things, window=Window("at", [first, second], weekly))["n"].to_pylist()) == [2, 3]
        with pytest.raises(ValueError, match=r"rows with at = \['2013-03-17.*do not belong"):
            warehouse.replace(things, both, "at", [first], weekly)
        assert warehouse.read(things, window=Window("at", [], weekly)).num_rows == 0

    def test_a_date_belongs_to_the_day_that_begins_on_it_whenever_in_it_that_begins(
        self, warehouse: Warehouse, things: str
    ) -> None:
        from_six = dg.DailyPartitionsDefinition("2013-01-01", hour_offset=6)
        both = pa.table({"day": [date(2013, 1, 2), date(2013, 1, 3)], "n": [2, 3]})
        warehouse.replace(things, both, "day", [SECOND, THIRD], from_six)
        assert warehouse.read(things, window=Window("day", [SECOND], from_six))["n"].to_pylist() == [2]
        hourly = dg.HourlyPartitionsDefinition("2013-01-01-00:00")
        with pytest.raises(ValueError, match="a date does not tell partition 2013-01-02-05:00, which is shorter"):
            warehouse.replace(things, both, "day", ["2013-01-02-05:00"], hourly)

    @pytest.mark.parametrize("came", [pa.array([1.0]), pa.array([True]), pa.array([datetime(2013, 1, 1)])])
    def test_a_partition_column_that_cannot_tell_the_key_is_refused(
        self, warehouse: Warehouse, things: str, came: pa.Array
    ) -> None:
        with pytest.raises(ValueError, match=r"column key: .* does not tell the partition\. Make it text"):
            warehouse.replace(things, pa.table({"key": came}), "key", ["1"])
        assert not warehouse.exists(things)

    @pytest.mark.parametrize("names", [["a", "a"], [""], ["a", "\t"]])
    def test_a_column_name_that_cannot_be_kept_is_refused(
        self, warehouse: Warehouse, things: str, names: list[str]
    ) -> None:
        with pytest.raises(ValueError, match=rf"^{things}: .*(have one name|give it one of letters)"):
            warehouse.replace(things, pa.Table.from_arrays([pa.array([1])] * len(names), names=names))

    def test_the_columns_of_an_empty_table_bind_nothing(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, pa.table({"day": pa.array([], pa.date32()), "note": pa.array([], pa.float64())}))
        came = pa.table({"note": ["late"], "day": [date(2013, 1, 1)], "more": [1]})
        warehouse.replace(things, came, "day", [FIRST])
        assert warehouse.read(things, ["note", "day", "more"]).equals(came)

    def test_a_missing_column_is_refused_and_its_migration_said(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]]
    ) -> None:
        warehouse.replace(things, rows([FIRST], 1), "day", [FIRST])
        other = rows([FIRST], 2).drop_columns("value")
        with pytest.raises(ValueError, match=rf"^{things}, column value: int64 is stored, none came") as refused:
            warehouse.replace(things, other, "day", [FIRST])
        assert values() == {FIRST: 1}
        with warehouse.transaction() as transaction:
            transaction.execute(str(refused.value).partition("first run ")[2].rstrip("."))
        warehouse.replace(things, other, "day", [FIRST])
        assert warehouse.read(things).column_names == ["day"]

    def test_only_the_wanted_columns_and_window_of_a_table_or_query_are_read(
        self, warehouse: Warehouse, things: str
    ) -> None:
        warehouse.replace(things, rows([FIRST, SECOND, THIRD], 1))
        for what in (
            things,
            f"SELECT * FROM {things} -- all of it",
            f"with q as (select * from {things}) select * from q;",
        ):
            found = warehouse.read(what, ["day"], ("day", [FIRST, THIRD])).sort_by("day")
            assert found.equals(rows([FIRST, THIRD], 1).select(["day"]))
            assert warehouse.read(what, window=("day", [])).num_rows == 0

    @pytest.mark.parametrize("what", ["things", "a.b.c", "", "DELETE FROM things"])
    def test_what_is_neither_table_nor_query_is_refused(self, warehouse: Warehouse, what: str) -> None:
        with pytest.raises(ValueError, match=r"name it schema\.table, or give a query"):
            warehouse.read(what)

    def test_two_that_replace_the_same_day_at_once_leave_it_once(
        self, warehouse: Warehouse, things: str, values: Callable[[], dict[str, Any]]
    ) -> None:
        warehouse.replace(things, rows([FIRST], 1), "day", [FIRST])
        with warehouse.transaction() as transaction:
            transaction.replace(things, rows([FIRST], 2), "day", [FIRST])
            other = threading.Thread(target=warehouse.replace, args=(things, rows([FIRST], 3), "day", [FIRST]))
            other.start()
            other.join(0.5)
            assert other.is_alive()
        other.join(20)
        assert not other.is_alive()
        assert warehouse.read(things).num_rows == 1
        assert values() == {FIRST: 3}

    def test_an_instant_is_in_utc_wherever_the_machine_is(
        self, warehouse: Warehouse, things: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for variable in ("TZ", "PGTZ"):
            monkeypatch.setenv(variable, "Asia/Tokyo")
        moments = pa.array([datetime(2013, 1, 1, 23)], pa.timestamp("us", "America/New_York"))
        warehouse.replace(things, pa.table({"moment": moments}))
        found = warehouse.read(f"SELECT moment, CAST(moment AS DATE) AS day FROM {things}")
        assert found.schema.field("moment").type == pa.timestamp("us", "UTC")
        assert found["day"].to_pylist() == [date(2013, 1, 1)]
