"""A code location in one call: assets in, everything out that the platform does for them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TypeVar

import dagster as dg

from resources.alert_log import AlertLog
from resources.ingestion.arrivals import waiting
from resources.ingestion.assets import landed
from resources.ingestion.names import landed_names
from resources.ingestion.sensor import landing_sensor
from resources.ingestion.tables import LandedTable
from resources.lake import Lake
from resources.lake_io import LakeIOManager
from resources.lake_maintenance import lake_maintenance
from resources.landing import LandingZone
from resources.registry import ModelIOManager, ModelRegistry
from resources.warehouse import Warehouse
from resources.warehouse_io import WarehouseIOManager, refuse_shared_tables
from tilth._dagster.asset_graph import graph_of
from tilth.automation.reconciler import RECONCILER, reconciler
from tilth.automation.sensor import automation_sensor
from tilth.execution.executor import executor_of
from tilth.execution.pools import pool_limits
from tilth.observability.alerts import alert_sensor
from tilth.observability.freshness import partition_lag_checks
from tilth.settings import Deployment
from tilth.versioning.code import with_code_versions

_WAREHOUSE, _MAINTENANCE = "warehouse_io", "lake_maintenance"
_Store = TypeVar("_Store", Warehouse, LandingZone)


def code_location(
    module: str,
    *,
    assets: Iterable[Any],
    namespace: str = "",
    checks: Iterable[dg.AssetChecksDefinition] = (),
    jobs: Iterable[Any] = (),
    schedules: Iterable[Any] = (),
    sensors: Iterable[dg.SensorDefinition] = (),
    resources: Mapping[str, Any] | None = None,
    landing: Iterable[LandedTable] = (),
    dbt: Path | None = None,
    executor: dg.ExecutorDefinition | None = None,
    pools: Mapping[str, int] | None = None,
    preload: Sequence[str] = (),
    settings: Deployment | None = None,
) -> dg.Definitions:
    """The definitions of a domain, with all that the platform brings, on the stores that TILTH_* variables name.

    To `defs` in the module that workspace.yaml names: `defs = code_location(__name__, assets=[orders, revenue])`.

    - Every asset that has an automation condition is evaluated by a running sensor, and the reconciler finds requests
      for it that were lost. Checks that have one are evaluated too.
    - Those of the assets from which nothing further is made by a condition are watched for lag (`partition_lag`).
    - Frames are stored in the lake; with `io_manager_key="warehouse_io"` in the warehouse, and models with "model_io".
    - Tables that land have their raw assets, a sensor that asks for what arrived, with all that can be made of it in
      the same run, and a check of the files' names.
    - Code versions, alerts, the lake's maintenance, and the executor of the deployment.

    What is given goes before what is brought: an asset of the same key, a resource, job or sensor of the same name,
    sensors that evaluate an asset's condition already.

    Args:
        module: the module's `__name__`; its package is the domain, by whose name its alerts are kept.
        namespace: of a domain beside others on the same stores: its files land in a folder of this name in the landing
            zone. Its asset keys keep apart from the others' by `key_prefix`, its landed tables by `warehouse_schema`.
        assets: `dg.AssetsDefinition`, `dg.AssetSpec`, or lists of them, as `dg.load_assets_from_package_module` makes.
        resources: a "landing" or "warehouse" among them is a `LandingZone` or a `Warehouse`; so it is used by all.
        landing: the tables whose files feeds leave in the landing zone.
        dbt: the folder of the dbt project, whose assets are given as others are; for the resource `dbt`.
        executor: of steps, where it is not the deployment's.
        pools: how many steps at once may be in a pool, by its name. The pool "warehouse" takes one where that is a
            DuckDB file, which one process writes, and four elsewhere.
        preload: modules that steps import and that take long, such as "sklearn.ensemble", imported once before steps
            are forked. None that starts threads.
        settings: of the deployment, where they are not those of the environment.

    Raises:
        TypeError: a "landing" or "warehouse" of another type.
        ValueError: two assets with one table in the warehouse; a pool of no asset.
    """
    settings = settings or Deployment()
    stores = resources or {}
    lake = Lake.of(settings)
    warehouse = _given(stores, "warehouse", Warehouse(settings.warehouse_uri))
    zone = _given(stores, "landing", LandingZone.of(settings, namespace))
    tables, own = list(landing), list(_flat(assets))
    there = {key for asset in own for key in asset.keys}
    own = [*(landed(table) for table in tables if table.key not in there), *own]
    refuse_shared_tables(own, warehouse, _WAREHOUSE)
    conditioned = [spec.key for asset in own for spec in asset.specs if spec.automation_condition]

    checks, sensors = list(checks), list(sensors)
    made = _Made([*checks], [*sensors])
    if tables:
        made.add(landing_sensor(tables, dg.AssetSelection.assets(*conditioned)))
        made.add_checks(*landed_names(tables, zone))
    if conditioned:
        arrivals = waiting(tables, zone) if tables else None
        made.add_checks(*partition_lag_checks(_last_of(own, conditioned), waiting=arrivals))
    made.sensors += _automation([*own, *checks], conditioned, made.checks[len(checks) :], sensors)
    log = AlertLog(lake, namespace or _domain(module))
    made.add(alert_sensor(log, settings.alerts_uri))
    jobs = list(jobs)
    if _MAINTENANCE not in {job.name for job in jobs}:
        # Models do not name the versions that they were trained on yet; the retention of more than a year holds them.
        jobs.append(lake_maintenance(lake, kept=lambda _: {}, also=[log.table]))

    brought = {
        "landing": zone,
        "warehouse": warehouse,
        _WAREHOUSE: WarehouseIOManager(warehouse),
        "io_manager": LakeIOManager(lake),
        "model_io": ModelIOManager(ModelRegistry.of(settings, [], [])),
        **(_dbt(dbt, warehouse) if dbt else {}),
    }
    in_use = graph_of(own).pools
    limits = {"warehouse": 1 if warehouse.engine == "duckdb" else 4} if "warehouse" in in_use else {}
    return dg.Definitions(
        assets=with_code_versions(own),
        asset_checks=made.checks,
        jobs=jobs,
        schedules=list(schedules),
        sensors=made.sensors,
        resources={**brought, **stores},
        executor=executor or executor_of(settings, module, *_used_late(tables, warehouse, dbt), in_template=preload),
        metadata=pool_limits(**{**limits, **(pools or {})}),
    )


def _given(resources: Mapping[str, Any], name: str, own: _Store) -> _Store:
    """The store of that name among the resources, or else the deployment's."""
    store = resources.get(name, own)
    if not isinstance(store, type(own)):
        raise TypeError(
            f"The resource {name!r} is a {type(store).__name__}; give a {type(own).__name__}, which checks and sensors "
            "read too, or another name to it."
        )
    return store


