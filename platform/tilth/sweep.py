"""No update is lost: a sensor that finds partitions made from older inputs than the present ones, and asks for them.

A condition sees that something happened; what happens in the moment between its request and the run's start, during a
run, or in a run started by hand, it can take for answered. This sensor compares what is: the versions that the latest
materialization of a partition was made from (`tilth.input_versions`) with those that are there now.
"""

import json
import time
from collections import defaultdict
from collections.abc import Collection, Mapping
from typing import Any

import dagster as dg

from tilth.automation_sensor import in_ranges
from tilth.input_versions import (
    NO_PARTITION,
    event_numbers,
    inputs_of,
    present_versions,
    recorded_inputs,
    upstream_partitions,
)

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

    A partition is asked for when it has been out of date for `patience_seconds`, nothing that it reads is itself out of
    date, and no run has tried since its inputs changed: a partition that fails is not tried over and over. A partition
    that was never made counts once all that it reads is there.

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
        description="Finds partitions that were made from older inputs than the present ones, and asks for them.",
    )
    def swept(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        repository, now = context.repository_def, time.time()
        assert repository is not None  # noqa: S101 - what targets assets has one
        graph, cursor = repository.asset_graph, _cursor(context)
        newest = context.instance.event_log_storage.get_maximum_record_id() or 0
        if newest == cursor["seen"] and not cursor["watched"]:
            return dg.SkipReason("Nothing was made since the last look.")
        gaps, ignored = (chosen.resolve(graph) if chosen else set() for chosen in (optional, reference))
        late: dict[dg.AssetKey, set[str]] = {}
        watched: dict[str, float] = {}
        for key in sorted(target.resolve(graph)):
            if graph.get(key).automation_condition is None:
                continue
            name = key.to_user_string()
            since = 0 if name in cursor["watched"] else cursor["seen"]
            found, busy = out_of_date(context.instance, graph, key, ignored, since, gaps)
            if found:
                # A clock that was set back would make it wait for that long.
                late[key], watched[name] = found, min(cursor["watched"].get(name, now), now)
            elif busy:
                watched[name] = now
        wanted: dict[str, list[dg.AssetKey]] = defaultdict(list)
        for key, partitions in late.items():
            ready = now - watched[key.to_user_string()] >= patience_seconds
            if ready and not late.keys() & graph.get(key).parent_keys:
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
        return dg.SensorResult(run_requests=requests, cursor=json.dumps({"seen": newest, "watched": watched}))

    return swept


def out_of_date(
    instance: dg.DagsterInstance,
    graph: Any,
    key: dg.AssetKey,
    ignored: Collection[dg.AssetKey],
    since: int,
    optional: Collection[dg.AssetKey] = (),
) -> tuple[set[str], bool]:
    """Partitions of the asset made from older inputs than the present ones, or not made though all inputs are there.

    Args:
        ignored: inputs that make nothing out of date; they must be there nevertheless.
        since: only what changed or was made after the event of this number is looked at.
        optional: inputs whose absent partitions hold nothing back.

    Returns:
        The partitions, without those that a run is making or tried in vain since their inputs changed; and whether a
        run is making any.
    """
    node = graph.get(key)
    numbers = {parent: event_numbers(instance, parent) for parent in node.parent_keys}
    made = event_numbers(instance, key)
    if not any(number > since for of_asset in (made, *numbers.values()) for number in of_asset.values()):
        return set(), False
    storage, definition = instance.event_log_storage, node.partitions_def
    partitions = definition.get_partition_keys(dynamic_partitions_store=instance) if definition else [NO_PARTITION]
    reads = upstream_partitions(graph, key, partitions)
    attempts = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
    if definition is None and (planned := storage.get_latest_planned_materialization_info(key)):
        attempts = (
            {NO_PARTITION: (planned.run_id, planned.storage_id)}
            if planned.storage_id > max(made.values(), default=0)
            else {}
        )
    under_way = {run for run, _ in set(attempts.values()) if _under_way(instance, run)}
    missing, changed, busy = set(), set(), False
    for partition, read in reads.items():
        wanted = [(parent, numbers[parent].get(p)) for parent, parts in read.items() for p in parts]
        there = [number for _, number in wanted if number is not None]
        latest = max(there, default=0)
        run, tried = attempts.get(partition, ("", 0))
        if run in under_way:
            busy = True
        elif tried > latest:
            continue
        elif partition not in made:
            if there and all(number is not None or parent in optional for parent, number in wanted):
                missing.add(partition)
        elif max(latest, made[partition]) > since:
            changed.add(partition)
    versions = {parent: present_versions(instance, parent) for parent in node.parent_keys if parent not in ignored}
    for partition, inputs in recorded_inputs(instance, key, [made[partition] for partition in changed]).items():
        present = inputs_of({parent: reads[partition][parent] for parent in versions}, versions)
        if any(inputs[name] != present[name] for name in inputs.keys() & present.keys()):
            missing.add(partition)
    return missing, busy


def _under_way(instance: dg.DagsterInstance, run_id: str) -> bool:
    run = instance.get_run_by_id(run_id)
    return run is not None and not run.is_finished


def _cursor(context: dg.SensorEvaluationContext) -> Mapping[str, Any]:
    anew = {"seen": 0, "watched": {}}
    if context.cursor is None:
        return anew
    try:
        cursor = json.loads(context.cursor)
        return {"seen": int(cursor["seen"]), "watched": {str(k): float(v) for k, v in cursor["watched"].items()}}
    except (ValueError, TypeError, KeyError, AttributeError):
        context.log.warning(f"The cursor {context.cursor[:100]!r} is of another release; everything is looked at anew.")
        return anew
