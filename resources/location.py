"""A code location in one call: assets in, everything out that the platform does for them."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg

from resources.alert_log import AlertLog
from resources.lake import Lake
from resources.lake_io import LakeIOManager
from resources.lake_maintenance import lake_maintenance
from resources.landing import LandingZone
from resources.registry import ModelIOManager, ModelRegistry
from resources.warehouse import Warehouse
from resources.warehouse_io import WarehouseIOManager, refuse_shared_tables
from tilth.automation.reconciler import RECONCILER, sweep
from tilth.automation.sensor import automation_sensor
from tilth.execution.executor import executor_of
from tilth.execution.pools import pool_limits
from tilth.observability.alerts import alert_sensor
from tilth.observability.freshness import partition_lag_checks
from tilth.settings import Deployment
from tilth.versioning.code import with_code_versions

# Dagster refuses an automation sensor over more.
_MOST_PER_SENSOR = 500
_WAREHOUSE = "warehouse_io"


def code_location(
    module: str,
    *,
    assets: Iterable[Any],
    checks: Iterable[dg.AssetChecksDefinition] = (),
    jobs: Iterable[Any] = (),
    schedules: Iterable[Any] = (),
    sensors: Iterable[dg.SensorDefinition] = (),
    resources: Mapping[str, Any] | None = None,
    executor: dg.ExecutorDefinition | None = None,
    pools: Mapping[str, int] | None = None,
) -> dg.Definitions:
    """The definitions of a domain, with all that the platform brings, on the stores that TILTH_* variables name.

    To `defs` in the module that workspace.yaml names: `defs = code_location(__name__, assets=[orders, revenue])`.

    - Every asset that has an automation condition is evaluated by a running sensor, and the reconciler finds requests
      for it that were lost.
    - Those of them from which nothing further is made by a condition are watched for lag (`partition_lag`).
    - Frames are stored in the lake; with `io_manager_key="warehouse_io"` in the warehouse, and models with "model_io".
    - Code versions, alerts, the lake's maintenance, and the executor of the deployment.

    What is given goes before what is brought: a resource of the same name, sensors that look at an asset's condition
    already, a job or sensor of the same name.

    Args:
        module: the module's `__name__`; its package is the domain, by whose name its alerts are kept.
        assets: `dg.AssetsDefinition`, `dg.AssetSpec`, or lists of them, as `dg.load_assets_from_package_module` makes.
        executor: of steps, where it is not the deployment's.
        pools: how many steps at once may be in a pool, by its name. The pool "warehouse" takes one where that is a
            DuckDB file, which one process writes, and four elsewhere.

    Raises:
        ValueError: two assets with one table in the warehouse; a pool of no asset.
    """
    deployment = Deployment()
    lake, warehouse = Lake.of(deployment), Warehouse(deployment.warehouse_uri)
    own = list(_flat(assets))
    steps = [asset for asset in own if asset.is_executable and isinstance(asset.node_def, dg.OpDefinition)]
    refuse_shared_tables(own, warehouse, _WAREHOUSE)
    given, checks = list(sensors), list(checks)
    conditioned = [spec.key for asset in own for spec in asset.specs if spec.automation_condition]
    given += _automation(own, conditioned, given)
    names = {sensor.name for sensor in given}
    if conditioned and "partition_lag" not in names:
        lag_checks, lag_sensor = partition_lag_checks(_last_of(own, conditioned))
        checks += lag_checks
        given.append(lag_sensor)
    log = AlertLog(lake, _domain(module))
    if "alerts" not in names:
        given.append(alert_sensor(log, deployment.alerts_uri))
    jobs = list(jobs)
    if "lake_maintenance" not in {job.name for job in jobs}:
        # Models do not name the versions that they were trained on yet; the retention of more than a year holds them.
        jobs.append(lake_maintenance(lake, kept=lambda _: {}, also=[log.table]))
    stores = {
        "landing": LandingZone.of(deployment),
        "warehouse": warehouse,
        _WAREHOUSE: WarehouseIOManager(warehouse),
        "io_manager": LakeIOManager(lake),
        "model_io": ModelIOManager(ModelRegistry.of(deployment, [], [])),
    }
    limits = {"warehouse": 1 if warehouse.engine == "duckdb" else 4} if _uses(own, "warehouse") else {}
    return dg.Definitions(
        assets=[*with_code_versions(steps), *(asset for asset in own if asset not in steps)],
        asset_checks=checks,
        jobs=jobs,
        schedules=list(schedules),
        sensors=given,
        resources={**stores, **(resources or {})},
        executor=executor or executor_of(deployment, module),
        metadata=pool_limits(**{**limits, **(pools or {})}),
    )


def _flat(assets: Iterable[Any]) -> Iterator[dg.AssetsDefinition]:
    for asset in assets:
        if isinstance(asset, list):  # not any sequence: Dagster's records are tuples
            yield from _flat(asset)
        elif isinstance(asset, dg.AssetSpec):
            yield dg.AssetsDefinition(specs=[asset])
        else:
            yield asset


def _domain(module: str) -> str:
    """`flights` of `assets.flights.definitions`."""
    *packages, name = module.split(".")
    return packages[-1] if packages else name


def _automation(
    assets: Sequence[dg.AssetsDefinition], conditioned: Sequence[dg.AssetKey], given: Sequence[dg.SensorDefinition]
) -> list[dg.SensorDefinition]:
    """Sensors for the conditions that none of the given ones evaluates, and reconcilers beside them."""
    theirs: set[dg.AssetKey] = set()
    reconciled: set[dg.AssetKey] = set()
    for sensor in given:
        selection = sensor.asset_selection
        if selection is None:
            continue
        if isinstance(sensor, dg.AutomationConditionSensorDefinition):
            theirs |= selection.resolve(assets)
        elif sensor.tags.get(RECONCILER):
            reconciled |= selection.resolve(assets)
    left = [key for key in conditioned if key not in theirs]
    parts = [left[start : start + _MOST_PER_SENSOR] for start in range(0, len(left), _MOST_PER_SENSOR)]
    found: list[dg.SensorDefinition] = [
        automation_sensor(
            "automation" if len(parts) == 1 else f"automation_{number}",
            dg.AssetSelection.assets(*part),
            "Evaluates the conditions of the assets, and asks for what they say.",
        )
        for number, part in enumerate(parts, 1)
    ]
    if left := [key for key in conditioned if key not in reconciled]:
        found.append(sweep("reconciler", dg.AssetSelection.assets(*left)))
    return found


def _last_of(assets: Sequence[dg.AssetsDefinition], conditioned: Sequence[dg.AssetKey]) -> list[dg.AssetKey]:
    """Those from which no other of them is made."""
    read = {dep.asset_key for asset in assets for spec in asset.specs for dep in spec.deps if spec.key in conditioned}
    return [key for key in conditioned if key not in read]


def _uses(assets: Iterable[dg.AssetsDefinition], pool: str) -> bool:
    return any(pool in asset.node_def.pools for asset in assets if asset.is_executable)
