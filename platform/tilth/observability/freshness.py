"""Partition lag: how long something has been there that an asset does not hold yet, and because of which upstream.

Dagster's `FreshnessPolicy` is of an asset: a backfill of an old day makes it fresh, while the day that landed this
morning waits. Here each partition is judged by itself (`tilth.versioning.staleness`).
"""

import hashlib
import json
import math
import time
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, datetime
from typing import Any

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of, graph_of_run
from tilth._dagster.connections import kept_connections
from tilth._dagster.event_log import attempts, event_numbers, newest_event
from tilth.execution.timeouts import seconds
from tilth.versioning.recorded import Memory
from tilth.versioning.staleness import Arrivals, Late, LatePartitions, late_partitions

# So many of the late partitions the metadata names.
_NAMED = 10
_INTERVAL_SECONDS = 30
# Also when nothing happens, everything is judged so often.
_ANEW_SECONDS = 86_400
_ENDS = {dg.DagsterRunStatus.FAILURE: "failed", dg.DagsterRunStatus.CANCELED: "was cancelled"}


def partition_lag_checks(
    assets: Sequence[dg.AssetKey],
    *,
    warn: str = "10m",
    fail: str = "1h",
    waiting: Callable[[dg.DagsterInstance], Arrivals] | None = None,
    ignored: dg.AssetSelection | None = None,
    name: str = "partition_lag",
) -> tuple[list[dg.AssetChecksDefinition], dg.SensorDefinition]:
    """A check for each of these assets, and a running sensor that evaluates them, every 30 seconds and without a run.

    A check passes within `warn`; beyond, it fails as a warning, and beyond `fail` as an error. The sensor reports a
    result when it differs from the last one: passed, warning or error, or because of another asset; and while it fails,
    when the asset is made. A check can be executed by hand too, and is when its asset is materialized by hand;
    automation's runs leave it to the sensor.

    Metadata: lag_seconds (of the oldest late partition, 0 if none is), late_partitions (how many), and if any is late:
    oldest (their names), cause_asset, cause_partition, and run, in which the cause failed or is being made.

    Args:
        warn: such as "90s", "10m" or "2h"; longer than the asset takes when all is well, and than its conditions wait.
        waiting: what has arrived for assets without inputs and is not read yet. Without it, lag counts from when they
            were made.
        ignored: upstream assets that make nothing late, whether they wait or come, as one that only some deployments
            make. What an asset says of its inputs (`tilth.versioning.inputs`) is heeded without asking.
        name: of the checks and of the sensor.

    Raises:
        ValueError: a duration that is none, or a `warn` that is not shorter than `fail`.
    """
    limits = seconds(warn), seconds(fail)
    if limits[0] >= limits[1]:
        raise ValueError(f"{name}: warn={warn!r} is not shorter than fail={fail!r}; a warning comes before an error.")
    memory = Memory()

    def late_of(
        instance: dg.DagsterInstance, graph: AssetGraph, keys: Sequence[dg.AssetKey], arrivals: Arrivals
    ) -> LatePartitions:
        return late_partitions(instance, graph, keys, arrivals, ignored, memory)

    def check_of(key: dg.AssetKey) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=key,
            name=name,
            description=f"Nothing has been there for {warn} that the asset does not hold yet.",
            # Never true by itself; without a condition the check would be a step of all runs that automation requests.
            automation_condition=dg.AutomationCondition.newly_requested().with_label(f"evaluated by {name}"),
        )
        def lag(context: dg.AssetCheckExecutionContext) -> dg.AssetCheckResult:
            graph = graph_of_run(context)
            late = late_of(context.instance, graph, [key], waiting(context.instance) if waiting else {})
            return dg.AssetCheckResult(**_result(context.instance, graph, late[key], time.time(), limits))

        return lag

    @dg.sensor(
        name=name,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=f"Finds what has been there for {warn} or longer that an asset does not hold yet, and says why.",
    )
    def lags(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        repository, instance, now, last = context.repository_def, context.instance, time.time(), _cursor(context)
        assert repository is not None  # noqa: S101 - what evaluates a sensor has one
        graph, newest = graph_of(repository), newest_event(context)
        arrivals = waiting(instance) if waiting else {}
        arrived = _digest(arrivals)
        # A clock that was set back would put off what is due.
        if (newest, arrived) == (last["seen"], last["arrived"]) and last["at"] <= now < last["due"]:
            return dg.SkipReason("Nothing came since the last tick, and nothing has waited for too long since.")
        reported, events, due = {}, [], now + _ANEW_SECONDS
        with kept_connections(instance):
            found = late_of(instance, graph, assets, arrivals)
            results = {key: _result(instance, graph, late, now, limits) for key, late in found.items()}
        for key, result in results.items():
            late, asset = found[key], key.to_user_string()
            reported[asset] = _state(result)
            if not result["passed"]:
                # The UI shows a check as not evaluated when its asset was made since.
                reported[asset] += f", at {max(event_numbers(instance, key).values(), default=0)}"
            if reported[asset] != last["reported"].get(asset):
                events.append(dg.AssetCheckEvaluation(asset_key=key, check_name=name, **result))
            since = min((one.since for one in late.values()), default=math.inf)
            due = min([due, *(since + limit for limit in limits if since + limit > now)])
        cursor = {"seen": newest, "arrived": arrived, "at": now, "due": due, "reported": reported}
        return dg.SensorResult(asset_events=events, cursor=json.dumps(cursor))

    return [check_of(key) for key in assets], lags


def _result(
    instance: dg.DagsterInstance, graph: AssetGraph, late: Mapping[str, Late], now: float, limits: tuple[int, int]
) -> dict[str, Any]:
    """What is the same of a check's result and of its evaluation."""
    if not late:
        metadata = {"lag_seconds": 0.0, "late_partitions": 0}
        return {"passed": True, "description": "It holds all that has come.", "metadata": metadata}
    oldest = sorted(late, key=lambda partition: (late[partition].since, partition))
    since, (key, partition) = late[oldest[0]].since, late[oldest[0]].cause
    lag = max(0.0, now - since)  # of a clock that was set back
    state, run = _state_of(instance, graph, key, partition, since, now)
    when = datetime.fromtimestamp(since, UTC).strftime("%Y-%m-%d %H:%M UTC")
    waits = "1 partition waits, since" if len(late) == 1 else f"{len(late)} partitions wait, the oldest since"
    said = f"because {key.to_user_string()} {partition}".rstrip() + f" {state}; {waits} {when}"
    metadata: dict[str, Any] = {
        "lag_seconds": round(lag, 1),
        "late_partitions": len(late),
        "oldest": ", ".join(oldest[:_NAMED]),
        "cause_asset": dg.MetadataValue.asset(key),
        "cause_partition": partition,
    }
    if run:
        metadata["run"] = dg.MetadataValue.dagster_run(run)
    return {
        "passed": lag < limits[0],
        "severity": dg.AssetCheckSeverity.ERROR if lag >= limits[1] else dg.AssetCheckSeverity.WARN,
        "description": f"late {said}" if lag >= limits[0] else f"not late yet; behind {said}",
        "metadata": metadata,
    }


def _state_of(
    instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, partition: str, since: float, now: float
) -> tuple[str, str | None]:
    """What happens to the partition, in words; and the id of the run in which it does."""
    attempt = attempts(instance, key, graph.partitions(key)).get(partition)
    run_id = attempt.run_id if attempt else ""
    record = instance.get_run_record_by_id(run_id) if run_id else None
    if record and not record.dagster_run.is_finished:
        verb = "waits in the queue" if record.dagster_run.status == dg.DagsterRunStatus.QUEUED else "is being made"
        return f"{verb} in run {run_id[:8]}", run_id
    ended = (record.end_time or record.update_timestamp.timestamp()) if record else 0.0
    if record and ended >= since:
        # A run can succeed without what it was to make: a step that is conditional made nothing.
        verb = _ENDS.get(record.dagster_run.status, "was not made")
        return f"{verb} {_duration(now - ended)} ago in run {run_id[:8]}", run_id
    return "was not requested since" if partition in event_numbers(instance, key) else "was never requested", None


def _duration(elapsed: float) -> str:
    """In the largest unit that it is at least two of."""
    for unit, size in (("d", 86_400), ("h", 3600), ("min", 60)):
        if elapsed >= 2 * size:
            return f"{elapsed / size:.0f} {unit}"
    return f"{max(0.0, elapsed):.0f} s"


def _state(result: Mapping[str, Any]) -> str:
    """What a result is reported anew for."""
    if result["passed"]:
        return "passed"
    return f"{result['severity'].value} because of {result['metadata']['cause_asset'].asset_key.to_user_string()}"


def _digest(arrivals: Arrivals) -> str:
    reported = sorted((key.to_user_string(), sorted(of_asset.items())) for key, of_asset in arrivals.items())
    return hashlib.sha256(json.dumps(reported).encode()).hexdigest()[:16]


def _cursor(context: dg.SensorEvaluationContext) -> Mapping[str, Any]:
    anew = {"seen": -1, "arrived": "", "at": 0.0, "due": 0.0, "reported": {}}
    if context.cursor is None:
        return anew
    try:
        cursor = json.loads(context.cursor)
        kept = {name: type(of_type)(cursor[name]) for name, of_type in anew.items()}
        return {**kept, "reported": {str(asset): str(state) for asset, state in kept["reported"].items()}}
    except (ValueError, TypeError, KeyError, AttributeError):
        context.log.warning(f"The cursor {context.cursor[:100]!r} is of another release; everything is judged anew.")
        return anew
