"""A limit to how long a step may run, given to its asset: `@dg.asset(op_tags=timeout("10m"))`.

Both executors enforce it, from outside of the step's process: code that is stuck in C or asleep is ended too. Where
steps run within the run's own process (`dg.materialize`, `in_process_executor`) a timeout changes nothing.
"""

import os
import re
import signal
import threading
from collections import defaultdict
from contextlib import suppress
from dataclasses import dataclass, field

from tilth._dagster.executor import Step
from tilth._dagster.processes import descendants

TAG = "tilth/timeout"
_SECONDS = {"s": 1, "m": 60, "h": 3600}
_GRACE_SECONDS = 5.0


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


def explanation(step: Step, limit: str) -> str:
    """What the failure of a step says that ran longer than its limit."""
    return (
        f"{step.name} ran longer than its timeout of {limit} and was ended. What it had stored is kept. Look at the "
        "last lines of its log for where it was; if it only needs longer, run fewer partitions at once or raise the "
        f'limit: op_tags=timeout("{limit}") on the asset.'
    )


@dataclass
class _Attempt:
    """At a step: whether its end was recorded, and whether it was still at work when its time was over."""

    ended: threading.Event = field(default_factory=threading.Event)
    overdue: bool = False


class Timeouts:
    """Ends the processes of a run's steps that are at work for longer than they may."""

    def __init__(self) -> None:
        self._attempts: dict[str, _Attempt] = defaultdict(_Attempt)

    def started(self, step: Step, pid: int) -> None:
        """An attempt at the step is at work in this process, with the programs that it starts."""
        if TAG in step.tags:
            # One that ended just when its time was over says nothing of the next.
            attempt = self._attempts[step.key] = _Attempt()
            watch = (pid, seconds(step.tags[TAG]), attempt)
            threading.Thread(target=_end_when_due, args=watch, name=f"timeout of {step.key}", daemon=True).start()

    def ended(self, step: Step) -> None:
        """The end of the attempt is recorded."""
        self._attempts[step.key].ended.set()

    def reason(self, step: Step) -> str:
        """Why the step's process died; empty where it was not ended here."""
        return explanation(step, step.tags[TAG]) if self._attempts[step.key].overdue else ""

    def end(self) -> None:
        """The run is over."""
        for attempt in self._attempts.values():
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
