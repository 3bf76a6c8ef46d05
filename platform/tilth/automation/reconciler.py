"""No update is lost: a sensor that finds partitions made from older inputs than the present ones, and requests them.

A condition sees that something happened; what happens in the moment between its request and the run's start, during a
run, or in a run started by hand, it can take for answered. This sensor compares what is: the versions that the latest
materialization of a partition was made from (`tilth.versioning.inputs`) with those that are there now.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from time import monotonic
from typing import Any

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of
from tilth._dagster.connections import kept_connections
from tilth._dagster.event_log import Attempts, attempts, event_numbers, newest_event, present_versions
from tilth.automation.attempts import tried_in_vain
from tilth.automation.sensor import in_ranges
from tilth.versioning.inputs import inputs_of, optional_inputs, recorded_inputs, reference_inputs

# Conditions answer within seconds, and a debounced one within its interval; what is older than this they have missed.
PATIENCE_SECONDS = 600
# Dagster gives a tick 60 seconds; a pass that takes longer goes on in the next.
PART_SECONDS = 25.0
_WHOLE_SECONDS = 86_400
# What a sensor of this kind is tagged with.
RECONCILER = "tilth/reconciler"


def reconciler(
    name: str,
    target: dg.AssetSelection,
    *,
    patience_seconds: int = PATIENCE_SECONDS,
    interval_seconds: int = 60,
) -> dg.SensorDefinition:
    """A running sensor that requests partitions of those of these assets that have an automation condition.

    A partition is requested when it has been out of date for `patience_seconds`, nothing that it reads is being made or
    has been out of date for as long, and no run has tried since its inputs changed: a partition that fails is not tried
    over and over. A partition that was never made counts once all that it reads is there.

    Its time begins when a pass first finds it out of date, and anew when it is made, tried or requested. While inputs
    change without end, it is requested once in `patience_seconds`: neither in every pass nor never.

    Args:
        patience_seconds: longer than the longest `again` of the conditions, which it would otherwise not wait for.
    """

    # A pass that takes several ticks, by the cursor that it began with. A process that starts anew begins it anew.
    passes: dict[str | None, _Pass] = {}

    @dg.sensor(
        name=name,
        asset_selection=target,  # not as target=, of which Dagster makes a job, and a job has one way of partitioning
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        tags={RECONCILER: "true"},
        description=f"Finds partitions that have been out of date for {patience_seconds} s or longer, made from older "
        "inputs than the present ones, and requests them.",
    )
    def reconcile(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        # Taken out, so that a tick that failed amid its part leaves none of it.
        going = passes.pop(context.cursor, None)
        if going is None:
            now, newest = int(time.time()), newest_event(context)
            cursor = _cursor(context, now)
            if newest == cursor["seen"] and not cursor["watched"]:
                return dg.SkipReason("Nothing was made since the last tick.")
            going = _Pass(context, target, cursor, newest, now)
        until = monotonic() + PART_SECONDS
        with (
            kept_connections(context.instance),
            dg.partition_loading_context(dynamic_partitions_store=context.instance),
        ):
            requests = going.part(context, patience_seconds, until)
        if going.left:
            passes.clear()
            passes[context.cursor] = going
            said = dg.SkipReason(f"{going.left} assets are still to be judged, in the next ticks.")
            return dg.SensorResult(run_requests=requests, cursor=context.cursor, skip_reason=None if requests else said)
        return dg.SensorResult(run_requests=requests, cursor=going.cursor())

    return reconcile


class _Pass:
    """A pass over all assets, in parts: first at what is out of date, then at what of that need not wait."""

    def __init__(
        self,
        context: dg.SensorEvaluationContext,
        target: dg.AssetSelection,
        cursor: Mapping[str, Any],
        newest: int,
        now: int,
    ) -> None:
        graph = _graph(context)
        self._before, self._newest, self._now = cursor, newest, now
        # What depends on no event, such as a partition that is there since midnight, is seen by a pass over everything.
        self._is_whole = not 0 <= now - cursor["whole"] < _WHOLE_SECONDS
        keys = [key for key in graph.resolve(target) if graph.condition(key) is not None]
        self._to_judge, self._to_request = sorted(keys, reverse=True), sorted(keys, reverse=True)
        self._late: dict[dg.AssetKey, dict[str, int]] = {}
        self._busy: dict[dg.AssetKey, set[str]] = {}
        self._requested: dict[dg.AssetKey, list[str]] = {}
        self._parts = 0

    @property
    def left(self) -> int:
        """How many assets are still to be judged."""
        return max(len(self._to_judge), len(self._to_request))

    def part(self, context: dg.SensorEvaluationContext, patience_seconds: int, until: float) -> list[dg.RunRequest]:
        """Judge assets until that time, one at least; the runs to request."""
        self._parts += 1
        graph = _graph(context)  # anew: partitions are added, by time or by hand
        wanted: dict[str, list[dg.AssetKey]] = defaultdict(list)
        while self.left:
            if self._to_judge:
                self._judge(context.instance, graph, self._to_judge.pop())
            else:
                key = self._to_request.pop()
                self._requested[key] = self._to_request_of(context.instance, graph, key, self._now - patience_seconds)
                for partition in self._requested[key]:
                    wanted[partition].append(key)
            if monotonic() > until:
                break
        requests = in_ranges(
            [
                dg.RunRequest(asset_selection=sorted(keys), partition_key=partition or None)
                for partition, keys in sorted(wanted.items())
            ],
            graph,
        )
        for request in requests:
            names = ", ".join(key.to_user_string() for key in request.asset_selection or ())
            context.log.info(f"{names} {request.partition_key or request.tags}: made from older inputs than there are")
        return requests

    def cursor(self) -> str:
        """What the next pass begins with."""
        watched = {
            key: since | dict.fromkeys([*self._requested[key], *self._busy[key]], self._now)
            for key, since in self._late.items()
        }
        return _dumped(self._newest, watched, self._now if self._is_whole else self._before["whole"])

    def _judge(self, instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey) -> None:
        seen, before = self._before["seen"], self._before["watched"].get(key.to_user_string(), {})
        since = 0 if self._is_whole else seen
        found, self._busy[key] = out_of_date(instance, graph, key, since, before)
        self._late[key] = {p: self._now if last > seen else before.get(p, self._now) for p, last in found.items()}

    def _to_request_of(
        self, instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, until: int
    ) -> list[str]:
        requested = _ready(instance, graph, key, self._late, until)
        if requested and self._parts > 1:  # what was judged in an earlier tick may have been made since
            still, _ = out_of_date(instance, graph, key, self._newest, requested)
            requested = [partition for partition in requested if partition in still]
        return requested


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


def _ready(
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


def _graph(context: dg.SensorEvaluationContext) -> AssetGraph:
    assert context.repository_def is not None  # noqa: S101 - what targets assets has one
    return graph_of(context.repository_def)


def _dumped(seen: int, watched: Mapping[dg.AssetKey, Mapping[str, int]], whole: int) -> str:
    """The cursor: when everything was judged; by asset and time since when they are watched, partitions, of which
    many have the same time.
    """
    grouped: dict[str, dict[int, list[str]]] = {}
    for key, since in watched.items():
        for partition, first in sorted(since.items()):
            grouped.setdefault(key.to_user_string(), {}).setdefault(first, []).append(partition)
    return json.dumps({"seen": seen, "watched": grouped, "whole": whole})


def _cursor(context: dg.SensorEvaluationContext, now: int) -> Mapping[str, Any]:
    """The number of the event last seen; by asset and partition, since when it is watched; when all was judged."""
    anew = {"seen": 0, "watched": {}, "whole": 0}
    if context.cursor is None:
        return anew
    try:
        cursor = json.loads(context.cursor)
        # A clock that was set back would make what is watched wait for that long.
        watched = {
            str(asset): {str(p): min(int(first), now) for first, partitions in times.items() for p in partitions}
            for asset, times in cursor["watched"].items()
        }
        return {"seen": int(cursor["seen"]), "watched": watched, "whole": int(cursor.get("whole", 0))}
    except (ValueError, TypeError, KeyError, AttributeError):
        context.log.warning(f"The cursor {context.cursor[:100]!r} is of another release; everything is judged anew.")
        return anew
