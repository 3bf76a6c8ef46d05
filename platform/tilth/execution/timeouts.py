"""A limit to how long a step may run, given to its asset: `@dg.asset(op_tags=timeout("10m"))`.

`warm_executor` enforces it, from outside of the step's process: code that is stuck in C or asleep is ended too. Where
steps run within the run's own process (`dg.materialize`, `in_process_executor`) a timeout changes nothing.

What here is not Dagster's public API docs/upgrading.md names.
"""

import os
import re
import signal
import threading
from collections import defaultdict
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field
from typing import Any

import dagster as dg

from tilth._dagster.processes import descendants

TAG = "tilth/timeout"
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_GRACE_SECONDS = 5.0
_ENDED = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.STEP_SKIPPED,
}


def timeout(limit: str) -> dict[str, str]:
    """The op tags of an asset whose step is ended when it has run for `limit`: "90s", "10m" or "2h".

    The limit is for one attempt at one step with all of its partitions, from the start of its process. The step then
    fails, or is tried again where the asset has a retry policy. Beside other tags: `op_tags={**timeout("2h"), ...}`.

    Raises:
        ValueError: `limit` is not a whole number above zero and its unit.
    """
    seconds(limit)
    return {TAG: limit}


def seconds(limit: str) -> int:
    """How many seconds "90s", "10m" or "2h" are; ValueError for any other text."""
    found = re.fullmatch(r"([1-9][0-9]*)([smh])", limit)
    if found is None:
        raise ValueError(f'timeout({limit!r}): write a whole number above zero and its unit: "90s", "10m" or "2h".')
    return int(found[1]) * _SECONDS[found[2]]


@dataclass
class _Attempt:
    """At a step: whether its end was recorded, and whether it was still at work when its time was over."""

    ended: threading.Event = field(default_factory=threading.Event)
    overdue: bool = False


def execute_in_time(executor: dg.Executor, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
    """What the executor, of steps in processes of their own on this machine, does; steps with a `timeout` end by it."""
    limits = {step.key: step.tags[TAG] for step in execution_plan.steps if TAG in step.tags}
    attempts: dict[str, _Attempt] = defaultdict(_Attempt)
    record = executor.log_failure_or_retry_event_after_error

    def explained(step_context: Any, err_info: Any, known_state: Any) -> dg.DagsterEvent:
        step = step_context.step
        if attempts[step.key].overdue:
            message = explanation(assets_of(step) or step.key, step_context.dagster_run.tags, limits[step.key])
            err_info = err_info._replace(message=message, stack=[], cls_name="StepTimedOut")
        return record(step_context, err_info, known_state)

    # Dagster records that a process died as one death among others; only here can the failure say why.
    executor.log_failure_or_retry_event_after_error = explained
    try:
        for event in executor.execute(plan_context, execution_plan):
            key = event.step_key or ""
            if key in limits and event.event_type is dg.DagsterEventType.STEP_WORKER_STARTED:
                # One that ended just when its time was over says nothing of the next.
                attempts[key] = _Attempt()
                watch = (event.pid, seconds(limits[key]), attempts[key])
                threading.Thread(target=_end_when_due, args=watch, name=f"timeout of {key}", daemon=True).start()
            elif key in limits and event.event_type in _ENDED:
                attempts[key].ended.set()
            yield event
    finally:
        for attempt in attempts.values():
            attempt.ended.set()


def _end_when_due(pid: int, limit_seconds: float, attempt: _Attempt) -> None:
    """End the process after its time, with the programs that it started, unless its step ends before."""
    if attempt.ended.wait(limit_seconds):
        return
    attempt.overdue = True
    processes = [pid, *descendants(pid)]
    # The alarm first: Dagster reports a process that was killed by SIGKILL as short of memory.
    for number in (signal.SIGALRM, signal.SIGKILL):
        for process in processes:
            with suppress(ProcessLookupError):
                os.kill(process, number)
        if attempt.ended.wait(_GRACE_SECONDS):
            return


def assets_of(step: Any) -> str:
    """The keys of the assets that a step makes, as text."""
    return ", ".join(sorted(output.asset_key.to_user_string() for output in step.step_outputs if output.asset_key))


def explanation(what: str, tags: Mapping[str, str], limit: str) -> str:
    """What the failure of a step says that ran longer than its `limit`; `tags` are the run's."""
    ends = [tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end")]
    partition = tags.get("dagster/partition") or (f"{ends[0]} to {ends[1]}" if ends[0] else "")
    return (
        f"{what} {partition}".rstrip() + f" ran longer than its timeout of {limit} and was ended. What it had stored is"
        " kept. Look at the last lines of its log for where it was; if it only needs longer, run fewer partitions at"
        f' once or raise the limit: op_tags=timeout("{limit}") on the asset.\n'
    )
