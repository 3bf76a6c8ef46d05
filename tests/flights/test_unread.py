"""A file that nobody reads because of its name is told once, on the raw asset that it was for."""

from pathlib import Path

import dagster as dg
import pytest

from assets.flights.definitions import definitions
from tests.conftest import Platform
from tilth.observability import incidents


@pytest.fixture
def flights(platform: Platform) -> dg.Definitions:
    return definitions(platform.deployment)


def look(platform: Platform, flights: dg.Definitions, cursor: str | None) -> tuple[list[dg.AssetCheckEvaluation], str]:
    """What the sensor tells, recorded as the daemon would, and its next cursor."""
    repository = flights.get_repository_def()
    with dg.build_sensor_context(
        instance=platform.instance, cursor=cursor, repository_def=repository, sensor_name="landed_names"
    ) as context:
        result = flights.resolve_sensor_def("landed_names")(context)
    assert isinstance(result, dg.SensorResult)
    events = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    for event in events:
        platform.instance.report_runless_asset_event(event)
    return events, str(result.cursor)


def open_incidents(platform: Platform, flights: dg.Definitions) -> list[str]:
    found = incidents.look(platform.instance, flights.get_repository_def(), None, {}, None, 2e10).incidents
    return [incident.text for incident in found.values()]


def test_a_file_with_a_name_that_is_not_understood_is_one_incident_until_it_is_renamed(
    platform: Platform, flights: dg.Definitions
) -> None:
    platform.land("2013-01-01")
    _, cursor = look(platform, flights, None)
    assert open_incidents(platform, flights) == []
    folder = Path(platform.landing.uri, "flights")
    (folder / "2013-01-01.csv.gz").rename(folder / "2013-01-01.CSV.GZ")

    (told,), cursor = look(platform, flights, cursor)
    assert told.asset_key == dg.AssetKey(["raw", "flights"])
    assert not told.passed
    assert "flights/2013-01-01.CSV.GZ: name it flights/2013-01-01.csv.gz" in str(told.description)
    (incident,) = open_incidents(platform, flights)
    assert "flights/2013-01-01.CSV.GZ: name it" in incident
    again, cursor = look(platform, flights, cursor)
    assert again == []

    (folder / "2013-01-01.CSV.GZ").rename(folder / "2013-01-01.csv.gz")
    (told,), cursor = look(platform, flights, cursor)
    assert told.passed
    assert open_incidents(platform, flights) == []
