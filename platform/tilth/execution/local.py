"""Steps in processes that are warm when they begin: Dagster's multiprocess executor, its lazy imports done once."""

import atexit
import gc
from collections.abc import Iterator, Sequence
from functools import partial
from typing import Any

import dagster as dg

from tilth._dagster.fork_server import fork_server
from tilth._dagster.preload import note
from tilth.execution.compute import request_of, shortages
from tilth.execution.concurrency_guard import partitions_of, planned_partitions, wait_for_turn
from tilth.execution.timeouts import execute_in_time


def warm_executor(
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
    warm_up(code_location, modules, in_template)
    # For where steps cannot be forked from the run's process: Python's own server, a new program, imports these.
    imports = ["__main__", code_location, *modules, "tilth._dagster.parent_watchdog"]
    schema: Any = dg.multiprocess_executor.config_schema
    warm = dg.ExecutorDefinition(
        name="warm",
        config_schema=schema,
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=partial(_create, code_location),
        description="Each step in a process of its own, forked from one that is warm.",
    )
    return warm.configured(
        {"start_method": {"forkserver": {"preload_modules": imports}}, "max_concurrent": max_concurrent}, name="warm"
    )


def warm_up(code_location: str, modules: Sequence[str], in_template: Sequence[str]) -> None:
    """Note what the process is to import that steps are forked from."""
    note(code_location, modules, in_template)
    # Dagster, which is loaded by now, stays: while the rest is, collecting garbage would look through it over and over.
    gc.freeze()
    # In the end it goes: DuckDB would say, in a hundred lines, what of it was never collected.
    atexit.register(gc.unfreeze)


def _create(code_location: str, context: dg.InitExecutorContext) -> dg.Executor:
    fork_server(context.instance, code_location)
    create: Any = dg.multiprocess_executor.executor_creation_fn
    return _Warm(create(context))


class _Warm(dg.Executor):
    def __init__(self, executor: dg.Executor) -> None:
        self._executor = executor

    @property
    def retries(self) -> Any:
        return self._executor.retries

    @property
    def step_dependency_config(self) -> Any:
        return self._executor.step_dependency_config

    def execute(self, plan_context: Any, execution_plan: Any) -> Iterator[dg.DagsterEvent]:
        _warn_of_shortages(plan_context, execution_plan)
        wait_for_turn(plan_context.instance, plan_context.run_id)
        yield from execute_in_time(self._executor, plan_context, execution_plan)


def _warn_of_shortages(plan_context: Any, execution_plan: Any) -> None:
    """Say what steps ask for that this machine does not have. They run all the same: often with less data here."""
    asking = [(step, request) for step in execution_plan.steps if (request := request_of(step.tags))]
    planned = planned_partitions(plan_context.instance, plan_context.run_id) if asking else {}
    for step, request in asking:
        if short := shortages(request.of(partitions_of(step, planned))):
            plan_context.log.warning(f"{step.key} asks for {' and '.join(short)}. It runs with what there is.")
