"""Steps in processes of this machine, forked from one that has imported what they need."""

import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import dagster as dg

from tilth._dagster.executor import Problem, Run, Step
from tilth._dagster.local_steps import LocalSteps
from tilth._dagster.preload import fork_server, note
from tilth._dagster.processes import cores
from tilth.execution import timeouts
from tilth.execution.compute import TAG, Request, quantity, request_of
from tilth.execution.concurrency_guard import wait_for_earlier_runs

if TYPE_CHECKING:
    from tilth._dagster.delegating_executor import Attempt

POLL_SECONDS = 0.1
HEALTH_SECONDS = 1


def local_executor(
    code_location: str, *modules: str, in_template: Sequence[str] = (), max_concurrent: int | None = None
) -> dg.ExecutorDefinition:
    """An executor that forks each step from a process that has imported, and tried out, what a step needs.

    As Dagster's multiprocess executor it runs each step in a process of its own, with four differences. A step begins
    in 0.1 to 0.2 s rather than 0.6 to 1.2 s (tilth/_dagster/preload.py says what was left to do in each); it ends when
    its run is killed (tilth/_dagster/parent_watchdog.py); a step with a `timeout(...)` is ended when it runs longer;
    and a run waits for those before it that make the same partitions (tilth/execution/concurrency_guard.py).

    Args:
        code_location, modules, in_template: as `executor_of` takes them.
        max_concurrent: steps at once in one run; as many as there are cores when left out.
    """
    note(code_location, modules, in_template)

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        from tilth._dagster.delegating_executor import DelegatingExecutor  # what runs need, and definitions not

        fork_server(context.instance, code_location)
        slots = max_concurrent or cores()
        return DelegatingExecutor(
            "local",
            StepsOfThisMachine(slots),
            poll_seconds=POLL_SECONDS,
            health_seconds=HEALTH_SECONDS,
            max_concurrent=slots,
        )

    return dg.ExecutorDefinition(
        name="local",
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=create,
        description="Each step in a process of its own, forked from one that has imported what it needs.",
    )


class StepsInProcesses:
    """The steps of a run in processes beside it, `slots` at once; what becomes of each is said."""

    def __init__(self, slots: int) -> None:
        self._local = LocalSteps(slots)

    def begin(self, run: Run, steps: Sequence[Step]) -> None:  # noqa: ARG002
        wait_for_earlier_runs(run.instance, run.id)

    def launch(self, attempt: "Attempt") -> None:
        step = attempt.step
        attempt.report_start(f"Executing {step.key} in a process of its own.")
        limit = timeouts.seconds(step.tags[timeouts.TAG]) if timeouts.TAG in step.tags else None
        self._local.start(step.key, attempt.arguments, limit)

    def problem(self, attempt: "Attempt") -> Problem | None:
        """Why the attempt ended without a record; None while it may still do its work."""
        step = attempt.step
        if self._local.overdue(step.key):
            self._local.kill(step.key)
            return Problem("policy", timeouts.explanation(step, step.tags[timeouts.TAG]))
        death = self._local.death(step.key)
        return Problem("policy", self.died(step, death)) if death else None

    def died(self, step: Step, how: str) -> str:
        return (
            f"The process of {step.name} {how}. If it needed more memory than this machine has left, run fewer "
            "partitions, or fewer steps, at once."
        )

    def stop(self, attempt: "Attempt") -> None:  # noqa: ARG002
        self._local.stop()  # all at once: none that waits for a slot takes that of another

    def succeeded(self, step: Step) -> None:
        """Nothing is kept of it."""

    def end(self) -> None:
        self._local.stop()
        self._local.join()


class StepsOfThisMachine(StepsInProcesses):
    """Where nothing else is asked for them."""

    def begin(self, run: Run, steps: Sequence[Step]) -> None:
        # What this machine does not have is said. The steps run all the same: often with less data here.
        for step in steps:
            request = request_of(step.tags, step.partitions) if TAG in step.tags else None
            if request and (short := shortages(request)):
                run.log.warning(f"{step.key} asks for {' and '.join(short)}. It runs with what there is.")
        super().begin(run, steps)


def shortages(request: Request) -> list[str]:
    """What of the request this machine does not have, a phrase each."""
    has_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    short = []
    if request.cpu is not None and request.cpu > cores():
        short.append(f"{request.cpu:g} CPU where there are {cores()}")
    if request.memory is not None and quantity(request.memory) > has_bytes:
        short.append(f"{request.memory} memory where there are {has_bytes / 2**30:.1f}Gi")
    has_gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if request.gpu and request.gpu > has_gpus:
        short.append(f"{request.gpu} GPU where there are {has_gpus}")
    return short
