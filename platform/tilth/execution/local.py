"""Steps in processes of this machine, forked from one that has imported what they need."""

import os
from collections.abc import Sequence
from pathlib import Path

import dagster as dg

from tilth._dagster.executor import ProcessExecutor, Run, Step
from tilth._dagster.preload import fork_server, note
from tilth.execution.compute import TAG, Request, quantity, request_of
from tilth.execution.concurrency_guard import wait_for_earlier_runs
from tilth.execution.timeouts import Timeouts


def local_executor(
    code_location: str, *modules: str, in_template: Sequence[str] = (), max_concurrent: int | None = None
) -> dg.ExecutorDefinition:
    """An executor that forks each step from a server that has imported, and tried out, what a step needs.

    It is Dagster's multiprocess executor on a fork server, with four differences. A step begins in 0.1 to 0.2 s rather
    than 0.6 to 1.2 s (tilth/_dagster/preload.py says what was left to do in each); it ends when its run is killed
    (tilth/_dagster/parent_watchdog.py); a step with a `timeout(...)` is ended when it runs longer; and a run waits for
    those before it that make the same partitions (tilth/execution/concurrency_guard.py).

    Args:
        code_location, modules, in_template: as `executor_of` takes them.
        max_concurrent: steps at once in one run; as many as there are cores when left out.
    """
    note(code_location, modules, in_template)
    # For where steps cannot be forked from the run's process: Python's own server, a new program, imports these.
    imports = ["__main__", code_location, *modules, "tilth._dagster.parent_watchdog"]

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        fork_server(context.instance, code_location)
        return ProcessExecutor(imports, max_concurrent, _Watch())

    return dg.ExecutorDefinition(
        name="local",
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=create,
        description="Each step in a process of its own, forked from one that has imported what it needs.",
    )


class _Watch(Timeouts):
    """What is done beside the steps of a run: each ends in its time, and none begins before its partitions are free."""

    def begin(self, run: Run, steps: Sequence[Step]) -> None:
        # What this machine does not have is said. The steps run all the same: often with less data here.
        for step in steps:
            request = request_of(step.tags, step.partitions) if TAG in step.tags else None
            if request and (short := shortages(request)):
                run.log.warning(f"{step.key} asks for {' and '.join(short)}. It runs with what there is.")
        wait_for_earlier_runs(run.instance, run.id)


def shortages(request: Request) -> list[str]:
    """What of the request this machine does not have, a phrase each."""
    from joblib import cpu_count  # 0.2 s to import, which definitions need not pay

    has_bytes = os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    short = []
    if request.cpu is not None and request.cpu > cpu_count():
        short.append(f"{request.cpu:g} CPU where there are {cpu_count()}")
    if request.memory is not None and quantity(request.memory) > has_bytes:
        short.append(f"{request.memory} memory where there are {has_bytes / 2**30:.1f}Gi")
    has_gpus = len(list(Path("/dev").glob("nvidia[0-9]*")))
    if request.gpu and request.gpu > has_gpus:
        short.append(f"{request.gpu} GPU where there are {has_gpus}")
    return short
