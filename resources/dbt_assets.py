"""A dbt project as assets: what is made by day as one step of a range of days, what has no partitions as another.

    project = checked(dbt_project(Path(__file__).parent / "dbt", warehouse))
    daily = daily_dbt_assets(project, by=days, select="tag:daily", condition=on_new_data())
    whole = unpartitioned_dbt_assets(project, select="tag:reference", condition=on_new_data())

A dbt build is one transaction, committed when its tests have passed (resources/dbt_transaction.py): rows that fail them
are never readable, and nothing is recorded that is not.
"""

import json
from collections import deque
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
from dagster_dbt import DagsterDbtTranslator, DagsterDbtTranslatorSettings, DbtProject, dbt_assets

from resources.dbt import Dbt, DbtBuild, target_folder
from resources.dbt_rules import check_project, check_transactions
from resources.emptied import say_emptied
from resources.frames import by_partition
from resources.warehouse import Warehouse
from tilth._dagster.step_events import upstream_first
from tilth.versioning.content import data_version
from tilth.versioning.inputs import REFERENCE, inputs_metadata, note_made, saying_of_inputs
from tilth.versioning.partitions import set_data_versions

# dbt builds, of some 2 seconds each: one bad day of a year is found in 18.
MAX_ATTEMPTS = 24
ROW_COUNT = "dagster/partition_row_count"
_checked: set[Path] = set()


def checked(project: DbtProject, *, partitioned: str = "daily", whole: str = "reference") -> DbtProject:
    """The project, when all in it can be made into assets.

    Args:
        partitioned: the tag of the models that are made by day.
        whole: the tag of what has no partitions.

    Raises:
        ValueError: see `resources.dbt_rules`.
    """
    manifest = json.loads(project.manifest_path.read_bytes())
    check_project(manifest, partitioned=partitioned, whole=whole, strategy="replace_days")
    _checked.add(project.project_dir)
    return project


class WarehouseTranslator(DagsterDbtTranslator):
    """Asset keys as in the warehouse, `<schema>/<table>`; the day's column, meta `partition_expr`, as metadata.

    Args:
        condition: of all models, seeds and snapshots.
        freshness: of those that hold rows, for a view is as fresh as what it reads.
        reference: the assets that are looked up only, so that nothing is made again when they change.
    """

    def __init__(
        self,
        condition: dg.AutomationCondition | None = None,
        freshness: dg.FreshnessPolicy | None = None,
        reference: Collection[dg.AssetKey] = (),
    ) -> None:
        super().__init__(DagsterDbtTranslatorSettings(enable_code_references=False))
        self.condition, self.freshness, self.reference = condition, freshness, reference

    def get_asset_key(self, dbt_resource_props: Mapping[str, Any]) -> dg.AssetKey:
        if dbt_resource_props["resource_type"] == "source":
            return super().get_asset_key(dbt_resource_props)
        return dg.AssetKey([dbt_resource_props["schema"], dbt_resource_props["alias"]])

    def get_metadata(self, dbt_resource_props: Mapping[str, Any]) -> Mapping[str, Any]:
        metadata = dict(super().get_metadata(dbt_resource_props))
        if column := dbt_resource_props.get("meta", {}).get("partition_expr"):
            metadata["partition_expr"] = column
        return metadata

    def get_automation_condition(self, dbt_resource_props: Mapping[str, Any]) -> dg.AutomationCondition | None:  # noqa: ARG002
        return self.condition

    def get_asset_spec(self, manifest: Mapping[str, Any], unique_id: str, project: Any) -> dg.AssetSpec:
        spec = saying_of_inputs(super().get_asset_spec(manifest, unique_id, project), REFERENCE, self.reference)
        if unique_id in manifest["sources"] or manifest["nodes"][unique_id]["config"]["materialized"] == "view":
            return spec
        return spec.replace_attributes(freshness_policy=self.freshness)


