"""No update is lost: a sensor that finds partitions made from older inputs than the present ones, and requests them.

A condition sees that something happened; what happens in the moment between its request and the run's start, during a
run, or in a run started by hand, it can take for answered. This sensor compares what is: the versions that the latest
materialization of a partition was made from (`tilth.versioning.inputs`) with those that are there now.
"""

import json
import time
from collections import defaultdict
from collections.abc import Mapping
from time import monotonic
from typing import Any

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of
from tilth._dagster.connections import kept_connections
from tilth._dagster.event_log import newest_event
from tilth.automation.out_of_date import out_of_date, ready
from tilth.automation.sensor import in_ranges

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
        requested = ready(instance, graph, key, self._late, until)
        if requested and self._parts > 1:  # what was judged in an earlier tick may have been made since
            still, _ = out_of_date(instance, graph, key, self._newest, requested)
            requested = [partition for partition in requested if partition in still]
        return requested


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
