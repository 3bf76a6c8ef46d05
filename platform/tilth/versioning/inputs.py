"""Of each materialization, which versions of its inputs it was made from; and what an asset says of its inputs.

Dagster notes one version per input and step, which says nothing of the single days of a step over a year, nor of days
of a window of more than a hundred. Here each partition carries the versions of exactly the upstream partitions that it
reads, as metadata `inputs`: by them `tilth.automation.reconciler` finds what was made from older ones, and
`tilth.versioning.explain` says what triggered a partition.
"""

import hashlib
import json
from collections.abc import Container, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph
from tilth._dagster.event_log import DATA_VERSION, NO_PARTITION, Materialization, materializations, present_versions
from tilth._dagster.step_events import Step, step_of

OPTIONAL = {"tilth/optional": True}
"""Metadata of an `AssetIn` or `AssetDep`: its absent partitions hold nothing back, as of a history with gaps."""

REFERENCE = {"tilth/reference": True}
"""Metadata of an `AssetIn` or `AssetDep`: it must be there, but new content of it makes no partition again."""

INPUTS = "inputs"

# Of more upstream partitions than this, one hash over their versions is kept.
LISTED = 400
ALL = "all"

Inputs = dict[str, dict[str, str]]
"""By upstream asset and its partition, the data version."""


def optional_inputs(graph: AssetGraph, key: dg.AssetKey) -> AbstractSet[dg.AssetKey]:
    """The inputs of the asset whose absent partitions hold nothing back."""
    return {parent for parent in graph.parents(key) if OPTIONAL.items() <= graph.input_metadata(key, parent).items()}


def reference_inputs(graph: AssetGraph, key: dg.AssetKey) -> AbstractSet[dg.AssetKey]:
    """The inputs of the asset that must be there, but whose new content makes no partition again."""
    return {parent for parent in graph.parents(key) if REFERENCE.items() <= graph.input_metadata(key, parent).items()}


def saying_of_inputs(spec: dg.AssetSpec, said: Mapping[str, Any], keys: Container[dg.AssetKey]) -> dg.AssetSpec:
    """The spec, where its inputs are not written by hand, as dbt's are not, with `OPTIONAL` or `REFERENCE` said of
    those among these keys.
    """
    deps = [dep._replace(metadata={**dep.metadata, **said}) if dep.asset_key in keys else dep for dep in spec.deps]
    return spec.replace_attributes(deps=deps)


def recorded_inputs(instance: dg.DagsterInstance, key: dg.AssetKey, numbers: Sequence[int]) -> dict[str, Inputs]:
    """By partition, the inputs that these materializations carry; what carries none is left out."""
    return {m.partition: inputs_in(m) for m in materializations(instance, key, numbers) if INPUTS in m.metadata}


def inputs_in(made: Materialization) -> Inputs:
    """What a materialization says that it was made from; nothing where it does not say."""
    return cast(Inputs, made.value(INPUTS) or {})


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
    step: Step, key: dg.AssetKey, partitions: Sequence[str], own: Mapping[dg.AssetKey, Mapping[str, str]]
) -> dict[str, Inputs]:
    """By partition of what a step makes, its inputs as they were when the step began.

    Args:
        own: the versions of what the same step makes, which other assets of it read.
    """
    graph, instance = step.graph, step.instance
    versions: dict[dg.AssetKey, Mapping[str, str]] = {}
    for parent in graph.parents(key):
        if parent in own:
            versions[parent] = {**present_versions(instance, parent), **own[parent]}
        elif (seen := step.input_event(parent)) is not None:
            versions[parent] = present_versions(instance, parent, seen)
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        reads = graph.reads(key, partitions)
    return {
        partition: inputs_of({parent: read[parent] for parent in versions}, versions)
        for partition, read in reads.items()
    }


def inputs_metadata(
    context: dg.AssetExecutionContext, key: dg.AssetKey, partitions: Sequence[str]
) -> dict[str, dict[str, dg.JsonMetadataValue]]:
    """By partition, the metadata for materializations that an asset logs by itself; others get it without asking."""
    step = step_of(context)
    inputs = step_inputs(step, key, partitions, _made_by(step))
    return {partition: {INPUTS: dg.MetadataValue.json(found)} for partition, found in inputs.items()}


def note_made(context: dg.AssetExecutionContext, key: dg.AssetKey, versions: Mapping[str, str]) -> None:
    """Say the versions of partitions that the step logged by itself, for those that are made from them."""
    _made_by(step_of(context)).setdefault(key, {}).update(versions)


# By run and step, the versions of what it has made so far.
_own: dict[tuple[str, str], dict[dg.AssetKey, dict[str, str]]] = {}


def _made_by(step: Step) -> dict[dg.AssetKey, dict[str, str]]:
    this = (step.run_id, step.key)
    for other in [one for one in _own if one != this]:
        del _own[other]
    return _own.setdefault(this, {})


def with_inputs(step: Step, key: dg.AssetKey, events: list[dg.AssetMaterialization]) -> list[dg.AssetMaterialization]:
    """The materializations, each with the inputs that its partition was made from."""
    own = _made_by(step)
    inputs = step_inputs(step, key, [event.partition or NO_PARTITION for event in events], own)
    own[key] = {event.partition or NO_PARTITION: (event.tags or {}).get(DATA_VERSION, "") for event in events}
    return [
        event.with_metadata({**event.metadata, INPUTS: dg.MetadataValue.json(found)})
        if (found := inputs.get(event.partition or NO_PARTITION))
        else event
        for event in events
    ]
