"""The runs that a backfill of assets would be, as Dagster's own asset backfill makes them.

How partitions are cut into runs is asked of Dagster's own function. Which partitions a backfill reaches, and what of
them is made in one run, is decided within its daemon and said here again; a test compares the two. None of it is its
public API: docs/upgrading.md names this file.
"""

from collections import defaultdict
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from functools import cache
from typing import Any

import dagster as dg
from dagster._core.definitions.automation_tick_evaluation_context import build_run_requests_with_backfill_policies
from dagster._core.definitions.events import AssetKeyPartitionKey

from tilth._dagster.event_log import NO_PARTITION
from tilth.automation.ranges import range_tags

Targets = Mapping[dg.AssetKey, Collection[str]]
"""By asset, the partitions that are made of it; of one without partitions `NO_PARTITION`."""


@dataclass(frozen=True)
class Group:
    """Runs of the same assets, which are sorted from upstream to downstream; of each run the partitions that it makes.

    They begin when those of earlier stages that they read from have ended. Where some of a run's partitions may be
    ready before the others, Dagster may begin with those: `or_more` says that it may be more and smaller runs.
    """

    stage: int
    assets: tuple[dg.AssetKey, ...]
    runs: tuple[tuple[str, ...], ...]
    or_more: bool


def backfill_runs(
    graph: Any, instance: dg.DagsterInstance, selected: Collection[dg.AssetKey], partitions: tuple[str, str] | None
) -> tuple[list[Group], dict[dg.AssetKey, int]]:
    """The groups of runs of a backfill of these assets.

    Args:
        partitions: the first and last of the assets with partitions that have none such upstream of them; of those
            downstream what reads from these is made. None where no asset has partitions.

    Returns:
        The groups; and by asset, how many partitions are left out that read from what is made: Dagster goes downstream
        level by level, and once, so that it misses what an asset reads by a longer way too. Of an asset in no group
        nothing is made.

    Raises:
        ValueError: a range that is missing, not called for, reversed or not of the asset; assets to begin with that
            have not the same partitions.
    """
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        targets, left_out = _targets(graph, set(selected), partitions)
        order = [key for key in graph.toposorted_asset_keys if key in targets]
        reads = {
            key: [
                parent
                for parent in graph.get(key).parent_keys & (targets.keys() - {key})
                if _reading(graph, key, targets[key], parent, targets[parent])
            ]
            for key in order
        }
        stages = _stages(graph, targets, reads)
        cut = [
            (stage, tuple(key for key in order if key in assets), runs)
            for stage in sorted({*stages.values()})
            for assets, runs in _cut(graph, instance, {k: targets[k] for k in order if stages[k] == stage}).items()
        ]
        groups: list[Group] = []
        for stage, assets, runs in sorted(cut, key=lambda of: (of[0], order.index(of[1][0]))):
            piecemeal = any(_piecemeal(graph, key, runs, groups) for key in assets)
            groups.append(Group(stage, assets, tuple(runs), piecemeal))
    return groups, left_out


def _targets(
    graph: Any, selected: set[dg.AssetKey], partitions: tuple[str, str] | None
) -> tuple[Targets, dict[dg.AssetKey, int]]:
    cut = {key for key in selected if graph.get(key).partitions_def}
    if not cut:
        if partitions:
            named = ", ".join(sorted(key.to_user_string() for key in selected))
            raise ValueError(f"{named}: nothing that is selected has partitions; leave {partitions[0]!r} out.")
        return {key: [NO_PARTITION] for key in selected}, {}
    roots = sorted(key for key in cut if not graph.get(key).parent_keys & (cut - {key}))
    first, definition = roots[0], graph.get(roots[0]).partitions_def
    for other in roots:
        if graph.get(other).partitions_def != definition:
            raise ValueError(
                f"The selection begins with {first.to_user_string()} and {other.to_user_string()}, whose partitions "
                "are not the same, so that no range is for both. Plan them, and backfill them, one after the other."
            )
    wanted = _range(first.to_user_string(), definition, partitions)
    found: dict[dg.AssetKey, set[str]] = defaultdict(set)
    late: dict[dg.AssetKey, set[str]] = defaultdict(set)
    for root in roots:
        queue, queued = [root], {root: {*wanted}}
        for key in queue:
            found[key] |= (made := {*queued[key]})
            # Dagster takes them in the order of a set, which is another in every process.
            for child in sorted(graph.get(key).child_keys & (cut - {key})):
                if child not in queued:
                    queue.append(child)
                queued.setdefault(child, set()).update(_reading(graph, child, None, key, made))
        for key, reading in queued.items():
            late[key] |= reading
    targets: dict[dg.AssetKey, Collection[str]] = {key: keys for key, keys in found.items() if keys}
    left_out = {key: len(late[key] - found[key]) for key in cut if late[key] - found[key]}
    return targets | {key: [NO_PARTITION] for key in selected - cut}, left_out


