"""What runs tried to make and did not, and what they made already.

The event log's storage and the graph's views are no public API of Dagster: docs/upgrading.md names this file.
"""

import time
from collections.abc import Collection, Mapping, Sequence
from typing import Any

import dagster as dg

from tilth._dagster.event_log import NO_PARTITION, event_numbers, present_versions
from tilth._dagster.runs import Ended, Runs
from tilth.automation.ranges import partitions_in
from tilth.versioning.inputs import inputs_of, recorded_inputs, upstream_partitions

_NOT_ENDED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]
# Numbers of events that one query asks for.
_ASKED = 400

Attempts = Mapping[str, tuple[str, int]]
"""By partition that a run tries or tried to make since it was last made, that run and the number of its event."""


def attempts_at(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: dg.PartitionsDefinition | None) -> Attempts:
    """The latest attempts at the asset that is cut into these partitions."""
    storage = instance.event_log_storage
    if partitions is not None:
        return storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
    planned = storage.get_latest_planned_materialization_info(key)
    if planned is None or planned.storage_id <= max(event_numbers(instance, key).values(), default=0):
        return {}
    return {NO_PARTITION: (planned.run_id, planned.storage_id)}


class Answered(dg.AutomationCondition[dg.AssetKey]):
    """A run would make nothing new: the partition was made from what is there, is to be made by a run that has not
    ended, or was tried in vain.

    Tried in vain is what the latest run for it came to and did not make, where no other run has made what it reads
    since. A run that failed before it came to the partition has not tried it. One that was cancelled or died counts as
    if it had: it is started again by whom it concerns.

    Other conditions ask one after another; what is recorded while they do, as by a run that makes an input and then the
    partition, some of them see and some do not. This one is asked last.
    """

    @property
    def description(self) -> str:
        return "Made from what is there, or tried in vain since that came"

    @property
    def name(self) -> str:
        return "answered"

    @property
    def requires_cursor(self) -> bool:
        return False

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        """Of the partitions that all other parts of a condition leave, which are few."""
        candidates, view = context.candidate_subset, context.asset_graph_view
        if candidates.is_empty:
            return dg.AutomationResult(context, candidates)
        wanted = candidates.expensively_compute_partition_keys() if candidates.is_partitioned else {NO_PARTITION}
        attempts = attempts_at(view.instance, context.key, context.partitions_def)
        with dg.partition_loading_context(dynamic_partitions_store=view.instance):
            found = tried_in_vain(view.instance, view.asset_graph, context.key, attempts, wanted)
            found |= made_from_present(view.instance, view.asset_graph, context.key, wanted - found)
            found |= to_be_made(view.instance, context.key, context.partitions_def, wanted - found)
        if candidates.is_partitioned:
            return dg.AutomationResult(context, candidates.compute_intersection_with_partition_keys(found))
        return dg.AutomationResult(context, candidates if found else context.get_empty_subset())


def tried_in_vain(
    instance: dg.DagsterInstance, graph: Any, key: dg.AssetKey, attempts: Attempts, partitions: Collection[str]
) -> set[str]:
    """Those of these partitions of the asset that were tried in vain, as `Answered` says.

    `graph` is a repository's `asset_graph`, and `attempts` are those at the asset.
    """
    runs, of_run = Runs(instance, None, time.time()), {p: attempts[p][0] for p in partitions if p in attempts}
    ended = runs.ended(of_run.values())
    failures = {run: runs.failure(run) for run, how in ended.items() if how is Ended.FAILED}
    before = {run for run, failure in failures.items() if failure.errors and failure.of(key) is None}
    tried = [p for p, run in of_run.items() if run not in before and runs.is_over(run)]
    reads = upstream_partitions(graph, key, tried)
    changed: set[str] = set()
    for parent in graph.get(key).parent_keys if tried else ():
        numbers = event_numbers(instance, parent)
        since = {p: [n for read in reads[p][parent] if (n := numbers.get(read, 0)) > attempts[p][1]] for p in tried}
        made_by = _runs_of(instance, parent, sorted({number for found in since.values() for number in found}))
        changed |= {p for p, found in since.items() if any(made_by.get(number) != of_run[p] for number in found)}
    return set(tried) - changed


def made_from_present(
    instance: dg.DagsterInstance, graph: Any, key: dg.AssetKey, partitions: Collection[str]
) -> set[str]:
    """Those of these partitions of the asset whose latest materialization says that it was made from the versions of
    its inputs that are there now.
    """
    made = event_numbers(instance, key)
    recorded = recorded_inputs(instance, key, [made[p] for p in partitions if p in made])
    versions = {parent: present_versions(instance, parent) for parent in graph.get(key).parent_keys if recorded}
    return {
        partition
        for partition, read in upstream_partitions(graph, key, recorded).items()
        if inputs_of(read, versions) == recorded[partition]
    }


def to_be_made(
    instance: dg.DagsterInstance,
    key: dg.AssetKey,
    definition: dg.PartitionsDefinition | None,
    partitions: Collection[str],
) -> set[str]:
    """Those of these partitions of the asset that a run is to make which has not ended.

    The event log says it too, but on PostgreSQL event by event, and where the daemon dies meanwhile not of all of them.
    """
    if not partitions:
        return set()
    runs = instance.get_runs(dg.RunsFilter(statuses=_NOT_ENDED))
    ranges = [partitions_in(run.tags, definition) for run in runs if key in (run.asset_selection or ())]
    return {partition for partition in partitions if any(partition in made for made in ranges)}


def _runs_of(instance: dg.DagsterInstance, key: dg.AssetKey, numbers: Sequence[int]) -> dict[int, str]:
    """By number of these materializations of the asset, the run that made it."""
    found: dict[int, str] = {}
    for start in range(0, len(numbers), _ASKED):
        some = list(numbers[start : start + _ASKED])
        records = instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=some), limit=len(some)).records
        found |= {record.storage_id: record.run_id for record in records}
    return found
