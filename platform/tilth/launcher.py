"""Runs on one machine whose process died are found, also when the code server that started it is gone.

Dagster's own launcher leaves it to the code server to notice. After a restart of the machine, or of `make dev` at the
wrong moment, nobody does: such a run stays "started" for ever, holds its place in the queue, and what waits for its
partitions waits. With this launcher Dagster's run monitoring looks at the process itself, and `run_retries` starts the
run again from where it failed.

It is set in `platform/dagster.yaml`; what here is not Dagster's public API docs/upgrading.md names.
"""

import os
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

_PID = "pid"
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_SLACK_SECONDS = 2.0  # the kernel tells a process' start in hundredths, counted from a boot time in whole seconds


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher for one machine, of runs whose processes can be looked for."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process that last said that it executes this run is there. What never said so counts as there."""
        found = _process(self._instance, run.run_id)
        if found is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its process has not said its number yet")
        pid, said_at = found
        if _is_there(pid, said_at):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"its process {pid} is gone: killed, or the machine was restarted"
        )


def _process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float] | None:
    """The number of the run's process, and when it said so."""
    entries = instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)
    for entry in reversed(entries):
        event: Any = entry.dagster_event
        if event.step_key is None and (pid := event.engine_event_data.metadata.get(_PID)):
            return int(pid.value), entry.timestamp
    return None


def _is_there(pid: int, said_at: float) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    stat = Path(f"/proc/{pid}/stat")
    if not stat.exists():
        return not Path("/proc/self").exists()  # macOS has none: there a number that was given again goes unseen
    state, *fields = stat.read_text().rpartition(")")[2].split()
    boot = next(
        int(line.split()[1]) for line in Path("/proc/stat").read_text().splitlines() if line.startswith("btime")
    )
    began = boot + int(fields[18]) / _CLOCK_TICKS
    return state != "Z" and began <= said_at + _SLACK_SECONDS
