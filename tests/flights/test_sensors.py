"""The landing sensor asks for exactly the days that landed, once per arrival, on disk as on S3.

A clock that is wrong and a landing zone that is gone for a while cost no file, and what waits there still waits.
"""

import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import date
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

import resources.landing_folder
import resources.landing_s3
from assets.flights import replay
from assets.flights.definitions import definitions
from assets.flights.sensors import FOLLOWING
from assets.flights.tables import FLIGHTS, TABLES
from resources.ingestion.assets import newest_files, read
from resources.ingestion.sensor import landing_sensor
from resources.landing import LandingZone
from resources.landing_files import LandedFile
from tests.automation import DAILY_DBT, FEATURES, RAW, REFERENCE, Daemon, dates, each
from tests.conftest import DAILY_RAW, Platform
from tests.s3 import S3
from tilth.observability import freshness

START = "dagster/asset_partition_range_start"
END = "dagster/asset_partition_range_end"

landed_files = landing_sensor(TABLES, FOLLOWING)


@pytest.fixture
def landing(tmp_path: Path) -> LandingZone:
    return LandingZone(uri=str(tmp_path / "landing"))


@pytest.fixture
def on_s3(s3: S3) -> LandingZone:
    return LandingZone(uri=f"s3://{s3.bucket()}/landing", s3_endpoint_url=s3.endpoint_url, s3_region=s3.region)


def tick(landing: LandingZone, instance: dg.DagsterInstance, cursor: str | None = None) -> dg.SensorResult:
    if not landing.uri.startswith("s3://"):
        time.sleep(1.1)  # a file on disk counts as landed a second after its rename
    context = dg.build_sensor_context(instance, cursor=cursor)
    result = landed_files(context, landing=landing)
    assert isinstance(result, dg.SensorResult)
    return result


def asked(result: dg.SensorResult) -> list[tuple[list[str], str, str]]:
    """Each request as its tables, first and last day."""
    return [
        (
            [key.path[-1] for key in request.asset_selection or []],
            request.partition_key or request.tags.get(START, ""),
            request.partition_key or request.tags.get(END, ""),
        )
        for request in result.run_requests or []
    ]


def test_ninety_landed_days_are_one_run_and_not_asked_for_twice(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 1, 1), date(2013, 3, 31))
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(landing, instance)
        assert asked(first) == [(["flights", "weather"], "2013-01-01", "2013-03-31")]
        assert first.cursor
        assert len(first.cursor) < 2500
        assert asked(tick(landing, instance, first.cursor)) == []


def test_a_gap_splits_the_days_into_ranges(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 3))
    replay.land_days(landing, date(2013, 1, 7), date(2013, 1, 7))
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked(tick(landing, instance)) == [
            (["flights", "weather"], "2013-01-01", "2013-01-03"),
            (["flights", "weather"], "2013-01-07", "2013-01-07"),
        ]


def test_a_file_that_is_sent_again_is_asked_for_again_and_nothing_else(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 5))
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(landing, instance)
        landing.put("flights", "2013-01-02.csv.gz", landing.read("flights", "2013-01-02.csv.gz"))
        second = tick(landing, instance, first.cursor)
        assert asked(second) == [(["flights"], "2013-01-02", "2013-01-02")]
        keys = [request.run_key for result in (first, second) for request in result.run_requests or []]
        assert len(set(keys)) == len(keys)


def test_the_same_arrivals_have_the_same_run_key(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 2))
    with dg.DagsterInstance.ephemeral() as instance:
        one, two = tick(landing, instance), tick(landing, instance)
    assert [r.run_key for r in one.run_requests or []] == [r.run_key for r in two.run_requests or []]


def test_a_late_day_before_all_others_is_asked_for(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 2, 1), date(2013, 2, 3))
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(landing, instance)
        replay.land_days(landing, date(2013, 1, 9), date(2013, 1, 9))
        assert asked(tick(landing, instance, first.cursor)) == [(["flights", "weather"], "2013-01-09", "2013-01-09")]


def test_what_was_already_read_is_not_asked_for_by_a_sensor_that_starts_anew(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 2))
    with dg.DagsterInstance.ephemeral() as instance:
        for file in landing.files():
            report(instance, file, {"arrived_ns": str(file.arrived_ns)})  # as the first release stored it
        assert asked(tick(landing, instance)) == []
        replay.land_days(landing, date(2013, 1, 3), date(2013, 1, 3))
        assert asked(tick(landing, instance)) == [(["flights", "weather"], "2013-01-03", "2013-01-03")]


def report(instance: dg.DagsterInstance, file: LandedFile, metadata: dict[str, str]) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(["raw", file.table], partition=file.partition, metadata=metadata)
    )


def landed(platform: Platform) -> tuple[list[list[str]], dg.RunRequest]:
    """The only run that the sensor asks for in the code location: its assets, and the request."""
    time.sleep(1.1)
    repository = definitions(platform.deployment).get_repository_def()
    context = dg.build_sensor_context(
        platform.instance, repository_def=repository, resources={"landing": platform.landing}
    )
    (request,) = repository.get_sensor_def("landed_files").evaluate_tick(context).run_requests or []
    return [list(key.path) for key in request.asset_selection or []], request


