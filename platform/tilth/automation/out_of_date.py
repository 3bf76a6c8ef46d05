"""Which partitions of an asset a run would make anew: made from older inputs than the present ones, or never made."""

import math
from collections.abc import Collection, Mapping

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph
from tilth._dagster.event_log import Attempts, attempts, event_numbers, present_versions
from tilth.automation.attempts import tried_in_vain
from tilth.versioning.inputs import inputs_of, optional_inputs, recorded_inputs, reference_inputs


def out_of_date(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    key: dg.AssetKey,
    since: int,
    watched: Collection[str] = (),
) -> tuple[dict[str, int], set[str]]:
    """Partitions of the asset made from older inputs than the present ones, or not made though all inputs are there.

    Args:
        since: only what changed or was made after the event of this number is judged; 0 for everything.
        watched: partitions that are judged in any case.

    To be called in a `dg.partition_loading_context` of the instance, which keeps the keys of dynamic partitions.

    Returns:
        The partitions, without those that a run is making or tried in vain since their inputs changed, each with the
        number of the event by which it was last made or tried, or 0; and the partitions that a run is making.
    """
    numbers = {parent: event_numbers(instance, parent) for parent in graph.parents(key)}
    made = event_numbers(instance, key)
    partitions = _touched(graph, key, numbers, made, since, watched)
    if not partitions:
        return {}, set()
    reads = graph.reads(key, partitions)
    tried = {p: attempt for p, attempt in attempts(instance, key, graph.partitions(key)).items() if p in reads}
    busy = _under_way(instance, tried)
    in_vain = tried_in_vain(instance, graph, key, tried, tried)
    last_tried = {p: attempt.number for p, attempt in tried.items()}
    optional, reference = optional_inputs(graph, key), reference_inputs(graph, key)
    missing, changed = set(), set()
    for partition, read in reads.items():
        wanted = [(parent, numbers[parent].get(p)) for parent, parts in read.items() for p in parts]
        there = [number for _, number in wanted if number is not None]
        latest = max(there, default=0)
        if partition in busy or partition in in_vain or last_tried.get(partition, 0) > latest:
            continue
        if partition not in made:
            if there and all(number is not None or parent in optional for parent, number in wanted):
                missing.add(partition)
        elif max(latest, made[partition]) > since or partition in watched:
            changed.add(partition)
    versions = {parent: present_versions(instance, parent) for parent in numbers if parent not in reference}
    for partition, inputs in recorded_inputs(instance, key, [made[partition] for partition in changed]).items():
        present = inputs_of({parent: reads[partition][parent] for parent in versions}, versions)
        if any(inputs[name] != present[name] for name in inputs.keys() & present.keys()):
            missing.add(partition)
    return {p: max(made.get(p, 0), last_tried.get(p, 0)) for p in missing}, busy


def _touched(
    graph: AssetGraph,
    key: dg.AssetKey,
    numbers: Mapping[dg.AssetKey, Mapping[str, int]],
    made: Mapping[str, int],
    since: int,
    watched: Collection[str],
) -> list[str]:
    """The asset's partitions that were made, or read what was made, after the event of this number."""
    if not since and not any((made, *numbers.values())):
        return []
    touched = {*watched, *_after(made, since)}
    for parent, of_parent in numbers.items() if since else ():
        touched.update(graph.reading(key, parent, _after(of_parent, since)))
    return [partition for partition in graph.partition_keys(key) if not since or partition in touched]


def _after(numbers: Mapping[str, int], since: int) -> set[str]:
    return {partition for partition, number in numbers.items() if number > since}


def ready(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    key: dg.AssetKey,
    late: Mapping[dg.AssetKey, Mapping[str, int]],
    until: int,
) -> list[str]:
    """Of the partitions that are out of date since `until` or longer, those that need not wait for what they read."""
    since = late[key]
    due = [partition for partition, first in since.items() if first <= until]
    parents = graph.parents(key) if due else ()
    making = {parent: _under_way(instance, attempts(instance, parent, graph.partitions(parent))) for parent in parents}

    def waits(partition: str, parent: dg.AssetKey, read: str) -> bool:
        # For one that went out of date later it would wait without end where that changes again and again.
        return read in making[parent] or late.get(parent, {}).get(read, math.inf) <= since[partition]

    return [
        partition
        for partition, reads in graph.reads(key, due).items()
        if not any(waits(partition, parent, read) for parent, parts in reads.items() for read in parts)
    ]


def _under_way(instance: dg.DagsterInstance, tried: Attempts) -> set[str]:
    """The partitions whose run has not finished."""
    runs = {run_id: instance.get_run_by_id(run_id) for run_id in {attempt.run_id for attempt in tried.values()}}
    return {p for p, attempt in tried.items() if (run := runs[attempt.run_id]) and not run.is_finished}
