"""A code location in one call: no condition is left unwatched, and all that is brought can be replaced."""

import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from pydantic import SecretStr

from resources import code_location
from resources.ingestion.assets import landed
from resources.ingestion.tables import LandedTable
from resources.landing import LandingZone
from resources.warehouse import Warehouse
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


def test_one_sensor_evaluates_more_assets_than_dagsters_own_would() -> None:
    made = code_location(MODULE, assets=[asset(f"asset_{number}") for number in range(501)]).get_repository_def()
    (sensor,) = [of for of in made.sensor_defs if isinstance(of, dg.AutomationConditionSensorDefinition)]
    with dg.DagsterInstance.ephemeral() as instance:
        evaluated = sensor.evaluate_tick(dg.build_sensor_context(instance, repository_def=made))
    assert len(evaluated.automation_condition_evaluations) == 501 * 2  # each with its partition_lag


WHEN_MADE = dg.AutomationCondition.any_deps_match(dg.AutomationCondition.newly_updated())


def check_of(name: str) -> dg.AssetChecksDefinition:
    @dg.asset_check(asset=name, name="whole", automation_condition=WHEN_MADE)
    def whole() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    return whole


def made_and_checked() -> dg.MaterializeResult:
    return dg.MaterializeResult(check_results=[dg.AssetCheckResult(passed=True)])


def sensors_of_checks(definitions: dg.Definitions) -> dict[str, set[str]]:
    """By automation sensor, the checks that it evaluates."""
    repository = definitions.get_repository_def()
    return {
        sensor.name: {key.to_user_string() for key in sensor.asset_selection.resolve_checks(repository.asset_graph)}
        for sensor in repository.sensor_defs
        if isinstance(sensor, dg.AutomationConditionSensorDefinition)
    }


def test_a_check_with_a_condition_is_evaluated_whether_or_not_its_asset_has_one() -> None:
    spec = dg.AssetCheckSpec("spotless", asset="counted", automation_condition=WHEN_MADE)
    plain, counted = asset("plain", condition=False), dg.asset(name="counted", check_specs=[spec])(made_and_checked)
    made = code_location(MODULE, assets=[plain, counted], checks=[check_of("plain")])
    assert sensors_of_checks(made) == {"automation": {"plain:whole", "counted:spotless"}}

    made = code_location(MODULE, assets=[plain, asset("sales")], checks=[check_of("plain")])
    assert watched(made, dg.AutomationConditionSensorDefinition) == ["sales"]
    assert sensors_of_checks(made) == {"automation": {"plain:whole", "sales:partition_lag"}}

    repository = made.get_repository_def()
    sensor = repository.get_sensor_def("automation")
    with dg.DagsterInstance.ephemeral() as instance:
        first = sensor.evaluate_tick(dg.build_sensor_context(instance, repository_def=repository))
        instance.report_runless_asset_event(dg.AssetMaterialization("plain"))
        context = dg.build_sensor_context(instance, repository_def=repository, cursor=first.cursor)
        requests = sensor.evaluate_tick(context).run_requests or []
    requested = [key for request in requests for key in request.asset_check_keys or []]
    assert [key.to_user_string() for key in requested] == ["plain:whole"]


def test_a_check_that_a_given_sensor_evaluates_is_left_to_it_and_brought_checks_alone_make_no_sensor() -> None:
    sales = automation_sensor("given", dg.AssetSelection.assets("sales"), "")
    alone = code_location(
        MODULE, assets=[asset("sales")], checks=[check_of("sales")], sensors=[sales], landing=[METERS]
    )
    assert "automation" not in sensors_of_checks(alone)
    both = [check_of("sales"), check_of("plain")]
    assets = [asset("sales"), asset("plain", condition=False)]
    made = code_location(MODULE, assets=assets, checks=both, sensors=[sales], landing=[METERS])
    assert sensors_of_checks(made) == {
        "given": {"sales:whole", "sales:partition_lag"},
        "automation": {"plain:whole", "raw/meters:landed_names"},
    }


def test_lag_is_watched_where_nothing_further_is_made() -> None:
    made = code_location(MODULE, assets=[*ASSETS, asset("revenue", "sales")])
    checked = {key.asset_key.to_user_string() for key in made.get_repository_def().asset_graph.asset_check_keys}
    assert checked == {"visits", "revenue"}


def test_lag_is_watched_of_what_is_made_of_its_own_earlier_partitions() -> None:
    yesterday = dg.AssetDep("total", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1))

    @dg.asset(deps=[yesterday], partitions_def=DAYS, automation_condition=on_new_data())
    def total() -> None: ...

    made = code_location(MODULE, assets=[total]).get_repository_def()
    assert {key.to_user_string() for key in made.asset_graph.asset_check_keys} == {"total:partition_lag"}


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


def test_a_landing_zone_and_a_warehouse_that_are_given_are_read_by_all_that_is_brought(tmp_path: Path) -> None:
    zone = LandingZone(uri=str(tmp_path / "elsewhere"))
    warehouse = Warehouse(SecretStr("postgresql://there/warehouse"))
    table, slow = METERS, asset("slow", pool="warehouse")
    given = {"landing": zone, "warehouse": warehouse}
    made = code_location(MODULE, assets=[slow], landing=[table], resources=given)
    assert (made.metadata["pools"]).value == {"warehouse": 4}

    (tmp_path / "elsewhere" / table.name).mkdir(parents=True)
    (tmp_path / "elsewhere" / table.name / "misnamed.txt").touch()
    repository = made.get_repository_def()
    with dg.DagsterInstance.ephemeral() as instance:
        context = dg.build_sensor_context(instance, repository_def=repository)
        (names,) = repository.get_sensor_def("landed_names").evaluate_tick(context).asset_events
    assert isinstance(names, dg.AssetCheckEvaluation)
    assert names.metadata["unread_files"].value == 1


def test_a_store_that_is_given_and_is_none_is_an_error() -> None:
    with pytest.raises(TypeError, match="The resource 'warehouse' is a str; give a Warehouse"):
        code_location(MODULE, assets=ASSETS, resources={"warehouse": "postgresql://there/warehouse"})


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
