"""Steps in processes that are warm when they begin: Dagster's multiprocess executor, its lazy imports done once."""

from typing import Any

import dagster as dg

from tilth.timeouts import with_timeouts


def warm_executor(code_location: str, *modules: str, max_concurrent: int | None = None) -> dg.ExecutorDefinition:
    """An executor that forks each step from a server that has imported, and tried out, what a step needs.

    It is Dagster's multiprocess executor on a fork server, with two differences. A step begins in 0.1 to 0.2 s rather
    than 0.6 to 1.2 s (tilth/rehearsal.py says what was left to do in each); and a step with a `timeout(...)` is ended
    when it runs longer.

    Args:
        code_location: the module of the code location, as in workspace.yaml: `assets.flights.definitions`. What it
            imports, and the `dg.Definitions` in it, are there when a step begins.
        modules: what the assets and resources import only when they run, such as `deltalake` or `pyarrow.dataset`. A
            name that cannot be imported is passed over; the step then says so itself. Not those that start threads when
            they are imported: a fork does not take them along.
        max_concurrent: steps at once in one run; as many as there are cores when left out.
    """
    schema: Any = dg.multiprocess_executor.config_schema
    warm = dg.ExecutorDefinition(
        name="warm",
        config_schema=schema,
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=_create,
        description="Each step in a process of its own, forked from one that is warm.",
    )
    # The rehearsal comes last, because it looks for the definitions that were imported before it.
    preload = ["__main__", code_location, *modules, "tilth.rehearsal"]
    return warm.configured(
        {"start_method": {"forkserver": {"preload_modules": preload}}, "max_concurrent": max_concurrent}, name="warm"
    )


def _create(context: dg.InitExecutorContext) -> dg.Executor:
    create: Any = dg.multiprocess_executor.executor_creation_fn
    return with_timeouts(create(context))
