"""Which days the flights domain asks for by itself: those whose inputs came or changed, at any age, and no other."""

from collections import Counter
from collections.abc import Iterator
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.flights import partitions as by
from assets.flights.sensors import automation_sensors
from tests.automation import dates
from tests.flights.automation import (
    CANDIDATES,
    CHAMPION,
    DAILY_DBT,
    FEATURES,
    IN_SERVICE,
    NEURAL,
    PREDICTIONS,
    QUALITY,
    RAW,
    REFERENCE,
    TRAINING_SET,
    Daemon,
    each,
    flights_definitions,
    models_of,
    once,
)


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.Definitions]:
    with flights_definitions(tmp_path_factory.mktemp("state")) as definitions:
        yield definitions


@pytest.fixture
def empty(flights: dg.Definitions) -> Iterator[Daemon]:
    """A daemon that has looked at an empty platform."""
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(flights, instance)
        assert daemon.look() == {}
        yield daemon


@pytest.fixture
def daemon(empty: Daemon) -> Daemon:
    """The same after the reference tables were made."""
    empty.made(REFERENCE)
    assert empty.look() == {}
    return empty


def test_each_asset_with_a_condition_is_looked_at_by_exactly_one_sensor(flights: dg.Definitions) -> None:
    graph = flights.resolve_asset_graph()
    looked_at = Counter(key for sensor in automation_sensors for key in sensor.asset_selection.resolve(graph))
    automated = {spec.key for spec in flights.resolve_all_asset_specs() if spec.automation_condition}
    # The neural candidate has a condition where PyTorch is installed, and its sensor everywhere.
    assert looked_at == Counter([*automated, dg.AssetKey.from_user_string(NEURAL)])


def test_a_landed_day_waits_for_its_weather_and_then_asks_for_no_other_day(daemon: Daemon) -> None:
    day = "2013-01-05"
    daemon.made(["raw/flights"], [day])
    assert daemon.look() == {"staging/flights": {day}}
    daemon.made(["staging/flights"], [day])
    assert daemon.look() == {}
    daemon.made(["raw/weather"], [day])
    assert daemon.look() == each(["staging/weather", "marts/departures", "marts/daily_lateness", FEATURES], [day])
    assert daemon.look() == {}


def test_a_late_day_asks_for_itself_and_for_the_features_whose_history_it_is_in(daemon: Daemon) -> None:
    daemon.made([*RAW, *DAILY_DBT, FEATURES], ["2013-01-05", "2013-02-20"])
    assert daemon.look() == {}
    daemon.made(RAW, ["2013-01-03"])
    assert daemon.look() == each([*DAILY_DBT, FEATURES], ["2013-01-03"])
    daemon.made([*DAILY_DBT, FEATURES], ["2013-01-03"])
    assert daemon.look() == each([FEATURES], ["2013-01-05"])
    assert daemon.look() == {}


def test_a_year_that_lands_at_once_is_asked_for_at_once(daemon: Daemon) -> None:
    year = by.days.get_partition_keys()
    assert len(year) == 365
    daemon.made(RAW, year)
    assert daemon.look() == each([*DAILY_DBT, FEATURES], year)
    assert daemon.look() == {}


def test_made_marts_ask_for_the_features_of_exactly_their_days_also_behind_a_day_that_never_landed(
    daemon: Daemon,
) -> None:
    landed = ["2013-03-01", "2013-03-02", "2013-03-04"]
    daemon.made(DAILY_DBT, landed)
    assert daemon.look() == each([FEATURES], landed)


def test_made_again_a_day_of_lateness_asks_for_the_features_of_the_28_days_after_it(daemon: Daemon) -> None:
    landed = sorted({*dates("2013-02-15", "2013-04-10")} - {"2013-03-08"})
    daemon.made([*DAILY_DBT, FEATURES], landed)
    assert daemon.look() == {}
    daemon.made(["marts/daily_lateness"], ["2013-03-01"], content="corrected")
    assert daemon.look() == each([FEATURES], {*dates("2013-03-02", "2013-03-29")} - {"2013-03-08"})


def test_refreshed_reference_tables_ask_for_no_day(daemon: Daemon) -> None:
    daemon.made([*RAW, *DAILY_DBT, FEATURES], dates("2013-01-01", "2013-01-05"))
    assert daemon.look() == {}
    daemon.made(["marts/aircraft", "marts/airlines", "marts/airports"], content="refreshed")
    assert daemon.look() == {}
    daemon.made(["raw/planes"], content="refreshed")
    assert daemon.look() == each(["staging/planes", "marts/aircraft"], [None])


def test_a_day_waits_for_the_reference_tables_and_is_asked_for_when_they_come(empty: Daemon) -> None:
    day = ["2013-01-05"]
    empty.made(RAW, day)
    assert empty.look() == each(["staging/flights", "staging/weather"], day)
    empty.made(["staging/flights", "staging/weather"], day)
    assert empty.look() == {}
    empty.made(["marts/airlines", "marts/airports"])
    assert empty.look() == each(["marts/departures", "marts/daily_lateness"], day)
    empty.made(["marts/departures", "marts/daily_lateness"], day)
    assert empty.look() == {}
    empty.made(["marts/aircraft"])
    assert empty.look() == each([FEATURES], day)


def test_a_day_that_was_loaded_before_the_first_look_is_asked_for(flights: dg.Definitions) -> None:
    """By hand before the daemon ever ran, or before an upgrade that changes a condition: that too is a first look."""
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(flights, instance)
        daemon.made(REFERENCE)
        daemon.made(RAW, ["2013-01-05"])
        assert daemon.look() == each([*DAILY_DBT, FEATURES], ["2013-01-05"])


def test_from_landed_days_to_predictions_each_partition_is_asked_for_exactly_once(daemon: Daemon) -> None:
    landed = dates("2013-01-01", "2013-02-01")
    daemon.made(RAW, landed)
    assert daemon.follow() == once(
        {
            **each([*DAILY_DBT, FEATURES], landed),
            TRAINING_SET: {"2013-01"},
            **each([*CANDIDATES, CHAMPION], models_of("2013-01")),
            IN_SERVICE: models_of("2013-02", "2013-03", "2013-04"),
            **each([PREDICTIONS, QUALITY], ["2013-02-01"]),
        }
    )
    daemon.made(RAW, ["2013-02-02"])
    assert daemon.follow() == once(each([*DAILY_DBT, FEATURES, PREDICTIONS, QUALITY], ["2013-02-02"]))


def test_where_one_day_never_came_lost_requests_for_the_features_of_the_28_days_after_it_are_found(
    daemon: Daemon, monkeypatch: pytest.MonkeyPatch
) -> None:
    daemon.made([*RAW, *DAILY_DBT], dates("2013-01-06", "2013-02-10"))
    repository = daemon.definitions.get_repository_def()
    sensor, cursor, asked = repository.get_sensor_def("reconciler"), None, set()
    for now in (1_000_000_000, 1_000_000_000 + 600):
        monkeypatch.setattr("tilth.automation.reconciler.time", SimpleNamespace(time=lambda now=now: now))
        tick = sensor.evaluate_tick(dg.build_sensor_context(daemon.instance, cursor, repository_def=repository))
        cursor = tick.cursor
        asked |= {
            (request.tags.get("dagster/asset_partition_range_start"), request.tags["dagster/asset_partition_range_end"])
            for request in tick.run_requests or ()
            if dg.AssetKey.from_user_string(FEATURES) in (request.asset_selection or ())
        }
    assert asked == {("2013-01-06", "2013-02-10")}
