"""The dbt project as assets: daily models by day, reference models whole."""

from pathlib import Path

import dagster as dg

from assets.flights import partitions as by
from assets.flights.freshness import DAILY, WEEKLY
from resources.dbt import dbt_project
from resources.dbt_assets import checked, daily_dbt_assets, unpartitioned_dbt_assets
from resources.warehouse import Warehouse
from tilth.automation.conditions import on_new_data
from tilth.settings import Deployment

project = checked(dbt_project(Path(__file__).parent / "dbt", Warehouse(Deployment().warehouse_uri)))

daily_models = daily_dbt_assets(
    project,
    by=by.days,
    select="tag:daily",
    condition=on_new_data(),
    # What the tests look up.
    reference=[dg.AssetKey(["marts", "airlines"]), dg.AssetKey(["marts", "airports"])],
    freshness=DAILY,
)
reference_models = unpartitioned_dbt_assets(project, select="tag:reference", condition=on_new_data(), freshness=WEEKLY)