def _range(asset: str, definition: dg.PartitionsDefinition, partitions: tuple[str, str] | None) -> list[str]:
    there = definition.get_partition_keys()
    has = f"it has {len(there)}, {there[0]} to {there[-1]}" if there else "it has none yet"
    if partitions is None:
        raise ValueError(f"{asset} has partitions: {has}. Say which one, or the first and last of a range.")
    for partition in partitions:
        if partition not in there:
            raise ValueError(f"{asset} has no partition {partition!r}: {has}. Choose among those.")
    found = [*definition.get_partition_keys_in_range(dg.PartitionKeyRange(*partitions))]
    if not found:
        reversed_range = "...".join(partitions)
        raise ValueError(
            f"{asset}: the range {reversed_range} ends before it begins; give the earlier partition first."
        )
    return found


def _reading(
    graph: Any, key: dg.AssetKey, own: Collection[str] | None, parent: dg.AssetKey, made: Collection[str]
) -> set[str]:
    """Of these partitions of an asset, or of all, those that read from these of its parent."""
    definition, theirs = graph.get(key).partitions_def, graph.get(parent).partitions_def
    if definition is None or theirs is None:
        return {*(own or ())}
    mapping = graph.get_partition_mapping(key, parent_asset_key=parent)
    read = theirs.subset_with_partition_keys(made)
    reading = mapping.get_downstream_partitions_for_partitions(read, theirs, definition)
    return {*reading.get_partition_keys()}.intersection(*([] if own is None else [own]))


def _piecemeal(graph: Any, key: dg.AssetKey, runs: Collection[tuple[str, ...]], earlier: Collection[Group]) -> bool:
    """Whether a run's partitions may be ready at different times: they read from different runs before it."""
    policy = graph.get(key).backfill_policy
    if key in graph.get(key).parent_keys:
        return True  # Dagster makes its partitions in their order, apart from what does not read it
    if policy is None or policy.max_partitions_per_run == 1:
        return False
    everything = [partition for run in runs for partition in run]
    for group in earlier:
        for parent in graph.get(key).parent_keys & {*group.assets}:
            for made in group.runs:
                reading = _reading(graph, key, everything, parent, made)
                if any(reading & {*run} not in (set(), {*run}) for run in runs) or (reading and group.or_more):
                    return True
    return False


def _stages(
    graph: Any, targets: Targets, reads: Mapping[dg.AssetKey, Collection[dg.AssetKey]]
) -> dict[dg.AssetKey, int]:
    """By asset the stage of the latest that it reads, if it can be made in the same run; otherwise the next."""

    @cache
    def stage(key: dg.AssetKey) -> int:
        # The assets of an op that makes all of them or none wait for what any of them reads.
        together = graph.get(key).execution_set_entity_keys & targets.keys()
        edges = [(one, parent) for one in together for parent in reads[one] if parent not in together]
        latest = max((stage(parent) for _, parent in edges), default=1)
        beside = all(_in_one_run(graph, *edge, targets) for edge in edges if stage(edge[1]) == latest)
        return latest if beside else latest + 1

    return {key: stage(key) for key in targets}


def _in_one_run(graph: Any, key: dg.AssetKey, parent: dg.AssetKey, targets: Targets) -> bool:
    """Dagster's `_get_cant_run_because_of_parent_reason`, of a parent all of whose partitions are asked for at once."""
    own, theirs = graph.get(key), graph.get(parent)
    if (own.backfill_policy, own.partitions_def) != (theirs.backfill_policy, theirs.partitions_def):
        return False
    if key in own.parent_keys or {*targets[key]} != {*targets[parent]}:
        return False
    mapping = graph.get_partition_mapping(key, parent_asset_key=parent)
    if own.partitions_def is None or isinstance(mapping, dg.IdentityPartitionMapping):
        return True
    if isinstance(mapping, dg.TimeWindowPartitionMapping) and mapping.start_offset == mapping.end_offset == 0:
        return True
    most = own.backfill_policy.max_partitions_per_run if own.backfill_policy else 0
    return most is None or most > len(targets[key])


def _cut(
    graph: Any, instance: dg.DagsterInstance, targets: Targets
) -> dict[frozenset[dg.AssetKey], list[tuple[str, ...]]]:
    """The runs of one stage by the assets that they make."""
    wanted = {AssetKeyPartitionKey(key, partition or None) for key in targets for partition in targets[key]}
    start, end = range_tags("", "")
    found: dict[frozenset[dg.AssetKey], list[tuple[str, ...]]] = defaultdict(list)
    for request in build_run_requests_with_backfill_policies(wanted, graph, instance):
        assets, tags = frozenset(request.asset_selection or ()), request.tags or {}
        keys = [request.partition_key or NO_PARTITION]
        if start in tags:
            definition = graph.get(min(assets)).partitions_def
            keys = definition.get_partition_keys_in_range(dg.PartitionKeyRange(tags[start], tags[end]))
        found[assets].append(tuple(keys))
    return {assets: sorted(runs) for assets, runs in found.items()}
