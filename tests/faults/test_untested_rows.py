"""A step that is killed between dbt's commit and its tests leaves nothing untested that is taken for what was there."""

import gzip
import time
from pathlib import Path

import pandas as pd

from assets.flights import replay
from resources.landing import file_name
from resources.warehouse import Warehouse, WarehouseBusyError
from tests.conftest import DAILY_DBT, DAILY_RAW, REFERENCE, Platform
from tests.faults.backfill import Stack, context, kill, platform_on, start


def test_rows_that_fail_their_tests_are_taken_back_also_where_the_step_that_made_them_was_killed(
    tmp_path: Path,
) -> None:
    stack, first, second = Stack(str(tmp_path)), "2013-01-01", "2013-01-02"
    marts = ["marts.departures", "marts.daily_lateness"]
    with platform_on(stack) as platform:
        replay.land_reference(platform.landing)
        platform.make(REFERENCE)
        platform.land(first, second)
        platform.make([*DAILY_RAW, *DAILY_DBT], first, second)
        before = {name: platform.rows(name) for name in marts}
        recorded = [platform.latest(key, first) for key in DAILY_DBT]

        header, flight, *flights = gzip.decompress(platform.landing.read("flights", f"{first}.csv.gz")).splitlines(True)
        flight = flight.replace(b"," + flight.split(b",")[9] + b",", b",ZZ,", 1)  # no airline
        platform.landing.put(
            "flights", file_name("flights", first), gzip.compress(b"".join([header, flight, *flights]))
        )
        step = start(context(), stack, first, second)
        while not _airline_is_there(platform, "ZZ"):
            assert step.is_alive(), "the step ended before it was killed"
            time.sleep(0.2)
        assert kill(step, 0)
        assert _airline_is_there(platform, "ZZ", wait_seconds=60)

        result = platform.materialize(DAILY_DBT, first, second)
        errors = [str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure]
        assert "1 of 2 days fail departures_carrier_is_an_airline" in "".join(errors)
        for name in marts:
            pd.testing.assert_frame_equal(platform.rows(name), before[name], check_exact=True, obj=name)
        assert [platform.latest(key, first) for key in DAILY_DBT] == recorded
        assert not platform.warehouse.exists("marts_before.departures")


def _airline_is_there(platform: Platform, carrier: str, wait_seconds: float = 0) -> bool:
    """Whether the mart has departures of it; no where the DuckDB file is taken."""
    warehouse = Warehouse(platform.deployment.warehouse_uri, wait_seconds=wait_seconds)
    try:
        return warehouse.read(f"SELECT 1 AS found FROM marts.departures WHERE carrier = '{carrier}'").num_rows > 0
    except WarehouseBusyError:
        return False
