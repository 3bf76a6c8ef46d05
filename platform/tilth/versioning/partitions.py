"""A data version for each partition of a step that makes several, and partitions recorded before their step ends.

Dagster records one data version per asset and step, so a day made alone and the same day made in a range of thirty
would differ, and what is downstream would be made again for nothing; and it stores and records all partitions of a step
at its end or none. Dagster has no public way to say either.
"""

from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from tilth._dagster.step_events import Step, output_name, step_of, with_tags, with_version

_Step = tuple[str, str, dg.AssetKey]
_recorded: dict[_Step, dict[str, str]] = {}
_made_before_the_end: dict[_Step, set[str]] = {}


def set_data_versions(
    context: dg.AssetExecutionContext | dg.OutputContext, key: dg.AssetKey, versions: Mapping[str, str]
) -> None:
    """Record the data version of each of these partitions of `key` with the materializations of this step."""
    _recorded.setdefault(_of(step_of(context), key), {}).update(versions)


def record_partition(
    context: dg.AssetExecutionContext, planned: dg.AssetMaterialization, made: dg.MaterializeResult[Any]
) -> None:
    """Store a partition's value, where it has one, by the asset's IO manager, then record it, both now.

    The IO manager sees a step of this one partition. What it says of it (metadata, data version) is recorded as well;
    what `made` says goes before it.

    Args:
        planned: what would be recorded of the partition, of `tilth._dagster.step_events.planned_materializations`.

    Raises:
        Exception: what the IO manager raises; then nothing is recorded.
    """
    step, key, partition = step_of(context), context.asset_key, planned.partition or ""
    said = step.store(output_name(context), key, partition, made)
    version = _recorded.get(_of(step, key), {}).pop(str(partition), None)
    version = made.data_version.value if made.data_version else version
    event = planned.with_metadata({**planned.metadata, **said, **(made.metadata or {})})
    context.log_event(with_tags(with_version(event, version) if version else event, made.tags or {}))


def end_without_recording(context: dg.AssetExecutionContext, partitions: Iterable[str]) -> None:
    """At the step's end, record none of these partitions of its one asset: they were recorded before.

    To be called last, by a step that then succeeds.
    """
    _made_before_the_end[_of(step_of(context), context.asset_key)] = set(partitions)


def with_own_versions(
    step: Step, key: dg.AssetKey, events: list[dg.AssetMaterialization]
) -> list[dg.AssetMaterialization]:
    """The materializations that are not recorded yet, each with the data version that its partition was given."""
    versions, before = _recorded.pop(_of(step, key), {}), _made_before_the_end.pop(_of(step, key), set())
    changed, last = [], None
    for event in events:
        if event.partition in before:
            continue
        if version := versions.get(str(event.partition)):
            event, last = with_version(event, version), version
        changed.append(event)
    if last is not None:
        # What other assets of the same step are compared with; Dagster warns where it is not the one recorded.
        step.set_data_version(key, last)
    return changed


def _of(step: Step, key: dg.AssetKey) -> _Step:
    return step.run_id, step.key, key
