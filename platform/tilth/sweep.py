"""No update is lost: a sensor that finds partitions made from older inputs than the present ones, and asks for them.

A condition sees that something happened; what happens in the moment between its request and the run's start, during a
run, or in a run started by hand, it can take for answered. This sensor compares what is: the versions that the latest
materialization of a partition was made from (`tilth.input_versions`) with those that are there now.
"""

import json
import math
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg

from tilth.attempts import Attempts, attempts_at, tried_in_vain
from tilth.automation_sensor import in_ranges
from tilth.input_versions import (
    NO_PARTITION,
    event_numbers,
    inputs_of,
    present_versions,
    recorded_inputs,
    upstream_partitions,
)
from tilth.kept_connections import kept_connections
from tilth.newest_event import newest_event

# Conditions answer within seconds, and a debounced one within its interval; what is older than this they have missed.
PATIENCE_SECONDS = 600


def sweep(
    name: str,
    target: dg.AssetSelection,
    *,
    optional: dg.AssetSelection | None = None,
    reference: dg.AssetSelection | None = None,
    patience_seconds: int = PATIENCE_SECONDS,
    interval_seconds: int = 60,
) -> dg.SensorDefinition:
    """A running sensor that asks for partitions of those of these assets that have an automation condition.

    A partition is asked for when it has been out of date for `patience_seconds`, nothing that it reads is being made or
    has been out of date for as long, and no run has tried since its inputs changed: a partition that fails is not tried
    over and over. A partition that was never made counts once all that it reads is there.

    Its time begins when a look first finds it out of date, and anew when it is made, tried or asked for. While inputs
    change without end, it is asked for once in `patience_seconds`: neither at every look nor never.

    Args:
        optional: upstream assets whose absent partitions hold nothing back, as in `tilth.automation`.
        reference: upstream tables whose refresh makes no partition out of date.
        patience_seconds: longer than the longest `again` of the conditions, which it would otherwise not wait for.
    """

    @dg.sensor(
        name=name,
        asset_selection=target,  # not as target=, of which Dagster makes a job, and a job has one way of partitioning
        minimum_interval_seconds=interval_seconds,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Finds partitions that have been out of date for {patience_seconds} s or longer, made from older "
        "inputs than the present ones, and asks for them.",
    )
    def swept(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        repository, now = context.repository_def, int(time.time())
        assert repository is not None  # noqa: S101 - what targets assets has one
        graph, cursor = repository.asset_graph, _cursor(context, now)
        seen, newest = cursor["seen"], newest_event(context)
        if newest == seen and not cursor["watched"]:
            return dg.SkipReason("Nothing was made since the last look.")
        instance = context.instance
        gaps, ignored = (chosen.resolve(graph) if chosen else set() for chosen in (optional, reference))
        late: dict[dg.AssetKey, dict[str, int]] = {}
        busy: dict[dg.AssetKey, set[str]] = {}
        with kept_connections(instance), dg.partition_loading_context(dynamic_partitions_store=instance):
            for key in sorted(target.resolve(graph)):
                if graph.get(key).automation_condition is None:
                    continue
                before = cursor["watched"].get(key.to_user_string(), {})
                found, busy[key] = out_of_date(instance, graph, key, ignored, 0 if before else seen, gaps)
                late[key] = {p: now if last > seen else before.get(p, now) for p, last in found.items()}
            asked = {key: _ready(instance, graph, key, late, now - patience_seconds) for key in late}
            wanted: dict[str, list[dg.AssetKey]] = defaultdict(list)
            for key, partitions in asked.items():
                for partition in partitions:
                    wanted[partition].append(key)
            requests = in_ranges(
                [
                    dg.RunRequest(asset_selection=sorted(keys), partition_key=partition or None)
                    for partition, keys in sorted(wanted.items())
                ],
                repository.assets_defs_by_key,
            )
        for request in requests:
            names = ", ".join(key.to_user_string() for key in request.asset_selection or ())
            context.log.info(f"{names} {request.partition_key or request.tags}: made from older inputs than there are")
        watched = {key: since | dict.fromkeys([*asked[key], *busy[key]], now) for key, since in late.items()}
        return dg.SensorResult(run_requests=requests, cursor=_dumped(newest, watched))

    return swept


def out_of_date(
    instance: dg.DagsterInstance,
    graph: Any,
    key: dg.AssetKey,
    ignored: Collection[dg.AssetKey],
    since: int,
    optional: Collection[dg.AssetKey] = (),
) -> tuple[dict[str, int], set[str]]:
    """Partitions of the asset made from older inputs than the present ones, or not made though all inputs are there.

    Args:
        ignored: inputs that make nothing out of date; they must be there nevertheless.
        since: only what changed or was made after the event of this number is looked at.
        optional: inputs whose absent partitions hold nothing back.

    To be called in a `dg.partition_loading_context` of the instance, which keeps the keys of dynamic partitions.

    Returns:
        The partitions, without those that a run is making or tried in vain since their inputs changed, each with the
        number of the event by which it was last made or tried, or 0; and the partitions that a run is making.
    """
    node = graph.get(key)
    numbers = {parent: event_numbers(instance, parent) for parent in node.parent_keys}
    made = event_numbers(instance, key)
    if not any(number > since for of_asset in (made, *numbers.values()) for number in of_asset.values()):
        return {}, set()
    definition = node.partitions_def
    partitions = definition.get_partition_keys() if definition else [NO_PARTITION]
    reads = upstream_partitions(graph, key, partitions)
    attempts = attempts_at(instance, key, definition)
    busy = _under_way(instance, attempts)
    in_vain = tried_in_vain(instance, graph, key, attempts, attempts.keys() & reads.keys())
    missing, changed = set(), set()
    for partition, read in reads.items():
        wanted = [(parent, numbers[parent].get(p)) for parent, parts in read.items() for p in parts]
        there = [number for _, number in wanted if number is not None]
        latest = max(there, default=0)
        if partition in busy or partition in in_vain or attempts.get(partition, ("", 0))[1] > latest:
            continue
        if partition not in made:
            if there and all(number is not None or parent in optional for parent, number in wanted):
                missing.add(partition)
        elif max(latest, made[partition]) > since:
            changed.add(partition)
    versions = {parent: present_versions(instance, parent) for parent in node.parent_keys if parent not in ignored}
    for partition, inputs in recorded_inputs(instance, key, [made[partition] for partition in changed]).items():
        present = inputs_of({parent: reads[partition][parent] for parent in versions}, versions)
        if any(inputs[name] != present[name] for name in inputs.keys() & present.keys()):
            missing.add(partition)
    return {p: max(made.get(p, 0), attempts.get(p, ("", 0))[1]) for p in missing}, busy


def _ready(
    instance: dg.DagsterInstance,
    graph: Any,
    key: dg.AssetKey,
    late: Mapping[dg.AssetKey, Mapping[str, int]],
    until: int,
) -> list[str]:
    """Of the partitions that are out of date since `until` or longer, those that need not wait for what they read."""
    since = late[key]
    due = [partition for partition, first in since.items() if first <= until]
    parents = graph.get(key).parent_keys if due else ()
    making = {
        parent: _under_way(instance, attempts_at(instance, parent, graph.get(parent).partitions_def))
        for parent in parents
    }

    def waits(partition: str, parent: dg.AssetKey, read: str) -> bool:
        # For one that went out of date later it would wait without end where that changes again and again.
        return read in making[parent] or late.get(parent, {}).get(read, math.inf) <= since[partition]

    return [
        partition
        for partition, reads in upstream_partitions(graph, key, due).items()
        if not any(waits(partition, parent, read) for parent, parts in reads.items() for read in parts)
    ]


def _under_way(instance: dg.DagsterInstance, attempts: Attempts) -> set[str]:
    """The partitions whose run has not finished."""
    runs = {run_id: instance.get_run_by_id(run_id) for run_id, _ in attempts.values()}
    return {partition for partition, (run_id, _) in attempts.items() if (run := runs[run_id]) and not run.is_finished}


def _dumped(seen: int, watched: Mapping[dg.AssetKey, Mapping[str, int]]) -> str:
    """The cursor: by asset and time since when they are watched, partitions, of which many have the same time."""
    grouped: dict[str, dict[int, list[str]]] = {}
    for key, since in watched.items():
        for partition, first in sorted(since.items()):
            grouped.setdefault(key.to_user_string(), {}).setdefault(first, []).append(partition)
    return json.dumps({"seen": seen, "watched": grouped})


def _cursor(context: dg.SensorEvaluationContext, now: int) -> Mapping[str, Any]:
    """The number of the event last seen; and by asset and partition, since when it is watched."""
    anew = {"seen": 0, "watched": {}}
    if context.cursor is None:
        return anew
    try:
        cursor = json.loads(context.cursor)
        # A clock that was set back would make what is watched wait for that long.
        watched = {
            str(asset): {str(p): min(int(first), now) for first, partitions in times.items() for p in partitions}
            for asset, times in cursor["watched"].items()
        }
        return {"seen": int(cursor["seen"]), "watched": watched}
    except (ValueError, TypeError, KeyError, AttributeError):
        context.log.warning(f"The cursor {context.cursor[:100]!r} is of another release; everything is looked at anew.")
        return anew
