"""No partition of an asset is made by two runs at once: a run begins when those before it that make the same are done.

Automation leaves a partition alone that is being made, but a person, a backfill and a sensor do not know of each other.
Dagster's limits do not say it: a pool counts steps of any partition, and a run's tags do not name those of a range.

Runs go in the order in which they started, so that of two the earlier never waits for the later. Both executors ask.

A run notes the moment of its start before others can read it. So whoever asks first waits for those that are about to
start; what begins to start after it has asked starts later. Then it sees every run that started before it.
"""

import time
from collections.abc import Iterable, Iterator, Mapping

import dagster as dg

from tilth._dagster.executor import planned_partitions, report, wait_while

POLL_SECONDS = 1.0
# What is about to start for longer than this waits for a machine, rather than for the database to store its start.
START_SECONDS = 60.0
_ABOUT_TO_START = [dg.DagsterRunStatus.NOT_STARTED, dg.DagsterRunStatus.STARTING]
_AT_WORK = [dg.DagsterRunStatus.STARTED, dg.DagsterRunStatus.CANCELING]


def wait_for_earlier_runs(instance: dg.DagsterInstance, run_id: str) -> None:
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
        report(instance, run_id, message)
        patience = time.monotonic() + START_SECONDS
        wait_while(
            instance,
            run.run_id,
            lambda now, until=patience: now.status in _ABOUT_TO_START and time.monotonic() < until,
            POLL_SECONDS,
        )
    waited_for: set[str] = set()
    while common := next(
        _that_make_the_same(
            instance, run_id, (run for run in _started_before(instance, run_id) if run.run_id not in waited_for)
        ),
        None,
    ):
        run, what = common
        report(
            instance, run_id, f"Waits for the run {run.run_id}, which began before this one and makes {what} as well."
        )
        wait_while(instance, run.run_id, lambda now: not now.is_finished, POLL_SECONDS)
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


def _started_before(instance: dg.DagsterInstance, run_id: str) -> Iterator[dg.DagsterRun]:
    records = instance.get_run_records(dg.RunsFilter(statuses=_AT_WORK))
    started = {record.dagster_run.run_id: (record.start_time or 0.0, record.dagster_run.run_id) for record in records}
    for record in sorted(records, key=lambda record: started[record.dagster_run.run_id]):
        if run_id in started and started[record.dagster_run.run_id] < started[run_id]:
            yield record.dagster_run


def _common(own: Mapping[dg.AssetKey, set[str]], other: Mapping[dg.AssetKey, set[str]]) -> str:
    for key in sorted(own.keys() & other.keys()):
        if common := sorted(own[key] & other[key]):
            more = f" and {len(common) - 1} more partitions" if len(common) > 1 else ""
            return f"{key.to_user_string()} {common[0]}{more}".strip()
    return ""
