"""The dbt project as assets: daily models by day, reference models whole."""

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import (
    DagsterDbtTranslator,
    DagsterDbtTranslatorSettings,
    DbtCliInvocation,
    DbtCliResource,
    dbt_assets,
)

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
    """The daily models and their tests for the step's range of days, in one dbt invocation.

    A day counts as made when its tests have passed. Where a range fails them, its halves are built again, and theirs:
    the days that pass are recorded one by one, and the step fails for the others.
    """

    def build(days: Sequence[str]) -> DbtCliInvocation:
        variables = {"first_day": days[0], "last_day": days[-1]}
        return dbt.cli(["build", "--vars", json.dumps(variables)], context=context, raise_on_error=False)

    days = context.partition_keys
    whole = build(days)
    # dbt reports a model before it runs the model's tests; what is downstream must not hear of it before they passed.
    made, failed = [], []
    for event in whole.stream():
        if isinstance(event, dg.Output):
            made.append(event)
            continue
        if (
            isinstance(event, dg.AssetCheckResult)
            and not event.passed
            and event.severity == dg.AssetCheckSeverity.ERROR
        ):
            failed.append(event.check_name)
        yield event
    if whole.is_successful():
        yield from made
        return
    if not failed:
        raise whole.get_error() or RuntimeError("dbt failed and said nothing; look at its log in the run's output.")
    passing = passing_days(lambda part: build(part).wait().is_successful(), days)
    for day in passing:
        for key in context.selected_asset_keys:
            context.log_event(dg.AssetMaterialization(key, partition=day))
    rejected = [day for day in days if day not in passing]
    raise dg.Failure(
        f"{len(rejected)} of {len(days)} days fail {', '.join(sorted(failed))}: {', '.join(rejected[:20])}. Their rows "
        "are in the marts, but nothing is made of them. Land them again corrected, or correct the test, and run "
        f"these days again. The other {len(passing)} days are recorded.",
        allow_retries=False,
    )


def passing_days(passes: Callable[[Sequence[str]], bool], days: Sequence[str]) -> list[str]:
    """Of days that do not pass together, those that do on their own, found by halving."""
    if len(days) == 1:
        return []
    halves = days[: len(days) // 2], days[len(days) // 2 :]
    return [day for half in halves for day in (half if passes(half) else passing_days(passes, half))]


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
