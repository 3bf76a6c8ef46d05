"""A process that has imported a code location and tried it out, and that runs are forked from.

`tilth.execution.supervisor` starts one for each code location, `python -m tilth.execution.run_template MODULE
DESCRIPTOR`, and hands it the connections of those who launch runs (tilth/_dagster/run_launcher.py). A run begins when
its launcher has heard its number and says so, and not at all when either of them is gone by then: so it is started
once, whatever dies in between.
"""

import json
import os
import select
import signal
import socket
import sys
import time
import traceback
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import NoReturn

from tilth._dagster.fork_protocol import GO, RETIRE

_LONGEST_MESSAGE = 4096
_POLL_SECONDS = 1.0
# A run that is told to stop stops its steps, and records that.
_GRACE_SECONDS = 10.0


def main() -> None:
    """Preload the module that is named, say which folders the project's code came from, and fork runs when asked."""
    from tilth._dagster.forked_run import execute, read_environment_file
    from tilth._dagster.preload import preload
    from tilth._dagster.processes import run_finalizers

    module, control = sys.argv[1], socket.socket(fileno=int(sys.argv[2]))
    for number in (signal.SIGINT, signal.SIGHUP):
        signal.signal(number, signal.SIG_IGN)  # of a terminal, which are for the supervisor
    read_environment_file()
    preload(module)
    _set_pool_limits(module)
    control.sendall(json.dumps(_source_folders()).encode())
    _serve(control, execute)
    # To end as other programs do would take seconds: all that was imported would be looked through for garbage.
    run_finalizers()
    os._exit(0)


def _set_pool_limits(module: str) -> None:
    """As the definitions say, also after an edit of them."""
    import dagster as dg

    from tilth.execution.pools import apply_pool_limits

    definitions = getattr(sys.modules[module], "defs", None)
    if isinstance(definitions, dg.Definitions):
        with dg.DagsterInstance.get() as instance:
            try:
                apply_pool_limits(definitions, instance, module)
            except ValueError as error:
                print(f"tilth: the pools of {module} have the limits that they had. {error}", file=sys.stderr)


def _source_folders() -> list[str]:
    """The folders of the modules and packages, the outermost ones, that do not come with Python or a package."""
    installed = {Path(prefix).resolve() for prefix in (sys.prefix, sys.base_prefix, sys.exec_prefix)}
    folders = set()
    for module in list(sys.modules.values()):
        paths = getattr(module, "__path__", None) or [getattr(module, "__file__", None)]
        for path in [Path(path).resolve() for path in paths if path]:
            if installed.isdisjoint(path.parents):
                folders.add(path if path.is_dir() else path.parent)
    return sorted(str(folder) for folder in folders if folders.isdisjoint(folder.parents))


def _serve(control: socket.socket, execute: Callable[[str], None]) -> None:
    """Fork a run for each connection that comes. Retired, end with the last run; without a supervisor, end them."""
    runs: set[int] = set()
    retired = False
    while not retired or runs:
        readable, _, _ = select.select([control], [], [], _POLL_SECONDS if runs else None)
        runs -= _ended(runs)
        if not readable:
            continue
        message, descriptors, _, _ = socket.recv_fds(control, _LONGEST_MESSAGE, 1)
        if not message:
            _end(runs)
            return
        if message == RETIRE:
            retired = True
        elif descriptors:
            launcher = socket.socket(fileno=descriptors[0])
            pid = os.fork()
            if pid == 0:
                control.close()
                _become(partial(execute, message.decode()), launcher)
            launcher.close()
            runs.add(pid)


def _ended(runs: set[int]) -> set[int]:
    return {pid for pid in runs if os.waitpid(pid, os.WNOHANG)[0]}


def _end(runs: set[int]) -> None:
    until = time.monotonic() + _GRACE_SECONDS
    for pid in runs:
        os.kill(pid, signal.SIGINT)
    while runs and time.monotonic() < until:
        time.sleep(0.05)
        runs -= _ended(runs)
    for pid in runs:
        os.kill(pid, signal.SIGKILL)


def _become(execute: Callable[[], None], launcher: socket.socket) -> NoReturn:
    """Be the process of a run from here on."""
    code = 1
    try:
        os.setsid()
        for number in (signal.SIGINT, signal.SIGHUP):
            signal.signal(number, signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL)
        launcher.sendall(str(os.getpid()).encode())
        told = launcher.recv(len(GO))
        launcher.close()
        if told == GO:
            execute()
            code = 0
    except BaseException:  # noqa: BLE001 (nothing may get past this, into the template's own loop)
        traceback.print_exc()
    finally:
        with suppress(Exception):
            sys.stdout.flush()
            sys.stderr.flush()
        os._exit(code)


if __name__ == "__main__":
    main()
