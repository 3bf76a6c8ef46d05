"""A data version for each partition of a step that makes several, and partitions recorded before their step ends.

Dagster records one data version per asset and step, so a day made alone and the same day made in a range of thirty
would differ, and what is downstream would be made again for nothing; and it stores and records all partitions of a step
at its end or none. Dagster has no public way to say either: this file wraps the one function that makes a step's asset
events, and docs/upgrading.md names it.
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_IS_USER_PROVIDED_TAG, DATA_VERSION_TAG
from dagster._core.definitions.utils import NoValueSentinel
from dagster._core.execution.plan import execute_step
from dagster._core.execution.plan.outputs import StepOutputHandle

_Step = tuple[str, str, dg.AssetKey]
_recorded: dict[_Step, dict[str, str]] = {}
_made_before_the_end: dict[_Step, set[str]] = {}
_events_of_step = execute_step._get_output_asset_events


def set_data_versions(
    context: dg.AssetExecutionContext | dg.OutputContext, key: dg.AssetKey, versions: Mapping[str, str]
) -> None:
    """Record the data version of each of these partitions of `key` with the materializations of this step."""
    step = context.step_context if isinstance(context, dg.OutputContext) else context.get_step_execution_context()
    _recorded.setdefault((step.run_id, step.step.key, key), {}).update(versions)


def planned_materializations(context: dg.AssetExecutionContext) -> dict[str, dg.AssetMaterialization]:
    """By partition of the step's one asset, what Dagster would record of it now: its tags, and the metadata that is
    the same for all, but no content.
    """
    step, name = context.get_step_execution_context(), _output_name(context)
    output = step.get_output_context(StepOutputHandle(step.step.key, name))
    events = execute_step._get_output_asset_events(
        context.asset_key,
        output.asset_partition_keys,
        dg.Output(None, name),
        step.op_def.output_def_named(name),
        {},
        step,
        context.assets_def.execution_type,
    )
    return {str(event.partition): event for event in events if isinstance(event, dg.AssetMaterialization)}


def record_partition(
    context: dg.AssetExecutionContext, planned: dg.AssetMaterialization, made: dg.MaterializeResult[Any]
) -> None:
    """Store a partition's value, where it has one, by the asset's IO manager, then record it, both now.

    The IO manager sees a step of this one partition. What it says of it (metadata, data version) is recorded as well;
    what `made` says goes before it.

    Raises:
        Exception: what the IO manager raises; then nothing is recorded.
    """
    step, key, partition = context.get_step_execution_context(), context.asset_key, str(planned.partition)
    stored: Mapping[str, Any] = {}
    if made.value is not NoValueSentinel:
        handle = StepOutputHandle(step.step.key, _output_name(context))
        output = step.get_output_context(handle, made.metadata)
        output._asset_partitions_subset = output.asset_partitions_def.subset_with_partition_keys([partition])
        output._partition_key = planned.partition
        for _ in step.get_io_manager(handle).handle_output(output, made.value) or ():
            pass  # one that is a generator stores while it is read
        stored = output.consume_logged_metadata()
    version = _recorded.get((step.run_id, step.step.key, key), {}).pop(partition, None)
    version = made.data_version.value if made.data_version else version
    of_partition = step.get_asset_metadata(key, partition) or {}
    event = planned.with_metadata({**planned.metadata, **stored, **of_partition, **(made.metadata or {})})
    context.log_event(_with_tags(_with_version(event, version) if version else event, made.tags or {}))


def end_without_recording(context: dg.AssetExecutionContext, partitions: Iterable[str]) -> None:
    """At the step's end, record none of these partitions of its one asset: they were recorded before.

    To be called last, by a step that then succeeds.
    """
    step = context.get_step_execution_context()
    _made_before_the_end[step.run_id, step.step.key, context.asset_key] = set(partitions)


def _output_name(context: dg.AssetExecutionContext) -> str:
    return context.assets_def.get_output_name_for_asset_key(context.asset_key)


def _with_own_versions(
    asset_key: dg.AssetKey,
    asset_partitions: Any,
    output: Any,
    output_def: Any,
    io_manager_metadata: Any,
    step_context: Any,
    execution_type: Any,
) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    step = (step_context.run_id, step_context.step.key, asset_key)
    versions = _recorded.pop(step, {})
    if before := _made_before_the_end.pop(step, None):
        asset_partitions = [partition for partition in asset_partitions if partition not in before]
        if not asset_partitions:
            return  # no partitions are to Dagster an asset without any
    last: dg.DataVersion | None = None
    for event in _events_of_step(
        asset_key, asset_partitions, output, output_def, io_manager_metadata, step_context, execution_type
    ):
        if isinstance(event, dg.AssetMaterialization) and (version := versions.get(str(event.partition))):
            event = _with_version(event, version)
            last = dg.DataVersion(version)
        yield event
    if last is not None:
        # What other assets of the same step are compared with; Dagster warns where it is not the one recorded.
        step_context.set_data_version(asset_key, last)


def _with_version(event: dg.AssetMaterialization, version: str) -> dg.AssetMaterialization:
    return _with_tags(event, {DATA_VERSION_TAG: version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"})


def _with_tags(event: dg.AssetMaterialization, tags: Mapping[str, str]) -> dg.AssetMaterialization:
    return dg.AssetMaterialization(
        asset_key=event.asset_key,
        description=event.description,
        metadata=event.metadata,
        partition=event.partition,
        tags={**(event.tags or {}), **tags},
    )


execute_step._get_output_asset_events = _with_own_versions
