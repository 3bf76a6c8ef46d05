"""The same graph as Dagster's documentation shows it: its executor and automation sensors, and dbt by dagster-dbt.

Of this project it has what a user of plain Dagster would write too: the assets' functions, their stores, the landing
sensor and the conditions. `python -m benchmarks.latency` runs it under `dagster dev`.
"""

import json
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtCliResource, DbtProject, dbt_assets

from assets.flights import definitions as ours
from assets.flights import partitions as by
from assets.flights.dbt_models import daily_models as our_daily_models
from assets.flights.dbt_models import reference_models as our_reference_models
from assets.flights.sensors import FOLLOWING, automation_sensors
from assets.flights.tables import TABLES
from resources.dbt import connection_environment
from resources.dbt_assets import WarehouseTranslator
from resources.ingestion.sensor import landing_sensor
from tilth.automation.conditions import on_new_data

FOLDER = Path(__file__).parents[2] / "assets/flights/dbt"
project = DbtProject(project_dir=FOLDER, profiles_dir=FOLDER)
os.environ |= connection_environment(ours.defs.resources["warehouse"])
project.prepare_if_dev()
looked_up = [dg.AssetKey(["marts", "airlines"]), dg.AssetKey(["marts", "airports"])]
translator = WarehouseTranslator(on_new_data(), reference=looked_up)


@dbt_assets(
    manifest=project.manifest_path,
    select="tag:daily",
    partitions_def=by.days,
    backfill_policy=dg.BackfillPolicy.single_run(),
    dagster_dbt_translator=translator,
    pool="warehouse",
)
def daily_models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    days = context.partition_keys
    variables = json.dumps({"first_day": days[0], "last_day": days[-1]})
    yield from dbt.cli(["build", "--vars", variables], context=context).stream()


@dbt_assets(manifest=project.manifest_path, select="tag:reference", dagster_dbt_translator=translator, pool="warehouse")
def reference_models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    yield from dbt.cli(["build"], context=context).stream()


in_dbt = our_daily_models.keys | our_reference_models.keys
others = [asset for asset in ours.defs.assets or [] if isinstance(asset, dg.AssetsDefinition)]
automation = [
    dg.AutomationConditionSensorDefinition(
        sensor.name,
        target=sensor.asset_selection,
        default_status=dg.DefaultSensorStatus.RUNNING,
        use_user_code_server=True,  # the conditions have one of their own in them
    )
    for sensor in automation_sensors
]
# Dagster takes a module with two definitions for a mistake: `ours.defs` gets no name here.
defs = dg.Definitions(
    assets=[daily_models, reference_models, *[asset for asset in others if not asset.keys & in_dbt]],
    sensors=[landing_sensor(TABLES, FOLLOWING), *automation],
    resources={**(ours.defs.resources or {}), "dbt": DbtCliResource(project_dir=project)},
)
