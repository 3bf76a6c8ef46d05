"""A step that ends between dbt's commit and its tests leaves nothing untested that is taken for what was there."""

import gzip
import signal
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets.flights import replay
from resources.landing_files import file_name
from tests.example import DAILY_DBT, DAILY_RAW, REFERENCE, Platform
from tests.faults.backfill import Stack, context, platform_on, start

FIRST, SECOND = DAYS = ("2013-01-01", "2013-01-02")
MARTS = ["marts.departures", "marts.daily_lateness"]


@dataclass
class Before:
    """Two days as they were recorded; then the first one's file came again, with an airline that is none."""

    stack: Stack
    platform: Platform
    rows: dict[str, pd.DataFrame]
    recorded: list[dg.AssetMaterialization | None]

    def assert_untouched(self) -> None:
        for name in MARTS:
            pd.testing.assert_frame_equal(self.platform.rows(name), self.rows[name], check_exact=True, obj=name)
        assert [self.platform.latest(key, FIRST) for key in DAILY_DBT] == self.recorded
        assert not self.platform.warehouse.exists("marts_before.departures")

    def has_the_airline(self) -> bool:
        return self.platform.warehouse.read("SELECT 1 FROM marts.departures WHERE carrier = 'ZZ'").num_rows > 0


@pytest.fixture(params=["DuckDB", "PostgreSQL"])
def before(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Before]:
    uri = request.getfixturevalue("postgres_uri") if request.param == "PostgreSQL" else ""
    stack = Stack(str(tmp_path), warehouse_uri=uri)
    with platform_on(stack) as platform:
        replay.land_reference(platform.landing)
        platform.make(REFERENCE)
        platform.land(*DAYS)
        platform.make([*DAILY_RAW, *DAILY_DBT], *DAYS)
        rows = {name: platform.rows(name) for name in MARTS}
        recorded = [platform.latest(key, FIRST) for key in DAILY_DBT]

        header, flight, *flights = gzip.decompress(platform.landing.read("flights", f"{FIRST}.csv.gz")).splitlines(True)
        flight = flight.replace(b"," + flight.split(b",")[9] + b",", b",ZZ,", 1)
        platform.landing.put(
            "flights", file_name("flights", FIRST), gzip.compress(b"".join([header, flight, *flights]))
        )
        yield Before(stack, platform, rows, recorded)


def test_rows_that_fail_their_tests_are_taken_back_also_where_the_step_that_made_them_was_killed(
    before: Before,
) -> None:
    step = start(context(), before.stack, *DAYS, ending=("marts.departures", signal.SIGKILL))
    step.join()
    assert step.exitcode == -signal.SIGKILL
    assert before.has_the_airline()

    result = before.platform.materialize(DAILY_DBT, *DAYS)
    errors = [str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure]
    assert "1 of 2 days fail departures_carrier_is_an_airline" in "".join(errors)
    before.assert_untouched()


def test_a_step_that_is_cancelled_puts_the_rows_back_and_ends(before: Before) -> None:
    step = start(context(), before.stack, *DAYS, ending=("marts.departures", signal.SIGINT))
    step.join()
    assert step.exitcode == 1
    before.assert_untouched()
