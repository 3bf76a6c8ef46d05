"""No partition of an asset is made by two runs at once: a run begins when those before it that make the same are done.

Automation leaves a partition alone that is being made, but a person, a backfill and a sensor do not know of each other.
Dagster's limits do not say it: a pool counts steps of any partition, and a run's tags do not name those of a range.

Runs take their turn by when they started, so that of two the earlier never waits for the later. `warm_executor` asks.

A run notes the moment of its start before others can read it. So whoever asks first waits for those that are about to
start; what begins to start after it has asked starts later. Then it sees every run that started before it.
"""

import os
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._utils.interrupts import raise_interrupts_as

LOOK_SECONDS = 1.0
# What is about to start for longer than this waits for a machine, rather than for the database to store its start.
START_SECONDS = 60.0
_ABOUT_TO_START = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]
_AT_WORK = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def wait_for_turn(instance: dg.DagsterInstance, run_id: str) -> None:
    """Return when no run that started before this one is making a partition that this one makes.

    What it waits for is in the run's log. Of machines whose clocks differ, two runs that start within that difference
    may both go on, and so may two of which one takes a minute to store its start; the stores then keep what the later
    one wrote, whole.

    Raises:
        DagsterExecutionInterruptedError: the run was cancelled meanwhile.
    """
    # In this order: a run that starts meanwhile is among the first or among the second.
    others = _that_make_the_same(instance, run_id, instance.get_runs(dg.RunsFilter(statuses=_ABOUT_TO_START)))
    for run, what in others:
        message = f"Waits for the run {run.run_id} to start, which makes {what} as well: the earlier goes first."
        _say(instance, run_id, message)
        patience = time.monotonic() + START_SECONDS
        _wait_while(
            instance, run, lambda now, until=patience: now.status in _ABOUT_TO_START and time.monotonic() < until
        )
    waited_for: set[str] = set()
    while common := next(
        _that_make_the_same(
            instance, run_id, (run for run in _started_before(instance, run_id) if run.run_id not in waited_for)
        ),
        None,
    ):
        run, what = common
        _say(instance, run_id, f"Waits for the run {run.run_id}, which began before this one and makes {what} as well.")
        _wait_while(instance, run, lambda now: not now.is_finished)
        waited_for.add(run.run_id)


def _that_make_the_same(
    instance: dg.DagsterInstance, run_id: str, others: Iterable[dg.DagsterRun]
) -> Iterator[tuple[dg.DagsterRun, str]]:
    """Of the others those that make a partition of this run, with its name."""
    own: Mapping[dg.AssetKey, set[str]] | None = None
    for run in others:
        if run.run_id != run_id:
            own = planned_partitions(instance, run_id) if own is None else own
            if what := _common(own, planned_partitions(instance, run.run_id)):
                yield run, what


def _say(instance: dg.DagsterInstance, run_id: str, message: str) -> None:
    # With its process' number, which is what tilth._dagster.run_launcher looks for.
    instance.report_engine_event(message, instance.get_run_by_id(run_id), EngineEventData.in_process(os.getpid()))


def _wait_while(instance: dg.DagsterInstance, run: dg.DagsterRun, holds: Callable[[dg.DagsterRun], bool]) -> None:
    with raise_interrupts_as(dg.DagsterExecutionInterruptedError):
        while (now := instance.get_run_by_id(run.run_id)) and holds(now):
            time.sleep(LOOK_SECONDS)


def _started_before(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.DagsterRun]:
    records = instance.get_run_records(dg.RunsFilter(statuses=_AT_WORK))
    started = {record.dagster_run.run_id: (record.start_time or 0.0, record.dagster_run.run_id) for record in records}
    for record in sorted(records, key=lambda record: started[record.dagster_run.run_id]):
        if run_id in started and started[record.dagster_run.run_id] < started[run_id]:
            yield record.dagster_run


def planned_partitions(instance: dg.DagsterInstance, run_id: str) -> dict[dg.AssetKey, set[str]]:
    """By asset, the partitions that the run was made for; of an asset without any, "" stands for it."""
    planned: dict[dg.AssetKey, set[str]] = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED):
        event = entry.dagster_event
        if event and event.asset_key:
            subset = event.partitions_subset
            keys = [event.partition or ""] if subset is None else subset.get_partition_keys()
            planned.setdefault(event.asset_key, set()).update(keys)
    return planned


def partitions_of(step: Any, planned: Mapping[dg.AssetKey, set[str]]) -> list[str]:
    """The keys that a step of the run makes, of all its assets; none where they have no partitions."""
    assets = {output.asset_key for output in step.step_outputs if output.asset_key}
    return sorted({key for asset in assets for key in planned.get(asset, ()) if key})


def _common(own: Mapping[dg.AssetKey, set[str]], other: Mapping[dg.AssetKey, set[str]]) -> str:
    for key in sorted(own.keys() & other.keys()):
        if common := sorted(own[key] & other[key]):
            more = f" and {len(common) - 1} more partitions" if len(common) > 1 else ""
            return f"{key.to_user_string()} {common[0]}{more}".strip()
    return ""
