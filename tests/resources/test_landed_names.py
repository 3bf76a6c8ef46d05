"""A file that nobody reads because of its name is told once, on the raw asset that it was for."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from resources.ingestion.names import landed_names
from tests.meters import READINGS, TABLES, Meters, send
from tilth.observability import incidents


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Meters]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        domain = Meters(tmp_path, instance)
        checks, sensor = landed_names(TABLES, domain.landing)
        domain.definitions = dg.Definitions.merge(
            domain.definitions, dg.Definitions(asset_checks=checks, sensors=[sensor])
        )
        yield domain


def tick(domain: Meters, cursor: str | None) -> tuple[list[dg.AssetCheckEvaluation], str]:
    """What the sensor notifies of, recorded as the daemon would, and its next cursor."""
    repository = domain.definitions.get_repository_def()
    with dg.build_sensor_context(
        instance=domain.instance, cursor=cursor, repository_def=repository, sensor_name="landed_names"
    ) as context:
        result = domain.definitions.resolve_sensor_def("landed_names")(context)
    assert isinstance(result, dg.SensorResult)
    events = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
    for event in events:
        domain.instance.report_runless_asset_event(event)
    return events, str(result.cursor)


def open_incidents(domain: Meters) -> list[str]:
    found = incidents.find_incidents(
        domain.instance, domain.definitions.get_repository_def(), None, {}, None, 2e10
    ).incidents
    return [incident.text for incident in found.values()]


def test_a_file_with_a_name_that_is_not_understood_is_one_incident_until_it_is_renamed(domain: Meters) -> None:
    send(domain.landing, READINGS, "2024-01-01")
    _, cursor = tick(domain, None)
    assert open_incidents(domain) == []
    folder = Path(domain.landing.uri, "readings")
    (folder / "2024-01-01.csv.gz").rename(folder / "2024-01-01.CSV.GZ")

    (found,), cursor = tick(domain, cursor)
    assert found.asset_key == dg.AssetKey(["raw", "readings"])
    assert not found.passed
    assert "readings/2024-01-01.CSV.GZ: name it readings/2024-01-01.csv.gz" in str(found.description)
    (incident,) = open_incidents(domain)
    assert "readings/2024-01-01.CSV.GZ: name it" in incident
    again, cursor = tick(domain, cursor)
    assert again == []

    (folder / "2024-01-01.CSV.GZ").rename(folder / "2024-01-01.csv.gz")
    (found,), cursor = tick(domain, cursor)
    assert found.passed
    assert open_incidents(domain) == []
