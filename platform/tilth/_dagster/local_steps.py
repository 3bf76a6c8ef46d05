"""Steps in processes of the run's own pod, forked from one that has imported all: they start at once."""

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from multiprocessing import get_context
from multiprocessing.connection import wait
from typing import Any

from tilth._dagster.processes import descendants

_GRACE_SECONDS = 5.0
_POLL_SECONDS = 0.2
# Starting a process looks how all others are, and of two threads that look at once the second finds 255 for an exit
# code. So one thread at a time starts a process or reads how one ended.
_ONE_LOOKS = threading.Lock()


@dataclass
class _LocalStep:
    limit_seconds: float | None
    pid: int | None = None
    began: float = 0.0
    exit_code: int | None = None
    not_started: str = ""
    told_to_stop: bool = False
    # Once it is told: what it had started by then, and when the grace is over.
    below: list[int] = field(default_factory=list)
    kill_at: float = math.inf
    ended: threading.Event = field(default_factory=threading.Event)


class LocalSteps:
    """Those of one run: `slots` at once, the others wait in the order in which they came."""

    def __init__(self, slots: int) -> None:
        self._pool = ThreadPoolExecutor(slots, thread_name_prefix="step")
        self._steps: dict[str, _LocalStep] = {}

    def start(self, step_key: str, arguments: str, limit_seconds: float | None) -> None:
        """Execute the step as `dagster api execute_step --compressed-input-json ARGUMENTS` would."""
        step = self._steps[step_key] = _LocalStep(limit_seconds)
        self._pool.submit(_follow, step, arguments)

    def overdue(self, step_key: str) -> bool:
        """Whether the step has run for longer than its timeout."""
        step = self._steps[step_key]
        running = step.pid is not None and not step.ended.is_set()
        return running and step.limit_seconds is not None and time.monotonic() - step.began > step.limit_seconds

    def death(self, step_key: str) -> str:
        """How the step's process ended; empty while it lives. Where the log says how the step ended, that counts,
        also of exit code 0, with which a library may end the whole program.
        """
        if why := self._steps[step_key].not_started:
            return f"could not be started ({why})"
        code = self._steps[step_key].exit_code
        if code is None:
            return ""
        if code == 0:
            return "ended with exit code 0 before its step had ended"
        if code > 0:
            return f"ended with exit code {code}"
        # Those for programs' own use have no name.
        name = next((known.name for known in signal.Signals if known == -code), f"signal {-code}")
        return f"was ended by {name}"

    def kill(self, step_key: str) -> None:
        """End the step at once with the processes that it started; whoever does so records why."""
        step = self._steps[step_key]
        step.told_to_stop = True
        if step.pid is not None and not step.ended.is_set():
            _signal([step.pid, *descendants(step.pid)], signal.SIGKILL)
            step.ended.wait(_GRACE_SECONDS)

    def stop(self) -> None:
        """Ask all steps to end, so that each records that it was interrupted, and start none of those that wait. One
        that has not ended after a grace is killed; what a step started ends with it.
        """
        left = [step for step in self._steps.values() if not step.told_to_stop]
        for step in left:
            step.told_to_stop = True
        for step in left:
            if step.pid is not None and not step.ended.is_set():
                step.below, step.kill_at = descendants(step.pid), time.monotonic() + _GRACE_SECONDS
                _signal([step.pid], signal.SIGTERM)

    def join(self) -> None:
        """After `stop`: return when all have ended, or after twice the grace, where the kernel cannot end one yet."""
        until = time.monotonic() + 2 * _GRACE_SECONDS
        for step in self._steps.values():
            step.ended.wait(max(0.0, until - time.monotonic()))


def _follow(step: _LocalStep, arguments: str) -> None:
    """Start the process and wait for its end."""
    try:
        if not step.told_to_stop:
            process = get_context("forkserver").Process(target=_execute, args=(arguments,))
            step.began = time.monotonic()
            with _ONE_LOOKS:
                process.start()
            step.pid = process.pid
            # Whoever stopped it meanwhile found no process: either they see its number now, or this sees them.
            if step.told_to_stop:
                process.kill()
            while not wait([process.sentinel], _POLL_SECONDS):
                if time.monotonic() > step.kill_at and process.pid is not None:
                    _signal([process.pid, *descendants(process.pid)], signal.SIGKILL)
            _signal(step.below, signal.SIGKILL)
            with _ONE_LOOKS:
                step.exit_code = process.exitcode
    except Exception as problem:  # noqa: BLE001 (nobody reads what this thread raises: the step would never end)
        step.not_started = f"{type(problem).__name__}: {problem}"
    finally:
        step.ended.set()


def _signal(pids: Iterable[int], number: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, number)


def _execute(arguments: str) -> None:
    from dagster._cli import api

    execute: Callable[..., Any] = api.execute_step_command.main
    execute(["--compressed-input-json", arguments], standalone_mode=False)
