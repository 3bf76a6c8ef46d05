"""The dbt project as assets: daily models by day, reference models whole."""

import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtCliResource, dbt_assets

from assets.flights import partitions as by
from assets.flights.freshness import DAILY
from resources.dbt import dbt_project
from tilth.automation import on_new_data

project = dbt_project(Path(__file__).parent / "dbt")

# What the daily models' tests look up.
REFERENCE = dg.AssetSelection.assets(["marts", "airlines"], ["marts", "airports"])


class FlightsTranslator(DagsterDbtTranslator):
    """Asset keys as in the warehouse, `<schema>/<table>`; everything made when its inputs come."""

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        if dbt_resource_props["resource_type"] == "source":
            return super().get_asset_key(dbt_resource_props)
        return dg.AssetKey([dbt_resource_props["schema"], dbt_resource_props["alias"]])

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        metadata = dict(super().get_metadata(dbt_resource_props))
        if column := dbt_resource_props.get("meta", {}).get("partition_expr"):
            metadata["partition_expr"] = column
        return metadata

    def get_automation_condition(self, dbt_resource_props: Mapping[str, Any]) -> dg.AutomationCondition:  # noqa: ARG002
        return on_new_data(reference=REFERENCE)

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        spec = super().get_asset_spec(manifest, unique_id, project)
        if spec.key.path[0] == "marts" and "daily" in manifest["nodes"].get(unique_id, {}).get("tags", []):
            return spec.replace_attributes(freshness_policy=DAILY)
        return spec


translator = FlightsTranslator(DagsterDbtTranslatorSettings(enable_code_references=False))


@dbt_assets(
    manifest=project.manifest_path,
    select="tag:daily",
    project=project,
    partitions_def=by.days,
    backfill_policy=by.one_step,
    dagster_dbt_translator=translator,
    pool="warehouse",
)
def daily_models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    """The daily models and their tests for the step's range of days, in one dbt invocation."""
    days = context.partition_key_range
    variables = {"first_day": days.start, "last_day": days.end}
    yield from dbt.cli(["build", "--vars", json.dumps(variables)], context=context).stream()


@dbt_assets(
    manifest=project.manifest_path,
    select="tag:reference",
    project=project,
    dagster_dbt_translator=translator,
    pool="warehouse",
)
def reference_models(context: dg.AssetExecutionContext, dbt: DbtCliResource) -> Iterator[Any]:
    """The reference tables' models and their tests."""
    yield from dbt.cli(["build"], context=context).stream()