def daily_dbt_assets(
    project: DbtProject,
    *,
    by: dg.TimeWindowPartitionsDefinition,
    select: str,
    condition: dg.AutomationCondition | None = None,
    freshness: dg.FreshnessPolicy | None = None,
    reference: Collection[dg.AssetKey] = (),
    name: str = "daily_models",
    pool: str | None = "warehouse",
) -> dg.AssetsDefinition:
    """The models that dbt selects by `select`, with their tests, by day: a step builds its range of days at once.

    A model replaces the rows of the days from the variable `first_day` to `last_day`, both as `2013-01-31`. Its meta
    `partition_expr` names the column, a date or text, that holds the day. Each day is recorded with the data version
    and the number of its rows.

    A day counts as made when its tests have passed. Where a range fails them, its halves are built again, and theirs:
    the days that pass are published and recorded, the others keep the rows that they had, and the step fails for them.

    Needs the resources `dbt` (`resources.dbt.Dbt`) and `warehouse`.

    Args:
        by: days, with keys as `2013-01-31`.
        condition, freshness, reference: as in `WarehouseTranslator`.
    """

    if project.project_dir not in _checked:  # or a build could leave nothing but its own days
        checked(project)

    @dbt_assets(
        manifest=project.manifest_path,
        select=select,
        project=project,
        name=name,
        partitions_def=by,
        backfill_policy=dg.BackfillPolicy.single_run(),
        dagster_dbt_translator=WarehouseTranslator(condition, freshness, reference),
        pool=pool,
    )
    def daily_models(
        context: dg.AssetExecutionContext, dbt: dg.ResourceParam[Dbt], warehouse: dg.ResourceParam[Warehouse]
    ) -> Iterator[Any]:
        days = context.partition_keys
        with target_folder() as target:

            def build(part: Sequence[str]) -> DbtBuild:
                return dbt.build(context, target, {"first_day": part[0], "last_day": part[-1]})

            def is_made(part: Sequence[str]) -> bool:
                built = build(part)
                if built.error and not built.failed_tests:  # such as a lock of somebody who reads
                    built = build(part)
                if built.error and not built.failed_tests:
                    raise built.error
                if built.error:
                    return False
                for key in upstream_first(context):
                    inputs = inputs_metadata(context, key, part)
                    made = _rows_made(context, warehouse, key, part)
                    for day, (version, metadata) in made.items():
                        tags = {"dagster/data_version": version}
                        metadata = {**metadata, **inputs[day]}
                        context.log_event(dg.AssetMaterialization(key, partition=day, metadata=metadata, tags=tags))
                    note_made(context, key, {day: version for day, (version, _) in made.items()})
                return True

            whole = build(days)
            if not whole.error:
                for key in context.selected_asset_keys:
                    made = _rows_made(context, warehouse, key, days)
                    set_data_versions(context, key, {day: version for day, (version, _) in made.items()})
                    for day, (_, metadata) in made.items():
                        context.add_asset_metadata(metadata, asset_key=key, partition_key=day)
                yield from whole.events
                return
            yield from whole.events
            if not whole.failed_tests:
                raise whole.error
            passing = passing_days(is_made, days)
        rejected = [day for day in days if day not in passing]
        raise dg.Failure(
            f"{len(rejected)} of {len(days)} days fail {', '.join(sorted(whole.failed_tests))}, or cannot be told from "
            f"such days: {', '.join(rejected[:20])}. The tables hold of them what they held; of a day that never "
            "passed, nothing. Land them again corrected, or correct the test, and run them again. The other "
            f"{len(passing)} days are made and recorded.",
            allow_retries=False,
        )

    return daily_models


def unpartitioned_dbt_assets(
    project: DbtProject,
    *,
    select: str,
    condition: dg.AutomationCondition | None = None,
    freshness: dg.FreshnessPolicy | None = None,
    name: str = "reference_models",
    pool: str | None = "warehouse",
) -> dg.AssetsDefinition:
    """What dbt selects by `select` and makes whole, with its tests, in one step.

    A model that fails, or a test of which does, stays as it was with all that is made from it, and the step fails for
    them; the others are made. Needs the resource `dbt` (`resources.dbt.Dbt`).
    """

    check_transactions(json.loads(project.manifest_path.read_bytes()))

    @dbt_assets(
        manifest=project.manifest_path,
        select=select,
        project=project,
        name=name,
        backfill_policy=dg.BackfillPolicy.single_run(),  # so that a backfill of days takes it along
        dagster_dbt_translator=WarehouseTranslator(condition, freshness),
        pool=pool,
    )
    def models(context: dg.AssetExecutionContext, dbt: dg.ResourceParam[Dbt]) -> Iterator[Any]:
        with target_folder() as target:
            whole = build = dbt.build(context, target)
            # A check is told of once, by the last build that its model is in.
            events = {_subject(event): event for event in build.events}
            failed: set[str] = set()
            for _ in range(MAX_ATTEMPTS):
                if not build.error or failed.issuperset(build.failed_models):
                    break
                failed.update(build.failed_models)
                build = dbt.build(context, target, without=sorted(failed))
                events |= {_subject(event): event for event in build.events}
            yield from events.values()
            if whole.error:
                raise whole.error

    return models


def _subject(event: Any) -> Any:
    return (event.asset_key, event.check_name) if isinstance(event, dg.AssetCheckResult) else id(event)


def _rows_made(
    context: dg.AssetExecutionContext, warehouse: Warehouse, key: dg.AssetKey, days: Sequence[str]
) -> dict[str, tuple[str, dict[str, Any]]]:
    """Of each day, the data version of its rows and the metadata that tells of them."""
    column = str(context.assets_def.specs_by_key[key].metadata["partition_expr"])
    parts = by_day(warehouse, key, column, days)
    emptied = say_emptied(context, key, {day: count for day, (_, count) in parts.items()})
    return {day: (version, {ROW_COUNT: count, **emptied.get(day, {})}) for day, (version, count) in parts.items()}


def by_day(warehouse: Warehouse, key: dg.AssetKey, column: str, days: Sequence[str]) -> dict[str, tuple[str, int]]:
    """Of each day, the data version of its rows, which a warehouse gives in no order, and their number.

    Raises:
        ValueError: the column is neither date nor text.
    """
    rows = warehouse.read(".".join(key.path), window=(column, days))
    if not (pa.types.is_date(kind := rows[column].type) or pa.types.is_string(kind)):
        raise ValueError(
            f"{key.to_user_string()}, column {column}: {kind} does not tell the day, and a build would add its rows "
            "again and again. Cast it to date in the model."
        )
    parts = by_partition(rows, [column], days)
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