def test_landed_days_ask_for_all_that_can_be_made_of_them_in_the_run_that_reads_them(platform: Platform) -> None:
    daemon = Daemon(definitions(platform.deployment), platform.instance)
    daemon.made(REFERENCE)
    platform.land("2013-01-01", "2013-01-02")
    keys, request = landed(platform)
    assert sorted("/".join(key) for key in keys) == sorted([*RAW, *DAILY_DBT, FEATURES])
    assert (request.tags[START], request.tags[END]) == ("2013-01-01", "2013-01-02")
    assert {check.asset_key.to_user_string() for check in request.asset_check_keys or []} <= set(DAILY_DBT)


def test_the_neighbours_of_a_day_that_cannot_be_read_are_asked_for_when_its_run_has_failed(platform: Platform) -> None:
    days = dates("2013-01-01", "2013-01-03")
    daemon = Daemon(definitions(platform.deployment), platform.instance)
    daemon.made(REFERENCE)
    assert daemon.look() == {}
    platform.land(days[0], days[-1])
    platform.landing.put("flights", f"{days[1]}.csv.gz", b"no gzip")
    keys, _ = landed(platform)
    assert not platform.materialize(keys, days[0], days[-1]).success
    good = [days[0], days[2]]
    assert daemon.look() == {
        "staging/weather": {*days},
        **each([key for key in [*DAILY_DBT, FEATURES] if key != "staging/weather"], good),
    }
    assert daemon.look() == {}


def test_reference_tables_are_one_run_without_days(landing: LandingZone) -> None:
    replay.land_reference(landing)
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked(tick(landing, instance)) == [(["airlines", "airports", "planes"], "", "")]


def test_a_file_of_no_known_day_is_left_where_it_is(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 1))
    landing.put("flights", "2014-06-01.csv.gz", landing.read("flights", "2013-01-01.csv.gz"))
    landing.put("flights", "yesterday.csv.gz", landing.read("flights", "2013-01-01.csv.gz"))
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked(tick(landing, instance)) == [(["flights", "weather"], "2013-01-01", "2013-01-01")]
    assert landing.read("flights", "yesterday.csv.gz")


def test_days_on_s3_are_asked_for_when_they_land_and_the_next_one_at_the_next_look(on_s3: LandingZone) -> None:
    replay.land_days(on_s3, date(2013, 1, 1), date(2013, 1, 5))
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(on_s3, instance)
        assert asked(first) == [(["flights", "weather"], "2013-01-01", "2013-01-05")]
        replay.land_days(on_s3, date(2013, 1, 6), date(2013, 1, 6))
        second = tick(on_s3, instance, first.cursor)
        assert asked(second) == [(["flights", "weather"], "2013-01-06", "2013-01-06")]
        assert asked(tick(on_s3, instance, second.cursor)) == []


def test_a_day_on_s3_that_is_late_or_sent_again_is_asked_for_within_the_minute(
    on_s3: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay.land_days(on_s3, date(2013, 2, 1), date(2013, 2, 3))
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(on_s3, instance)
        on_s3.put("flights", "2013-02-02.csv.gz", on_s3.read("flights", "2013-02-01.csv.gz"))
        replay.land_days(on_s3, date(2013, 1, 9), date(2013, 1, 9))
        before = tick(on_s3, instance, first.cursor)
        assert asked(before) == []
        monkeypatch.setattr(resources.landing_s3, "WHOLE_LISTING_NANOSECONDS", 0)
        after = tick(on_s3, instance, before.cursor)
        assert asked(after) == [
            (["flights", "weather"], "2013-01-09", "2013-01-09"),
            (["flights"], "2013-02-02", "2013-02-02"),
        ]
        assert asked(tick(on_s3, instance, after.cursor)) == []
        keys = [request.run_key for result in (first, after) for request in result.run_requests or []]
        assert len(set(keys)) == len(keys)


def test_a_file_on_s3_that_was_read_is_told_from_another_version_of_the_same_second(on_s3: LandingZone) -> None:
    replay.land_days(on_s3, date(2013, 1, 1), date(2013, 1, 1))
    flights, weather = on_s3.files()
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, weather, {"arrived_ns": str(weather.arrived_ns), "arrival": weather.arrival})
        report(instance, flights, {"arrived_ns": str(flights.arrived_ns), "arrival": f"{flights.arrived_ns}-other"})
        assert asked(tick(on_s3, instance)) == [(["flights"], "2013-01-01", "2013-01-01")]


def test_days_on_s3_are_read_in_their_order(on_s3: LandingZone) -> None:
    replay.land_days(on_s3, date(2013, 1, 1), date(2013, 1, 12))
    newest = newest_files(on_s3, "flights")
    days = sorted(day for day in newest if day)
    intake = read(FLIGHTS, [newest[day] for day in days], on_s3)

    assert [str(day) for day in intake.counts] == days
    assert [intake.counts[day].rows for day in days[:2]] == [842, 943]


