"""Of each materialization, which versions of its inputs it was made from.

Dagster notes one version per input and step, which says nothing of the single days of a step over a year, nor of days
of a window of more than a hundred. Here each partition carries the versions of exactly the upstream partitions that it
reads, as metadata `inputs`: by them `tilth.automation.reconciler` finds what was made from older ones, and
`tilth.versioning.explain` says what set a partition off.

The event log's storage, a step's context and the function that makes a step's asset events, which this file wraps, are
not Dagster's public API: docs/upgrading.md names it.
"""

import hashlib
import json
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import dagster as dg
from dagster._core.execution.plan import execute_step

import tilth.versioning.partitions  # noqa: F401 - wraps the same function, first: an input's version is its own
from tilth._dagster.event_log import DATA_VERSION, NO_PARTITION, present_versions

INPUTS = "inputs"

# Of more upstream partitions than this, one hash over their versions is kept.
LISTED = 400
ALL = "all"

Inputs = dict[str, dict[str, str]]
"""By upstream asset and its partition, the data version."""


def upstream_partitions(
    graph: Any, key: dg.AssetKey, partitions: Iterable[str]
) -> dict[str, dict[dg.AssetKey, list[str]]]:
    """By partition of the asset, those that it reads of each asset directly upstream of it.

    `graph` is a repository's or a job's `asset_graph`. To be called in a `dg.partition_loading_context` of the
    instance, which keeps the keys of dynamic partitions.
    """
    own = graph.get(key).partitions_def
    reads: dict[str, dict[dg.AssetKey, list[str]]] = {partition: {} for partition in partitions}
    for parent in sorted(graph.get(key).parent_keys):
        theirs = graph.get(parent).partitions_def
        mapping = graph.get_partition_mapping(key, parent_asset_key=parent) if theirs else None
        # Dagster maps one partition at a time in 0.1 ms, which for a thousand assets of a thousand days is minutes.
        same = own == theirs and _is_one_to_one(mapping)
        for partition, read in reads.items():
            if mapping is None or same:
                read[parent] = [NO_PARTITION if mapping is None else partition]
                continue
            subset = own.subset_with_partition_keys([partition]) if own else None
            mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, own, theirs)
            read[parent] = list(mapped.partitions_subset.get_partition_keys())
    return reads


def _is_one_to_one(mapping: dg.PartitionMapping | None) -> bool:
    if isinstance(mapping, dg.TimeWindowPartitionMapping):
        return mapping.start_offset == mapping.end_offset == 0
    return isinstance(mapping, dg.IdentityPartitionMapping)


def recorded_inputs(instance: dg.DagsterInstance, key: dg.AssetKey, numbers: Sequence[int]) -> dict[str, Inputs]:
    """By partition, the inputs that these materializations carry; what carries none is left out."""
    found: dict[str, Inputs] = {}
    for start in range(0, len(numbers), LISTED):
        some = list(numbers[start : start + LISTED])
        records = instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=some), limit=len(some)).records
        for record in records:
            event = record.asset_materialization
            if event and isinstance(inputs := event.metadata.get(INPUTS), dg.JsonMetadataValue):
                found[event.partition or NO_PARTITION] = inputs.data  # pyright: ignore[reportArgumentType]
    return found


def inputs_of(reads: Mapping[dg.AssetKey, Sequence[str]], versions: Mapping[dg.AssetKey, Mapping[str, str]]) -> Inputs:
    """The versions of what a partition reads; what is not there is left out."""
    inputs: Inputs = {}
    for parent, partitions in reads.items():
        known = {p: versions[parent][p] for p in sorted(partitions) if p in versions[parent]}
        if len(known) > LISTED:
            known = {ALL: hashlib.sha256(json.dumps(known).encode()).hexdigest()[:16]}
        inputs[parent.to_user_string()] = known
    return inputs


def step_inputs(
    step: Any, key: dg.AssetKey, partitions: Sequence[str], own: Mapping[dg.AssetKey, Mapping[str, str]]
) -> dict[str, Inputs]:
    """By partition of what a step makes, its inputs as they were when the step began.

    Args:
        step: Dagster's context of the step.
        own: the versions of what the same step makes, which other assets of it read.
    """
    graph, instance = step.job_def.asset_layer.asset_graph, step.instance
    versions: dict[dg.AssetKey, Mapping[str, str]] = {}
    for parent in graph.get(key).parent_keys:
        if parent in own:
            versions[parent] = {**present_versions(instance, parent), **own[parent]}
        elif (seen := step.maybe_fetch_and_get_input_asset_version_info(parent)) is not None:
            versions[parent] = present_versions(instance, parent, seen.storage_id)
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        reads = upstream_partitions(graph, key, partitions)
    return {
        partition: inputs_of({parent: read[parent] for parent in versions}, versions)
        for partition, read in reads.items()
    }


def inputs_metadata(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dict[str, dg.JsonMetadataValue]]:
    """By partition, the metadata for materializations that an asset logs by itself; others get it without asking."""
    step = context.get_step_execution_context()
    inputs = step_inputs(step, key, partitions, _made_by(step))
    return {partition: {INPUTS: dg.MetadataValue.json(found)} for partition, found in inputs.items()}


# By run and step, the versions of what it has made so far.
_own: dict[tuple[str, str], dict[dg.AssetKey, dict[str, str]]] = {}
_events_of_output = execute_step._get_output_asset_events


def _made_by(step: Any) -> dict[dg.AssetKey, dict[str, str]]:
    this = (step.run_id, step.step.key)
    for other in [one for one in _own if one != this]:
        del _own[other]
    return _own.setdefault(this, {})


def _with_inputs(asset_key: dg.AssetKey, *arguments: Any) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    step = next(argument for argument in arguments if hasattr(argument, "run_id"))
    events = list(_events_of_output(asset_key, *arguments))
    made = [event for event in events if isinstance(event, dg.AssetMaterialization)]
    own = _made_by(step)
    inputs = step_inputs(step, asset_key, [event.partition or NO_PARTITION for event in made], own)
    own[asset_key] = {event.partition or NO_PARTITION: (event.tags or {}).get(DATA_VERSION, "") for event in made}
    for event in events:
        if isinstance(event, dg.AssetMaterialization) and inputs.get(event.partition or NO_PARTITION):
            read = dg.MetadataValue.json(inputs[event.partition or NO_PARTITION])
            event = event.with_metadata({**event.metadata, INPUTS: read})
        yield event


execute_step._get_output_asset_events = _with_inputs
