"""How often a sensor's look connects to PostgreSQL."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr
from sqlalchemy import create_engine, event, text
from sqlalchemy.engine import Engine
from sqlalchemy.pool import Pool

from tests.postgres.server import dagster_address
from tilth.automation.conditions import on_new_data
from tilth.automation.reconciler import reconciler
from tilth.automation.sensor import automation_sensor
from tilth.observability.alert_messages import Message
from tilth.observability.alerts import alert_sensor
from tilth.observability.freshness import partition_lag_checks

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
ASKED = [f"made_{number}" for number in range(8)]


@dg.asset(partitions_def=DAYS)
def source() -> None: ...


def made(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, partitions_def=DAYS, deps=[source], automation_condition=on_new_data())
    def asset() -> None: ...

    return asset


class NothingKept:
    """Alerts of which none is open."""

    def current(self) -> list[Message]:
        return []

    def keep(self, messages: Sequence[Message]) -> None: ...


MADE = dg.AssetSelection.assets(*ASKED)
LAG_CHECKS, LAG = partition_lag_checks([dg.AssetKey(name) for name in ASKED], warn="10m", fail="1h")
SENSORS = {
    "conditions": automation_sensor("conditions", MADE, "All of them."),
    "reconciler": reconciler("reconciler", MADE, patience_seconds=0),
    "lag": LAG,
    "alerts": alert_sensor(NothingKept(), SecretStr("")),
}
DEFINED = dg.Definitions(
    assets=[source, *[made(name) for name in ASKED]], asset_checks=LAG_CHECKS, sensors=list(SENSORS.values())
)


@contextmanager
def counted(target: Any, what: str) -> Iterator[list[None]]:
    """One entry for each such event of SQLAlchemy's meanwhile."""
    found: list[None] = []

    def count(*_: Any) -> None:
        found.append(None)

    event.listen(target, what, count)
    try:
        yield found
    finally:
        event.remove(target, what, count)


@pytest.mark.parametrize("sensor", SENSORS.values(), ids=SENSORS.keys())
def test_a_look_asks_all_its_questions_over_a_few_connections_and_leaves_none(
    sensor: dg.SensorDefinition, postgres_uri: str, tmp_path: Path
) -> None:
    address = dagster_address(postgres_uri)
    (tmp_path / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{address}'}}}}")
    with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
        instance.report_runless_asset_event(dg.AssetMaterialization("source", partition="2013-01-05"))
        context = dg.build_sensor_context(instance, repository_def=DEFINED.get_repository_def())
        with counted(Pool, "connect") as connections, counted(Engine, "before_cursor_execute") as questions:
            sensor.evaluate_tick(context)
        assert len(questions) > 20
        assert len(connections) <= 5
        with create_engine(address).connect() as connection:
            others = (
                "SELECT count(*) FROM pg_stat_activity WHERE datname = current_database() AND pid != pg_backend_pid()"
            )
            assert connection.execute(text(others)).scalar() == 0