@dataclass
class _Made:
    """Checks and sensors: those given, and what is brought that none of them replaces by its name."""

    checks: list[dg.AssetChecksDefinition]
    sensors: list[dg.SensorDefinition]

    def add(self, *sensors: dg.SensorDefinition) -> None:
        names = {sensor.name for sensor in self.sensors}
        self.sensors += [sensor for sensor in sensors if sensor.name not in names]

    def add_checks(self, checks: Iterable[dg.AssetChecksDefinition], sensor: dg.SensorDefinition) -> None:
        if sensor.name not in {given.name for given in self.sensors}:
            self.checks += checks
            self.sensors.append(sensor)


def _dbt(project: Path, warehouse: Warehouse) -> dict[str, Any]:
    from resources.dbt import Dbt, dbt_project  # with it dagster-dbt, a third of what definitions import

    return {"dbt": Dbt(dbt_project(project, warehouse), warehouse)}


def _used_late(tables: Sequence[LandedTable], warehouse: Warehouse, dbt: Path | None) -> list[str]:
    """The modules that the stores import only when a step uses them."""
    schemas = [table.schema.partition(":")[0] for table in tables]
    validation = ["resources.ingestion.validation", *dict.fromkeys(schemas)] if tables else []
    driver = {"duckdb": ["adbc_driver_duckdb.dbapi"]}.get(warehouse.engine, [])
    return [*validation, *driver, *(["resources.dbt_runner"] if dbt else [])]


def _flat(assets: Iterable[Any]) -> Iterator[dg.AssetsDefinition]:
    for asset in assets:
        if isinstance(asset, list):  # not any sequence: Dagster's records are tuples
            yield from _flat(asset)
        elif isinstance(asset, dg.AssetSpec):
            yield dg.AssetsDefinition(specs=[asset])
        else:
            yield asset


def _domain(module: str) -> str:
    """`orders` of `assets.orders.definitions`."""
    *packages, name = module.split(".")
    return packages[-1] if packages else name


def _automation(
    assets: Sequence[dg.AssetsDefinition],
    conditioned: Sequence[dg.AssetKey],
    brought: Sequence[dg.AssetChecksDefinition],
    given: Sequence[dg.SensorDefinition],
) -> list[dg.SensorDefinition]:
    """A sensor for the conditions that none of the given ones evaluates, and a reconciler beside it.

    Args:
        assets: with the checks that are given.
        brought: checks that request nothing, for which alone no sensor is made.
    """
    graph = graph_of([*assets, *brought])
    evaluated: set[dg.AssetKey | dg.AssetCheckKey] = set()
    reconciled: set[dg.AssetKey] = set()
    for sensor in given:
        selection = sensor.asset_selection
        if selection is None:
            continue
        if isinstance(sensor, dg.AutomationConditionSensorDefinition):
            evaluated |= graph.resolve(selection) | graph.resolve_checks(selection)
        elif sensor.tags.get(RECONCILER):
            reconciled |= graph.resolve(selection)
    names = {sensor.name for sensor in given}

    def named(name: str) -> str:
        return f"{name}_of_the_others" if name in names else name

    left = [key for key in conditioned if key not in evaluated]
    # Dagster would put a check that none evaluates into a sensor of its own, which starts stopped.
    checks = sorted(key for key in graph.checks - evaluated if graph.condition(key))
    asking_nothing = {key for check in brought for key in check.check_keys}
    found: list[dg.SensorDefinition] = []
    if left or {*checks} - asking_nothing:
        found.append(
            automation_sensor(
                named("automation"),
                dg.AssetSelection.assets(*left).without_checks() | dg.AssetSelection.checks(*checks),
                "Evaluates the conditions of the assets, and asks for what they say.",
            )
        )
    if left := [key for key in conditioned if key not in reconciled]:
        found.append(reconciler(named("reconciler"), dg.AssetSelection.assets(*left)))
    return found


def _last_of(assets: Sequence[dg.AssetsDefinition], conditioned: Sequence[dg.AssetKey]) -> list[dg.AssetKey]:
    """Those from which no other of them is made."""
    specs = [spec for asset in assets for spec in asset.specs if spec.key in conditioned]
    read = {dep.asset_key for spec in specs for dep in spec.deps if dep.asset_key != spec.key}
    return [key for key in conditioned if key not in read]
