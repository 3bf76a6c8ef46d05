"""Runs on one machine: forked from a process that is warm, and found when their own has died.

Dagster's launcher starts a run as a new program, which imports all of its code location. Under
`tilth.execution.supervisor` this one has it forked from a template. Without one, or where it cannot fork the run,
Dagster's own way is taken.

Dagster also leaves it to the code server to notice that a run's process died. After a restart of the machine, or of
`make dev` at the wrong moment, nobody does: such a run stays "started" for ever, holds its place in the queue, and what
waits for its partitions waits. With this launcher Dagster's run monitoring looks at the process itself, and
`run_retries` starts the run again from where it failed.

It is set in `platform/dagster.yaml`; what here is not Dagster's public API docs/upgrading.md names.
"""

import os
import signal
import socket
from contextlib import suppress
from pathlib import Path
from typing import Any

import dagster as dg
from dagster._core.code_pointer import ModuleCodePointer
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import CheckRunHealthResult, LaunchRunContext, WorkerStatus
from dagster._core.storage.tags import GRPC_INFO_TAG

from tilth._dagster.fork_protocol import ADDRESS, GO

_PID, _BEGAN = "pid", "began"
_PROC = Path("/proc")
_CLOCK_TICKS = os.sysconf("SC_CLK_TCK")
# A template that is being made anew takes some seconds, on a busy machine many.
_PATIENCE_SECONDS = 120.0
_SLACK_SECONDS = 2.0  # the kernel tells a process' start in hundredths, counted from a boot time in whole seconds


class LocalRunLauncher(dg.DefaultRunLauncher):
    """Dagster's launcher for one machine, of runs that are forked and whose processes can be looked for."""

    def launch_run(self, context: LaunchRunContext) -> None:
        address = os.environ.get(ADDRESS)
        if address is None or not self._fork(address, context.dagster_run):
            super().launch_run(context)

    def _fork(self, address: str, run: dg.DagsterRun) -> bool:
        """Whether the run was forked from a template: it begins when told to, and only then."""
        pointer = run.job_code_origin.repository_origin.code_pointer if run.job_code_origin else None
        if not isinstance(pointer, ModuleCodePointer):
            return False
        with suppress(OSError), socket.socket(socket.AF_UNIX) as template:
            template.settimeout(_PATIENCE_SECONDS)
            template.connect(address)
            template.sendall(f"{pointer.module} {run.run_id}".encode())
            pid = template.recv(64)
            if pid.isdigit():
                process = EngineEventData.in_process(int(pid))
                self._instance.report_engine_event(f"Forked as process {int(pid)} from a warm one.", run, process)
                template.sendall(GO)
                return True
        return False

    def terminate(self, run_id: str) -> bool:
        """Interrupt the run, which then stops its steps. Whether there was something to interrupt."""
        run = self._instance.get_run_by_id(run_id)
        if run is None or run.is_finished or GRPC_INFO_TAG in run.tags:
            return super().terminate(run_id)
        self._instance.report_run_canceling(run)
        found = _process(self._instance, run_id)
        if found is None or self.check_run_worker_health(run).status is not WorkerStatus.RUNNING:
            return False
        os.kill(found[0], signal.SIGINT)
        return True

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
