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
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import CheckRunHealthResult, WorkerStatus

_PID, _BEGAN = "pid", "began"
_PROC = Path("/proc")
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
_SLACK_SECONDS = 2.0  # the kernel tells a process' start in hundredths, counted from a boot time in whole seconds


class WatchedRunLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher for one machine, of runs whose processes can be looked for."""

    @property
    def supports_check_run_worker_health(self) -> bool:
        return True

    def check_run_worker_health(self, run: dg.DagsterRun) -> CheckRunHealthResult:
        """Whether the process that last said that it executes this run is there. What never said so counts as there.

        Another process may have its number by now: after a restart of the machine, or of a container. When it began
        tells the two apart. The first look compares that with when the number was said, by the wall clock, and notes it
        in the run's log in the kernel's own count, by which all later looks go: somebody may set the clock.
        """
        found = _process(self._instance, run.run_id)
        if found is None:
            return CheckRunHealthResult(WorkerStatus.RUNNING, "its process has not said its number yet")
        pid, said_at, noted = found
        ticks = _began(pid)
        if ticks is not None and not noted and _wall_clock(ticks) <= said_at + _SLACK_SECONDS:
            noted = _of_this_boot(ticks)
            note = EngineEventData({_PID: dg.MetadataValue.text(str(pid)), _BEGAN: dg.MetadataValue.text(noted)})
            self._instance.report_engine_event(f"Looks after its process {pid} from here on.", run, note)
        if ticks is not None and noted == _of_this_boot(ticks):
            return CheckRunHealthResult(WorkerStatus.RUNNING)
        return CheckRunHealthResult(
            WorkerStatus.NOT_FOUND, f"its process {pid} is gone: killed, or the machine was restarted"
        )


def _process(instance: dg.DagsterInstance, run_id: str) -> tuple[int, float, str] | None:
    """The number of the run's process, when it said so, and what was noted of its beginning; "" before that."""
    said: tuple[int, float] | None = None
    for entry in reversed(instance.all_logs(run_id, of_type=dg.DagsterEventType.ENGINE_EVENT)):
        event: Any = entry.dagster_event
        metadata = event.engine_event_data.metadata
        if event.step_key is not None or _PID not in metadata:
            continue
        pid = int(metadata[_PID].value)
        said = said or (pid, entry.timestamp)
        if pid == said[0] and _BEGAN in metadata:
            return *said, metadata[_BEGAN].value
    return (*said, "") if said else None


def _began(pid: int) -> int | None:
    """When a process began, in ticks since the machine did; None of one that is gone, 0 without /proc (macOS): there a
    number that was given again goes unseen.
    """
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return None
    except PermissionError:
        pass
    if not _PROC.joinpath("self").exists():
        return 0
    try:
        state, *fields = _PROC.joinpath(str(pid), "stat").read_text().rpartition(")")[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return int(fields[18]) if state != "Z" else None


def _of_this_boot(ticks: int) -> str:
    boot = _PROC / "sys/kernel/random/boot_id"
    return f"{ticks} of {boot.read_text().strip() if boot.exists() else 'some boot'}"


def _wall_clock(ticks: int) -> float:
    stat = _PROC / "stat"
    lines = stat.read_text().splitlines() if stat.exists() else []
    boot = next((int(line.split()[1]) for line in lines if line.startswith("btime")), 0)
    return boot + ticks / _CLOCK_TICKS
