"""A step ends with its run: the fork server imports this module, and each process that it forks then watches its run's.

Else a step whose run was killed goes on, and the run that tries again writes the same partition beside it. The kernel
does not tell it: its parent is the fork server, which lives for as long as the step does.
"""

import os
import subprocess
import threading
from multiprocessing import parent_process, util

from tilth._dagster.processes import descendants

_GRACE_SECONDS = 1


def _watch(_: object) -> None:
    threading.Thread(target=_end_with_run, name="end with the run", daemon=True).start()


def _end_with_run() -> None:
    run = parent_process()  # of multiprocessing: what asked for this process, not what forked it
    if run is None:
        return
    run.join()
    if below := descendants(os.getpid()):
        # From outside and a little later: the workers of tilth.execution.partitions end by themselves, and remove their
        # files first.
        end = f"sleep {_GRACE_SECONDS}; kill -KILL {' '.join(map(str, below))}"
        subprocess.Popen(["/bin/sh", "-c", end], stderr=subprocess.DEVNULL, start_new_session=True)
    os._exit(1)


util.register_after_fork(_end_with_run, _watch)  # called in each child once it knows its parent
