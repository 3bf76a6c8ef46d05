"""The landing sensor asks for exactly the days that landed, once per arrival, on disk as on S3."""

import time
from datetime import date
from pathlib import Path

import dagster as dg
import pytest

import resources.landing_s3
from assets.flights import replay
from assets.flights.raw import newest_files, raw_key, read
from assets.flights.sensors import landed_files
from resources.landing import LandedFile, LandingZone
from tests.s3 import S3

START = "dagster/asset_partition_range_start"
END = "dagster/asset_partition_range_end"


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
        assert len(first.cursor) < 25
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
        dg.AssetMaterialization(raw_key(file.table), partition=file.partition, metadata=metadata)
    )


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
    intake = read("flights", [newest[day] for day in days], on_s3)

    assert [str(day) for day in intake.counts] == days
    assert [intake.counts[day].rows for day in days[:2]] == [842, 943]
