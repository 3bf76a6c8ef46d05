"""The executor of a code location, by deployment: the same definitions on a laptop and on Kubernetes."""

from collections.abc import Sequence

import dagster as dg

from tilth.settings import Deployment


def executor_of(
    deployment: Deployment, code_location: str, *modules: str, in_template: Sequence[str] = ()
) -> dg.ExecutorDefinition:
    """`local_executor` on one machine, `kubernetes_executor` on Kubernetes (TILTH_EXECUTOR, which the chart sets).

    Args:
        code_location: the module of the code location, as in workspace.yaml: `assets.orders.definitions`. What it
            imports, and the `dg.Definitions` in it, are there when a step begins.
        modules: what the assets and resources import only when they run, such as `deltalake` or `pyarrow.dataset`. A
            name that cannot be imported is passed over; the step then says so itself. Not those that start threads when
            they are imported: a fork does not take them along.
        in_template: modules that take seconds to import and that some of the steps need, such as `sklearn.ensemble`.
            Where runs are forked from a template (tilth/execution/supervisor.py), that has them. Of a resource with a
            method `preload()` the template has called it.
    """
    if deployment.executor == "kubernetes":
        from tilth.execution.steps import kubernetes_executor

        return kubernetes_executor(code_location, *modules)
    from tilth.execution.local import local_executor

    return local_executor(code_location, *modules, in_template=in_template)
