"""What a process does that was forked to execute a run: as `dagster api execute_run`, without printing each event.

What here is not Dagster's public API docs/upgrading.md names.
"""

import os

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._grpc.impl import core_execute_run
from dagster._utils.hosted_user_process import recon_job_from_origin
from dagster._utils.interrupts import capture_interrupts


def execute(run_id: str) -> None:
    """Execute the run, which an instance of DAGSTER_HOME holds; the run's log says how it ends.

    Raises:
        LookupError: there is no such run, or it does not say where its code is.
    """
    with capture_interrupts(), dg.DagsterInstance.get() as instance:
        run = instance.get_run_by_id(run_id)
        if run is None or run.job_code_origin is None:
            raise LookupError(
                f"Run {run_id} is not in the instance of DAGSTER_HOME, or does not say where its code is."
            )
        pid = os.getpid()
        process = EngineEventData.in_process(pid)
        instance.report_engine_event(f"Started process for run (pid: {pid}).", run, process)
        for _ in core_execute_run(recon_job_from_origin(run.job_code_origin), run, instance, inject_env_vars=True):
            pass


def read_environment_file() -> None:
    """A project's .env, as Dagster gives it to code servers and runs."""
    with dg.DagsterInstance.get() as instance:
        instance.inject_env_vars(None)
