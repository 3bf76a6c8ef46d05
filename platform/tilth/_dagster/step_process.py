"""What a step's own pod runs: Dagster's command for the step, in a process that is watched.

`main`, in the pod's command before a run's id and `dagster api execute_step`, does what the rest of the line says, but:

- Told to stop, because its node is drained or its Job is deleted, it ends without a record. Dagster's command would
  record that the step failed, and the run's executor could not try it again elsewhere (tilth/execution/steps.py).
- It ends when its run has ended, so that a step never outlives a run whose pod died.
- When the kernel ended a process that the step had started, for lack of memory, so does the step: the pod then says so,
  and the step gets more (tilth/execution/steps.py). Dagster knows of the step's own process only.
"""

import os
import signal
import sys
import threading
import time
from contextlib import suppress
from pathlib import Path

from tilth._dagster.connections import outlast_database_outages
from tilth._dagster.run_process import execute

POLL_SECONDS = 0.5
RUN_POLL_SECONDS = 15.0
ENDED_BY_SIGNAL = 128
# Of the container, where it is seen as the only one: version 2 of control groups, and 1.
_KILLED = ("/sys/fs/cgroup/memory.events", "/sys/fs/cgroup/memory/memory.oom_control")


def main() -> None:
    """Run the command that stands on the command line after the run's id, and exit as it does."""
    sys.exit(watched(sys.argv[1], sys.argv[2:]))


def watched(run_id: str, command: list[str]) -> int:
    """Run the command in a process of its own; its exit code, or 128 and the number of the signal that ended it."""
    child = os.fork()
    if child == 0:
        os.setpgid(0, 0)
        threading.Thread(target=_watch, args=(run_id,), daemon=True).start()
        outlast_database_outages()
        execute(command)
    with suppress(OSError):  # the child did it, or has ended
        os.setpgid(child, child)

    def stop(number: int, _: object) -> None:
        with suppress(ProcessLookupError):
            os.killpg(child, signal.SIGKILL)
        os._exit(ENDED_BY_SIGNAL + number)

    for number in (signal.SIGTERM, signal.SIGINT):
        signal.signal(number, stop)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    return ENDED_BY_SIGNAL - code if code < 0 else code


def _watch(run_id: str) -> None:
    """End this process group when the run is over or the kernel killed one of its processes."""
    killed, polled = processes_killed_for_memory(), time.monotonic()
    while processes_killed_for_memory() == killed:
        time.sleep(POLL_SECONDS)
        if time.monotonic() - polled > RUN_POLL_SECONDS:
            polled = time.monotonic()
            if _is_over(run_id):
                break
    os.killpg(0, signal.SIGKILL)


def processes_killed_for_memory() -> int:
    """How many processes of this container the kernel has ended because they took more than its memory."""
    for path in _KILLED:
        with suppress(OSError):
            found = dict(line.split() for line in Path(path).read_text().splitlines())
            return int(found.get("oom_kill", 0))
    return 0


def _is_over(run_id: str) -> bool:
    import dagster as dg

    try:
        with dg.DagsterInstance.get() as instance:
            run = instance.get_run_by_id(run_id)
    except Exception as problem:  # noqa: BLE001 (a database that is away is no reason to end; the next look will tell)
        print(f"could not look whether run {run_id} is over: {problem}", file=sys.stderr)
        return False
    return run is None or run.is_finished
