"""The dbt project as assets: daily models by day, reference models whole."""

import json
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject, dbt_assets

from assets.flights import partitions as by
from assets.flights.freshness import DAILY, WEEKLY
from assets.flights.recorded_rows import recorded_rows
from resources.dbt import Dbt, DbtBuild, dbt_project, target_folder
from resources.dbt_rules import check_project
from resources.emptied import say_emptied
from resources.frames import by_partition
from resources.warehouse import Warehouse
from tilth.automation.conditions import on_new_data
from tilth.settings import Deployment
from tilth.versioning.content import data_version
from tilth.versioning.inputs import REFERENCE, inputs_metadata, saying_of_inputs
from tilth.versioning.partitions import set_data_versions


def checked(project: DbtProject) -> DbtProject:
    """The project, when all in it can be made into assets.

    Raises:
        ValueError: see `resources.dbt_rules`.
    """
    manifest = json.loads(project.manifest_path.read_bytes())
    check_project(manifest, partitioned="daily", whole="reference", strategy="replace_days")
    return project


project = checked(dbt_project(Path(__file__).parent / "dbt", Warehouse(Deployment().warehouse_uri)))

# dbt builds, of some 2 seconds each: one bad day of a year is found in 18.
MAX_ATTEMPTS = 24
ROW_COUNT = "dagster/partition_row_count"

# What the daily models' tests look up.
LOOKED_UP = {dg.AssetKey(["marts", "airlines"]), dg.AssetKey(["marts", "airports"])}


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
        return on_new_data()

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        spec = saying_of_inputs(super().get_asset_spec(manifest, unique_id, project), REFERENCE, LOOKED_UP)
        if spec.key.path[0] != "marts":
            return spec
        daily = "daily" in manifest["nodes"][unique_id]["tags"]
        return spec.replace_attributes(freshness_policy=DAILY if daily else WEEKLY)


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
def daily_models(
    context: dg.AssetExecutionContext, dbt: dg.ResourceParam[Dbt], warehouse: dg.ResourceParam[Warehouse]
) -> Iterator[Any]:
    """The daily models and their tests for the step's range of days, in one dbt build.

    A day counts as made when its tests have passed. Where a range fails them, its halves are built again, and theirs:
    the days that pass are recorded one by one; the others get the rows back that they had when they last were, and the
    step fails for them.
    """
    days = context.partition_keys
    columns = {key: str(spec.metadata["partition_expr"]) for key, spec in context.assets_def.specs_by_key.items()}
    tables = {key: columns[key] for key in sorted(context.selected_asset_keys) if key.path[0] == "marts"}

    with target_folder() as target:
        with recorded_rows(warehouse, context.instance, tables, days) as put_back:

            def build(part: Sequence[str]) -> DbtBuild:
                return dbt.build(context, target, {"first_day": part[0], "last_day": part[-1]})

            whole = build(days)
            # dbt reports a model before it runs the model's tests; what is downstream must hear of it only after them.
            made = []
            for event in whole.events:
                if isinstance(event, dg.Output):
                    made.append(event)
                    continue
                yield event
            if not whole.error:
                for key in context.selected_asset_keys:
                    parts = by_day(warehouse, key, columns[key], days)
                    set_data_versions(context, key, {day: version for day, (version, _) in parts.items()})
                    emptied = say_emptied(context, key, {day: count for day, (_, count) in parts.items()})
                    for day, (_, count) in parts.items():
                        metadata = {ROW_COUNT: count, **emptied.get(day, {})}
                        context.add_asset_metadata(metadata, asset_key=key, partition_key=day)
                yield from made
                return
            if not whole.failed_tests:
                raise whole.error

            passing = passing_days(lambda part: build(part).error is None, days)
            rejected = [day for day in days if day not in passing]
            put_back(rejected)
            for key in context.selected_asset_keys:
                inputs = inputs_metadata(context, key, passing)
                parts = by_day(warehouse, key, columns[key], passing)
                emptied = say_emptied(context, key, {day: count for day, (_, count) in parts.items()})
                for day, (version, count) in parts.items():
                    tags = {"dagster/data_version": version}
                    metadata = {ROW_COUNT: count, **emptied.get(day, {}), **inputs[day]}
                    context.log_event(dg.AssetMaterialization(key, partition=day, metadata=metadata, tags=tags))
        failed = ", ".join(sorted(whole.failed_tests))
        raise dg.Failure(
            f"{len(rejected)} of {len(days)} days fail {failed}, or cannot be told from such days: "
            f"{', '.join(rejected[:20])}. The marts hold of them what was last recorded; of a day that never passed, "
            "nothing. Land them again corrected, or correct the test, and run them again. The other "
            f"{len(passing)} days are made and recorded.",
            allow_retries=False,
        )


def rows_of(warehouse: Warehouse, key: dg.AssetKey, column: str, days: Sequence[str]) -> pa.Table | None:
    """The table's rows of these days; None where there is no such table."""
    table = ".".join(key.path)
    return warehouse.read(table, window=(column, days)) if warehouse.exists(table) else None


def by_day(warehouse: Warehouse, key: dg.AssetKey, column: str, days: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Of each day, the data version of its rows, which a warehouse gives in no order, and their number."""
    rows = rows_of(warehouse, key, column, days)
    if rows is not None and not (pa.types.is_date(kind := rows[column].type) or pa.types.is_string(kind)):
        raise ValueError(
            f"{key.to_user_string()}, column {column}: {kind} does not tell the day, and a build would add its rows "
            "again and again. Cast it to date in the model."
        )
    parts = {} if rows is None else by_partition(rows, [column], days)
    return {day: (data_version(part, ordered=False), part.num_rows) for day, part in parts.items()}


def passing_days(
    passes: Callable[[Sequence[str]], bool], days: Sequence[str], attempts: int = MAX_ATTEMPTS
) -> list[str]:
    """Of days that do not pass together, those that do in a part of them, found by halving.

    After `attempts`, days whose own part never passed count as failing: a fault of all days is not tried on each.
    """
    passing: list[str] = []
    failing = deque([days])
    while failing and attempts > 0:
        part = failing.popleft()
        for half in (part[: len(part) // 2], part[len(part) // 2 :]) if len(part) > 1 else ():
            attempts -= 1
            if passes(half):
                passing += half
            else:
                failing.append(half)
    return sorted(passing)


@dbt_assets(
    manifest=project.manifest_path,
    select="tag:reference",
    project=project,
    backfill_policy=by.one_step,  # so that a backfill of days takes it along
    dagster_dbt_translator=translator,
    pool="warehouse",
)
def reference_models(context: dg.AssetExecutionContext, dbt: dg.ResourceParam[Dbt]) -> Iterator[Any]:
    """The reference tables' models and their tests."""
    with target_folder() as target:
        yield from dbt.build(context, target).stream()