def test_a_clock_that_was_ahead_for_one_look_costs_no_day_and_none_is_read_twice(
    landing: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 2))
    with dg.DagsterInstance.ephemeral() as instance:
        with monkeypatch.context() as ahead:
            ahead.setattr(
                resources.landing_folder, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
            )
            first = tick(landing, instance)
        assert asked(first) == [(["flights", "weather"], "2013-01-01", "2013-01-02")]
        for file in landing.files():
            report(instance, file, {"arrival": file.arrival})

        replay.land_days(landing, date(2013, 1, 3), date(2013, 1, 3))
        second = tick(landing, instance, first.cursor)
        assert asked(second) == [(["flights", "weather"], "2013-01-03", "2013-01-03")]
        assert asked(tick(landing, instance, second.cursor)) == []


def test_a_landing_zone_that_is_gone_fails_the_look_and_one_that_is_not_there_yet_does_not(
    landing: LandingZone, tmp_path: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        before = tick(landing, instance)
        assert asked(before) == []
        replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 1))
        first = tick(landing, instance, before.cursor)
        assert asked(first) == [(["flights", "weather"], "2013-01-01", "2013-01-01")]
        with away(landing, tmp_path), pytest.raises(FileNotFoundError, match=f"{landing.uri} is gone. Bring it back"):
            tick(landing, instance, first.cursor)
        assert asked(tick(landing, instance, first.cursor)) == []


@contextmanager
def away(landing: LandingZone, tmp_path: Path) -> Iterator[None]:
    """The landing zone's folder is missing meanwhile."""
    elsewhere = Path(landing.uri).rename(tmp_path / "elsewhere")
    yield
    elsewhere.rename(landing.uri)


@pytest.mark.parametrize(("key", "day"), [(DAILY_RAW[0], "2013-01-01"), (["raw", "planes"], None)])
def test_a_run_is_tried_again_while_the_landing_zone_is_gone_and_reads_it_when_it_is_back(
    platform: Platform, tmp_path: Path, key: list[str], day: str | None
) -> None:
    landing = platform.landing
    platform.land("2013-01-01")
    replay.land_reference(landing)
    elsewhere = Path(landing.uri).rename(tmp_path / "elsewhere")

    def bring_back() -> str:
        said = first_try(platform.instance)
        elsewhere.rename(landing.uri)
        return said

    with ThreadPoolExecutor(1) as other:
        said = other.submit(bring_back)
        result = platform.materialize([key], day)
    assert f"The landing zone {landing.uri} is gone. Bring it back, or mount it again" in said.result()
    assert result.success
    assert len(platform.rows(f"raw.{key[-1]}")) > 800


def first_try(instance: dg.DagsterInstance) -> str:
    """What the first try of the only run fails with, once it is to be tried again; nothing if it never is."""
    while True:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY):
                return str(entry.get_dagster_event().step_retry_data.error)
            if run.is_finished:
                return ""
        time.sleep(0.05)


def test_what_has_not_landed_in_a_landing_zone_that_is_there_is_not_waited_for(platform: Platform) -> None:
    platform.land("2013-01-01")
    for key, day in ((DAILY_RAW[0], "2013-01-02"), (["raw", "planes"], None)):
        result = platform.materialize([key], day)
        (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        assert "nothing has landed at" in str(failure.error)
        assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_what_waits_in_a_landing_zone_that_is_gone_is_not_said_to_have_recovered(
    platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "time", SimpleNamespace(time=lambda: time.time() + 3 * 3600))
    platform.land("2013-01-01")
    replay.land_reference(platform.landing)
    lag = Lag(platform)
    assert lag.told()["features/departures"] is False
    with away(platform.landing, tmp_path), pytest.raises(FileNotFoundError, match=r"is gone\. Bring it back"):
        lag.told()
    assert lag.told() == {}

    platform.make([["raw", "planes"]])
    anew = Lag(platform)  # in a process that has seen nothing yet, with an event log that knows of a file
    with away(platform.landing, tmp_path):
        Path(platform.landing.uri).mkdir()  # a mount point without its volume
        with pytest.raises(FileNotFoundError, match="is empty, as a mount point is without its volume"):
            anew.told()
        Path(platform.landing.uri).rmdir()
    assert anew.told()["features/departures"] is False


def test_before_anything_has_landed_nothing_is_late(platform: Platform) -> None:
    assert set(Lag(platform).told().values()) == {True}


class Lag:
    """The sensor that tells of lag, as one process of the code location has it."""

    def __init__(self, platform: Platform) -> None:
        self._instance, self._cursor = platform.instance, None
        self._repository = definitions(platform.deployment).get_repository_def()

    def told(self) -> dict[str, bool]:
        """By asset of which the next look tells something, whether it passes."""
        context = dg.build_sensor_context(self._instance, cursor=self._cursor, repository_def=self._repository)
        result = self._repository.get_sensor_def("partition_lag").evaluate_tick(context)
        self._cursor = result.cursor or self._cursor
        events = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
        return {event.asset_key.to_user_string(): event.passed for event in events}
