"""What keeps recorded rows safe, whichever engine they are on: each engine's test file inherits these tests."""

from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field
from datetime import date
from uuid import uuid4

import dagster as dg
import pyarrow as pa
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st

from assets.flights.recorded_rows import recorded_rows
from resources.warehouse import Transaction, Warehouse

DAYS = ["2013-01-01", "2013-01-02", "2013-01-03"]
SCHEMA = pa.schema([("day", pa.date32()), ("n", pa.int64())])


class KilledError(Exception):
    """Stands for the end of a process."""


@dataclass(frozen=True)
class Mortal(Warehouse):
    """The warehouse of a process that is killed before its next transaction, once so many are done."""

    transactions: int = 1000
    done: list[bool] = field(default_factory=list)

    @contextmanager
    def transaction(self) -> Iterator[Transaction]:
        if len(self.done) >= self.transactions:
            raise KilledError
        self.done.append(True)
        with super().transaction() as transaction:
            yield transaction


def rows_of(day: str, numbers: list[int]) -> pa.Table:
    return pa.table({"day": [date.fromisoformat(day)] * len(numbers), "n": numbers}, schema=SCHEMA)


@dataclass
class Attempt:
    """A step that writes these numbers of each day and records the good days, or breaks off after so many records."""

    numbers: dict[str, list[int]]
    good: set[str]
    breaks_off: int | None = None
    transactions: int = 1000


def each_day(number: int) -> dict[str, list[int]]:
    return {day: [number] for day in DAYS}


# Saving is one transaction, writing two, putting back and forgetting one each.
attempts = st.builds(
    Attempt,
    st.dictionaries(st.sampled_from(DAYS), st.lists(st.integers(2, 4), max_size=2), min_size=2),
    st.sets(st.sampled_from(DAYS)),
    st.none() | st.integers(0, 3),
    st.sampled_from([1000, 1, 2, 3, 4]),
)


class Marts:
    """Two tables that a step writes, and what was recorded of them."""

    def __init__(self, warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
        self.warehouse, self.instance = warehouse, instance
        schema = f"marts_{uuid4().hex[:8]}"
        self.tables = {dg.AssetKey([schema, name]): "day" for name in ("flights", "lateness")}
        self.recorded: dict[tuple[dg.AssetKey, str], Counter[int]] = {}

    def make(self, attempt: Attempt) -> None:
        """Raises KilledError where the attempt does not end by itself, and ValueError where it breaks off."""
        mortal = Mortal(self.warehouse.uri, transactions=attempt.transactions)
        days = sorted(attempt.numbers)
        with recorded_rows(mortal, self.instance, self.tables, days) as put_back:
            for key in self.tables:
                rows = pa.concat_tables([rows_of(day, attempt.numbers[day]) for day in days])
                mortal.replace(".".join(key.path), rows, "day", days)
            if bad := [day for day in days if day not in attempt.good and attempt.breaks_off is None]:
                put_back(bad)
            records = [(key, day) for key in self.tables for day in days if day in attempt.good]
            for key, day in records[: attempt.breaks_off]:
                self.record(key, day, attempt.numbers[day])
            if attempt.breaks_off is not None:
                raise ValueError

    def record(self, key: dg.AssetKey, day: str, numbers: list[int]) -> None:
        tags = {"dagster/data_version": str(sorted(numbers))}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=day, tags=tags))
        self.recorded[key, day] = Counter(numbers)

    def present(self, days: list[str]) -> dict[tuple[dg.AssetKey, str], Counter[int]]:
        """What the tables hold of these days."""
        found = {(key, day): Counter[int]() for key in self.tables for day in days}
        with self.warehouse.transaction() as transaction:
            for key in self.tables:
                name = ".".join(key.path)
                for row in transaction.read(name, window=("day", days)).to_pylist() if transaction.exists(name) else ():
                    found[key, str(row["day"])][row["n"]] += 1
        return found

    def right(self, days: list[str]) -> dict[tuple[dg.AssetKey, str], Counter[int]]:
        """What they must hold: what was recorded last."""
        return {(key, day): self.recorded.get((key, day), Counter()) for key in self.tables for day in days}

    def saved(self) -> list[str]:
        schema = next(iter(self.tables)).path[0]
        tables = f"SELECT table_name AS name FROM information_schema.tables WHERE table_schema = '{schema}_before'"
        return self.warehouse.read(tables)["name"].to_pylist()


class RecordedRowsContract:
    """Tests of a `warehouse` fixture."""

    @given(st.lists(attempts, min_size=1, max_size=3), st.sampled_from([None, 0]))
    @example([Attempt(each_day(2), set(), transactions=3)], None)  # killed before its tests
    @example([Attempt(each_day(2), set(DAYS), transactions=3)], None)  # killed once it was recorded
    @settings(max_examples=10, suppress_health_check=[HealthCheck.function_scoped_fixture])
    def test_whatever_was_killed_before_a_step_that_ends_leaves_what_is_recorded(
        self, warehouse: Warehouse, before: list[Attempt], breaks_off: int | None
    ) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            marts = Marts(warehouse, instance)
            marts.make(Attempt({day: [1] for day in DAYS[1:]}, set(DAYS)))
            for attempt in before:
                days = sorted(attempt.numbers)
                with suppress(ValueError):
                    try:
                        marts.make(attempt)
                    except KilledError:
                        continue
                assert marts.present(days) == marts.right(days)
            with suppress(ValueError):
                marts.make(Attempt(each_day(7), set(), breaks_off))
            assert marts.present(DAYS) == marts.right(DAYS)
            assert marts.saved() == []

    def test_a_first_backfill_opens_the_warehouse_for_nothing_but_its_own_writing(self, warehouse: Warehouse) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            marts = Marts(warehouse, instance)
            marts.make(Attempt(each_day(1), set(DAYS), transactions=len(marts.tables)))
            assert marts.present(DAYS) == marts.right(DAYS)

    def test_a_column_that_the_table_got_meanwhile_is_null_in_the_rows_put_back(self, warehouse: Warehouse) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            marts = Marts(warehouse, instance)
            marts.make(Attempt(each_day(1), set(DAYS)))
            name = ".".join(next(iter(marts.tables)).path)
            grown = rows_of(DAYS[0], [5]).append_column("first", pa.array([1]))
            # A mart gets a column by an attempt that is killed, and another by the next one: saved rows lack both.
            broken_off(Mortal(warehouse.uri, transactions=2), marts, grown, KilledError)
            broken_off(warehouse, marts, grown.append_column("second", pa.array([1])), ValueError)
            assert marts.present(DAYS) == marts.right(DAYS)
            found = warehouse.read(name, ["first", "second"])
            assert [column.null_count for column in found.columns] == [len(DAYS)] * 2


def broken_off(warehouse: Warehouse, marts: Marts, rows: pa.Table, error: type[Exception]) -> None:
    """A step of two days that writes these rows of the first one and then fails."""
    with suppress(error), recorded_rows(warehouse, marts.instance, marts.tables, DAYS[:2]):
        warehouse.replace(".".join(next(iter(marts.tables)).path), rows, "day", DAYS[:1])
        raise error
