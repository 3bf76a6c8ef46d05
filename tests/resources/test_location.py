"""A code location in one call: no condition is left unwatched, and all that is brought can be replaced."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from resources import code_location
from resources.ingestion.assets import landed
from resources.ingestion.tables import LandedTable
from resources.landing import LandingZone
from tests.meters import DAYS, METERS, READINGS, TABLES, send
from tilth import on_new_data
from tilth.automation.reconciler import reconciler
from tilth.automation.sensor import automation_sensor
from tilth.observability import freshness
from tilth.settings import Deployment

MODULE = "assets.shops.definitions"


@pytest.fixture(autouse=True)
def _state(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTH_HOME", str(tmp_path))


def asset(name: str, *deps: str, condition: bool = True, **options: Any) -> dg.AssetsDefinition:
    @dg.asset(
        key=name.split("/"),
        deps=[dep.split("/") for dep in deps],
        automation_condition=on_new_data() if condition else None,
        **options,
    )
    def made() -> None: ...

    return made


def watched(definitions: dg.Definitions, kind: type[dg.SensorDefinition], name: str = "") -> list[str]:
    """The assets that sensors of this kind look at, each as often as it is looked at."""
    repository = definitions.get_repository_def()
    found = [
        key.to_user_string()
        for sensor in repository.sensor_defs
        if isinstance(sensor, kind) and name in sensor.name and sensor.asset_selection is not None
        for key in sensor.asset_selection.resolve(repository.asset_graph)
    ]
    return sorted(found)


ASSETS = [
    asset("raw/sales", condition=False, group_name="raw"),
    [asset("sales", "raw/sales", group_name="sales"), asset("visits", "raw/sales", group_name="visits")],
    dg.AssetSpec("elsewhere"),
]


def test_every_asset_with_a_condition_is_evaluated_and_reconciled_whatever_its_group() -> None:
    made = code_location(MODULE, assets=ASSETS)
    assert watched(made, dg.AutomationConditionSensorDefinition) == ["sales", "visits"]
    assert watched(made, dg.SensorDefinition, "reconciler") == ["sales", "visits"]
    running = {sensor.name: sensor.default_status for sensor in made.get_repository_def().sensor_defs}
    assert running == dict.fromkeys(
        ["automation", "reconciler", "partition_lag", "alerts"], dg.DefaultSensorStatus.RUNNING
    )


def test_what_a_given_sensor_evaluates_is_left_to_it_and_the_rest_is_not_forgotten() -> None:
    of_sales = dg.AssetSelection.groups("sales")
    made = code_location(
        MODULE,
        assets=ASSETS,
        sensors=[automation_sensor("automation", of_sales, ""), reconciler("reconciler", of_sales)],
    )
    assert watched(made, dg.AutomationConditionSensorDefinition, "of_the_others") == ["visits"]
    assert watched(made, dg.SensorDefinition, "reconciler_of_the_others") == ["visits"]
    assert watched(made, dg.AutomationConditionSensorDefinition) == ["sales", "visits"]
    assert watched(made, dg.SensorDefinition, "reconciler") == ["sales", "visits"]


def test_more_assets_than_one_sensor_takes_have_several() -> None:
    many = [asset(f"asset_{number}") for number in range(501)]
    made = code_location(MODULE, assets=many)
    assert len(watched(made, dg.AutomationConditionSensorDefinition)) == len(many)


def test_lag_is_watched_where_nothing_further_is_made() -> None:
    made = code_location(MODULE, assets=[*ASSETS, asset("revenue", "sales")])
    checked = {key.asset_key.to_user_string() for key in made.get_repository_def().asset_graph.asset_check_keys}
    assert checked == {"visits", "revenue"}


def test_a_resource_a_job_a_sensor_and_the_executor_that_are_given_replace_the_brought_ones() -> None:
    @dg.op
    def own_maintenance() -> None: ...

    @dg.job
    def lake_maintenance() -> None:
        own_maintenance()

    @dg.sensor(name="alerts", job=lake_maintenance)
    def own_alerts() -> None: ...

    store = dg.FilesystemIOManager()
    made = code_location(
        MODULE,
        assets=ASSETS,
        jobs=[lake_maintenance],
        sensors=[own_alerts],
        resources={"io_manager": store},
        executor=dg.in_process_executor,
    )
    assert made.resources
    assert made.resources["io_manager"] is store
    assert made.executor is dg.in_process_executor
    repository = made.get_repository_def()
    assert repository.get_job("lake_maintenance").has_node("own_maintenance")
    assert repository.get_sensor_def("alerts").job_name == "lake_maintenance"


def test_the_warehouse_takes_one_step_at_once_where_something_is_in_its_pool() -> None:
    assert limits(ASSETS) == {}
    assert limits([asset("slow", pool="warehouse")]) == {"warehouse": 1}
    assert limits([asset("slow", pool="warehouse"), asset("call", pool="api")], api=3) == {"warehouse": 1, "api": 3}


def limits(assets: list[Any], **pools: int) -> dict[str, int]:
    declared: Any = code_location(MODULE, assets=assets, pools=pools).metadata
    return declared["pools"].value


def test_assets_that_dagster_cannot_version_are_taken_as_they_are() -> None:
    @dg.op
    def two() -> int:
        return 2

    @dg.graph_asset
    def of_a_graph() -> int:
        return two()

    made = code_location(MODULE, assets=[of_a_graph, dg.AssetSpec("elsewhere")])
    assert {*made.resolve_all_asset_keys()} == {dg.AssetKey("elsewhere"), dg.AssetKey("of_a_graph")}


def test_two_domains_with_a_table_of_one_name_land_and_store_apart(tmp_path: Path) -> None:
    def domain(name: str) -> dg.Definitions:
        table = LandedTable("weather", METERS.schema, "", warehouse_schema=f"{name}_raw")
        return code_location(f"assets.{name}.definitions", namespace=name, assets=[], landing=[table])

    def asked(of: dg.Definitions, instance: dg.DagsterInstance) -> list[list[str]]:
        repository, zone = of.get_repository_def(), (of.resources or {})["landing"]
        context = dg.build_sensor_context(instance, repository_def=repository, resources={"landing": zone})
        requests = repository.get_sensor_def("landed_files").evaluate_tick(context).run_requests or []
        return [[key.to_user_string() for key in request.asset_selection or ()] for request in requests]

    LandingZone(uri=str(tmp_path / "landing" / "demand")).put("weather", "weather.csv", b"carrier,name\n")
    time.sleep(1.1)  # a file on disk counts as landed a second after its rename
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked(domain("demand"), instance) == [["demand_raw/weather"]]
        assert asked(domain("supply"), instance) == []


def test_a_table_that_lands_is_asked_for_with_what_is_made_of_it_checked_for_its_names_and_counted_in_lag(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    daily = asset("use/daily", "raw/readings", partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
    made = code_location(MODULE, assets=[daily, landed(METERS, owners=["team:meters"])], landing=TABLES)
    specs = {spec.key.to_user_string(): spec for spec in made.resolve_all_asset_specs()}
    assert {*specs} == {"use/daily", "raw/readings", "raw/prices", "raw/meters"}
    assert specs["raw/meters"].owners == ["team:meters"]

    repository = made.get_repository_def()
    checks = {(key.asset_key.to_user_string(), key.name) for key in repository.asset_graph.asset_check_keys}
    assert checks == {
        ("use/daily", "partition_lag"),
        *((f"raw/{table.name}", "landed_names") for table in TABLES),
    }
    landing = LandingZone.of(Deployment())
    send(landing, READINGS, "2024-01-01")
    time.sleep(1.1)  # a file on disk counts as landed a second after its rename
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, repository_def=repository, resources={"landing": landing})
        (request,) = repository.get_sensor_def("landed_files").evaluate_tick(context).run_requests or []
        assert [key.to_user_string() for key in request.asset_selection or []] == ["raw/readings", "use/daily"]
        monkeypatch.setattr(freshness, "time", SimpleNamespace(time=lambda: time.time() + 1200))
        context = dg.build_sensor_context(instance, repository_def=repository)
        (late,) = repository.get_sensor_def("partition_lag").evaluate_tick(context).asset_events
    assert isinstance(late, dg.AssetCheckEvaluation)
    assert (late.asset_key.to_user_string(), late.passed) == ("use/daily", False)
