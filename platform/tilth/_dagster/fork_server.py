"""A fork server that is itself a fork of the run's process, which has its definitions already.

Python's own begins as a new program and imports them once more, 1 to 2 s for which the run waits. To `multiprocessing`
this one is the same. docs/upgrading.md names what here is not Python's public API.
"""

import os
import signal
import socket
import threading
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

from tilth._dagster.preload import preload
from tilth._dagster.sqlite import BatchedSqliteEventLogStorage

# Threads that hold no lock while they wait, which they do: of Dagster's that for a cancellation, where a code server
# started the run, and Python's behind the queue to that server; and the one of tilth.observability.usage, which a step
# starts anew.
_HARMLESS = {"MainThread", "termination-handler", "QueueFeederThread", "tilth-usage"}


def fork_server(instance: dg.DagsterInstance, code_location: str) -> None:
    """Have steps forked from this process as it is now, after `preload` of the code location.

    Where other threads run, whose locks a fork has but not their work, steps are forked from Python's own server, which
    the first of them starts.
    """
    server: Any = forkserver._forkserver
    any_address: Any = getattr(connection, "arbitrary_address")  # noqa: B009 (not in its types)
    if server._forkserver_pid is not None or {thread.name for thread in threading.enumerate()} - _HARMLESS:
        return
    storage = instance.event_log_storage
    if isinstance(storage, BatchedSqliteEventLogStorage):
        storage.dispose()  # it opens again what it needs; no connection may cross the fork
    resource_tracker.ensure_running()
    with socket.socket(socket.AF_UNIX) as listener:
        address = any_address("AF_UNIX")
        listener.bind(address)
        Path(address).chmod(0o600)
        listener.listen()
        # Whoever uses the server holds the writing end. When the last of them has ended, the server ends.
        alive, used = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(used)
            _serve(listener.fileno(), alive, code_location)
        os.close(alive)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, used, pid


def _serve(listener: int, alive: int, code_location: str) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what Dagster does about it is for the run
        preload(code_location, in_a_run=True)
        main: Any = forkserver.main
        main(listener, alive, [])
    except SystemExit:
        code = 0
    finally:
        os._exit(code)
