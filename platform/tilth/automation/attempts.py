"""What runs tried to make and did not, and what they made already."""

import time
from collections.abc import Collection

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph
from tilth._dagster.automation import OwnCondition
from tilth._dagster.event_log import Attempts, attempts, event_numbers, materializations, present_versions
from tilth._dagster.runs import Ended, Runs
from tilth.automation.ranges import partitions_in
from tilth.versioning.inputs import inputs_of, recorded_inputs

_NOT_ENDED = [
    dg.DagsterRunStatus.QUEUED,
    dg.DagsterRunStatus.STARTING,
    dg.DagsterRunStatus.STARTED,
    dg.DagsterRunStatus.CANCELING,
]


class Answered(OwnCondition):
    """A run would make nothing new: the partition was made from what is there, is to be made by a run that has not
    ended, or was tried in vain.

    Tried in vain is what the latest run for it came to and did not make, where no other run has made what it reads
    since. A run that failed before it came to the partition has not tried it. One that was cancelled or died counts as
    if it had: it is started again by whom it concerns.

    Other conditions ask one after another; what is recorded while they do, as by a run that makes an input and then the
    partition, some of them see and some do not. This one is evaluated last.
    """

    @property
    def description(self) -> str:
        return "Made from what is there, or tried in vain since that came"

    @property
    def name(self) -> str:
        return "answered"

    def holds_of(
        self, instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, candidates: set[str]
    ) -> set[str]:
        """Of the partitions that all other parts of a condition leave, which are few."""
        partitions = graph.partitions(key)
        found = tried_in_vain(instance, graph, key, attempts(instance, key, partitions), candidates)
        found |= up_to_date(instance, graph, key, candidates - found)
        return found | in_progress(instance, key, partitions, candidates - found)


def tried_in_vain(
    instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, tried: Attempts, partitions: Collection[str]
) -> set[str]:
    """Those of these partitions of the asset, at which these are the attempts, that were tried in vain, as `Answered`
    says.
    """
    runs, of_run = Runs(instance, None, time.time()), {p: tried[p].run_id for p in partitions if p in tried}
    ended = runs.ended(of_run.values())
    failures = {run: runs.failure(run) for run, how in ended.items() if how is Ended.FAILED}
    before = {run for run, failure in failures.items() if failure.errors and failure.of(key) is None}
    over = [p for p, run in of_run.items() if run not in before and runs.is_over(run)]
    reads = graph.reads(key, over)
    changed: set[str] = set()
    for parent in graph.parents(key) if over else ():
        numbers = event_numbers(instance, parent)
        since = {p: [n for read in reads[p][parent] if (n := numbers.get(read, 0)) > tried[p].number] for p in over}
        wanted = sorted({number for found in since.values() for number in found})
        made_by = {made.number: made.run_id for made in materializations(instance, parent, wanted)}
        changed |= {p for p, found in since.items() if any(made_by.get(number) != of_run[p] for number in found)}
    return set(over) - changed


def up_to_date(
    instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, partitions: Collection[str]
) -> set[str]:
    """Those of these partitions of the asset whose latest materialization says that it was made from the versions of
    its inputs that are there now.
    """
    made = event_numbers(instance, key)
    recorded = recorded_inputs(instance, key, [made[p] for p in partitions if p in made])
    versions = {parent: present_versions(instance, parent) for parent in graph.parents(key) if recorded}
    return {
        partition
        for partition, read in graph.reads(key, recorded).items()
        if inputs_of(read, versions) == recorded[partition]
    }


def in_progress(
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
