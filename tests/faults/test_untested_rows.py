"""Whoever reads while a dbt step runs, and however the step ends, sees rows that passed their tests, all or none."""

import gzip
import signal
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

import dagster as dg
import pytest

from assets.flights import replay
from resources.landing_files import file_name
from resources.warehouse import Transaction
from tests.example import DAILY_DBT, DAILY_RAW, REFERENCE, Platform
from tests.faults.backfill import Stack, context, finish, platform_on, start
from tests.signals_in_dbt import AFTER_COMMIT, BEFORE_COMMIT

FIRST, SECOND = DAYS = ("2013-01-01", "2013-01-02")
MARTS = ["marts.departures", "marts.daily_lateness"]

Rows = tuple[frozenset[tuple[object, ...]] | None, ...]
"""Of each mart its rows; None where there is no such table."""


@dataclass
class Marts:
    """The daily marts on a stack, and what its readers see."""

    stack: Stack
    platform: Platform
    seen: set[Rows] = field(default_factory=set)

    def rows(self) -> Rows:
        """As they are at one moment: each statement of PostgreSQL's usual transactions has a moment of its own."""
        with self.platform.warehouse.transaction() as transaction:
            if self.platform.warehouse.engine == "postgresql":
                transaction.execute("SET TRANSACTION ISOLATION LEVEL REPEATABLE READ")
            return tuple(rows_of(transaction, mart) for mart in MARTS)

    @contextmanager
    def read_all_the_time(self) -> Iterator[None]:
        """As long as the block runs, another thread reads the marts over and over; `seen` is all that it saw."""
        ended = threading.Event()

        def read() -> None:
            while not ended.is_set():
                self.seen.add(self.rows())

        self.seen = {self.rows()}
        with ThreadPoolExecutor() as threads:
            reader = threads.submit(read)
            try:
                yield
            finally:
                ended.set()
            reader.result()
        self.seen.add(self.rows())

    def send_again(self, carrier: str) -> None:
        """The first day's file with another airline for its first flight; ZZ is none."""
        landing = self.platform.landing
        header, flight, *flights = gzip.decompress(landing.read("flights", f"{FIRST}.csv.gz")).splitlines(keepends=True)
        fields = flight.split(b",")
        assert fields[9] != carrier.encode()
        fields[9] = carrier.encode()
        content = gzip.compress(b"".join([header, b",".join(fields), *flights]))
        landing.put("flights", file_name("flights", FIRST), content)

    def recorded(self) -> list[dg.AssetMaterialization | None]:
        return [self.platform.latest(key, day) for key in DAILY_DBT for day in DAYS]


def rows_of(transaction: Transaction, mart: str) -> frozenset[tuple[object, ...]] | None:
    if not transaction.exists(mart):
        return None
    table = transaction.read(mart)
    return frozenset(zip(*(column.to_pylist() for column in table.columns), strict=True))


def failures(result: dg.ExecuteInProcessResult) -> str:
    return "".join(str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure)


@pytest.fixture(params=["DuckDB", "PostgreSQL"])
def unmade(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Marts]:
    """Two days have landed; of the daily marts there is nothing yet."""
    uri = request.getfixturevalue("postgres_uri") if request.param == "PostgreSQL" else ""
    stack = Stack(str(tmp_path), warehouse_uri=uri)
    with platform_on(stack) as platform:
        with platform.warehouse.transaction() as transaction:  # that the server keeps from test to test
            for schema in ("raw", "raw_rejected", "staging", "marts"):
                transaction.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
        replay.land_reference(platform.landing)
        platform.make(REFERENCE)
        platform.land(*DAYS)
        yield Marts(stack, platform)


@pytest.fixture
def made(unmade: Marts) -> Marts:
    """Both days are made and recorded."""
    unmade.platform.make([*DAILY_RAW, *DAILY_DBT], *DAYS)
    return unmade


def test_of_rows_that_fail_their_tests_no_reader_ever_sees_one(made: Marts) -> None:
    before, recorded = made.rows(), made.recorded()
    made.send_again("ZZ")
    made.platform.make(DAILY_RAW, FIRST)
    with made.read_all_the_time():
        result = made.platform.materialize(DAILY_DBT, *DAYS)

    assert "1 of 2 days fail departures_carrier_is_an_airline" in failures(result)
    assert made.seen == {before}
    assert [now == then for now, then in zip(made.recorded(), recorded, strict=True)] == [True, False] * len(DAILY_DBT)


def test_of_the_first_days_ever_those_that_pass_are_there_at_once_and_the_others_never(unmade: Marts) -> None:
    unmade.send_again("ZZ")
    unmade.platform.make(DAILY_RAW, *DAYS)
    with unmade.read_all_the_time():
        result = unmade.platform.materialize(DAILY_DBT, *DAYS)

    assert "1 of 2 days fail departures_carrier_is_an_airline" in failures(result)
    after = unmade.rows()
    assert unmade.seen == {(None, None), after}
    assert unmade.platform.rows("marts.departures", "flight_date")["flight_date"].astype(str).unique() == [SECOND]
    assert [made is not None for made in unmade.recorded()] == [False, True] * len(DAILY_DBT)


def test_a_reader_sees_all_tables_as_they_were_or_all_as_they_are(made: Marts) -> None:
    before = made.rows()
    made.send_again("AS")
    step = start(context(), made.stack, *DAYS)
    with made.read_all_the_time():
        finish(step)

    assert made.seen == {before, made.rows()}
    assert all(now != then for now, then in zip(made.rows(), before, strict=True))


@pytest.mark.parametrize("moment", [MARTS[0], BEFORE_COMMIT])
def test_a_step_that_is_killed_before_it_publishes_changes_nothing(made: Marts, moment: str) -> None:
    before, recorded = made.rows(), made.recorded()
    made.send_again("AS")
    step = start(context(), made.stack, *DAYS, ending=(moment, signal.SIGKILL))
    with made.read_all_the_time():
        step.join()

    assert step.exitcode == -signal.SIGKILL
    assert made.seen == {before}
    assert made.recorded() == recorded
    made.platform.make(DAILY_DBT, *DAYS)
    assert all(now != then for now, then in zip(made.rows(), before, strict=True))


def test_a_step_that_is_killed_once_it_published_leaves_all_that_was_tested(made: Marts) -> None:
    before = made.rows()
    made.send_again("AS")
    step = start(context(), made.stack, *DAYS, ending=(AFTER_COMMIT, signal.SIGKILL))
    with made.read_all_the_time():
        step.join()

    assert step.exitcode == -signal.SIGKILL
    after = made.rows()
    assert made.seen == {before, after}
    assert all(now != then for now, then in zip(after, before, strict=True))
    recorded = made.recorded()
    made.platform.make(DAILY_DBT, *DAYS)
    assert made.rows() == after
    assert not any(now == then for now, then in zip(made.recorded(), recorded, strict=True))


@pytest.mark.parametrize("moment", [MARTS[0], BEFORE_COMMIT])
def test_a_step_that_is_cancelled_before_it_publishes_changes_nothing_and_ends(made: Marts, moment: str) -> None:
    before, recorded = made.rows(), made.recorded()
    made.send_again("ZZ")
    step = start(context(), made.stack, *DAYS, ending=(moment, signal.SIGINT))
    with made.read_all_the_time():
        step.join()

    assert step.exitcode == 1
    assert made.seen == {before}
    assert made.recorded() == recorded
