"""Landed days set off all that can be made of them, and what waits in the landing zone makes the rest late."""

import time
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.flights import replay
from assets.flights.definitions import definitions
from tests.automation import dates
from tests.example import Platform
from tests.flights.automation import DAILY_DBT, FEATURES, RAW, REFERENCE, Daemon, each
from tilth.observability import freshness

START = "dagster/asset_partition_range_start"
END = "dagster/asset_partition_range_end"


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


def test_what_landed_and_was_not_read_makes_features_late(platform: Platform, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(freshness, "time", SimpleNamespace(time=lambda: time.time() + 3 * 3600))
    platform.land("2013-01-01")
    replay.land_reference(platform.landing)
    repository = definitions(platform.deployment).get_repository_def()
    context = dg.build_sensor_context(platform.instance, repository_def=repository)
    events = repository.get_sensor_def("partition_lag").evaluate_tick(context).asset_events
    passed = {e.asset_key.to_user_string(): e.passed for e in events if isinstance(e, dg.AssetCheckEvaluation)}
    assert passed["features/departures"] is False


def test_before_anything_has_landed_nothing_is_late(platform: Platform) -> None:
    repository = definitions(platform.deployment).get_repository_def()
    context = dg.build_sensor_context(platform.instance, repository_def=repository)
    events = repository.get_sensor_def("partition_lag").evaluate_tick(context).asset_events
    assert {event.passed for event in events if isinstance(event, dg.AssetCheckEvaluation)} == {True}
