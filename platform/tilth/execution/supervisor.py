"""`python -m tilth.execution.supervisor COMMAND`: Dagster on one machine, with runs forked from a warm process.

It runs COMMAND, such as `dg dev` or `dagster-daemon run`, and beside it a template (tilth/execution/run_template.py) of
each code location of workspace.yaml. A run that COMMAND's daemon launches is then a fork of its location's template.
When COMMAND ends, or this process is told to stop, all of it ends: templates, runs, and the command with what it
started.

A template is made anew when what it was made of has changed (tilth/execution/templates.py). Where there is none,
because the code cannot be imported, Dagster starts the run itself, and the run says why it fails.
"""

import fcntl
import os
import selectors
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path

import yaml

from tilth._dagster.fork_protocol import ADDRESS
from tilth.execution.templates import GRACE_SECONDS, Templates, wait

_POLL_SECONDS = 2.0
_REQUEST_SECONDS = 1.0
_LONGEST_MESSAGE = 65536
_END_SIGNALS = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)


def _end(command: subprocess.Popen[bytes]) -> None:
    """The command, as a terminal would, and then what it started and left."""
    if command.poll() is None:
        command.send_signal(signal.SIGINT)
        wait(command)
    for number in (signal.SIGTERM, signal.SIGKILL):
        with suppress(ProcessLookupError, PermissionError):
            os.killpg(command.pid, number)
            until = time.monotonic() + GRACE_SECONDS
            while time.monotonic() < until:
                time.sleep(0.05)
                os.killpg(command.pid, 0)


def supervise(command: Sequence[str], modules: Sequence[str]) -> int:
    """Run the command with a template of each module until it ends, or this process is told to; its exit code."""
    with selectors.DefaultSelector() as selector, _listener() as (listener, address), _signals() as told:
        templates = Templates(selector)
        selector.register(listener, selectors.EVENT_READ, lambda: _accept(listener, templates))
        selector.register(told, selectors.EVENT_READ, lambda: None)
        # In a session of its own, so that what a terminal sends reaches it once: through here.
        process = subprocess.Popen(command, env=os.environ | {ADDRESS: address}, start_new_session=True)
        try:
            for module in modules:
                templates.make(module)
            renewed, stop = time.monotonic(), False
            while not stop and process.poll() is None:
                for key, _ in selector.select(_POLL_SECONDS):
                    if key.fileobj is told:
                        stop = not set(told.recv(_LONGEST_MESSAGE)).isdisjoint(_END_SIGNALS)
                    else:
                        key.data()
                if time.monotonic() - renewed > _POLL_SECONDS:
                    templates.renew()
                    renewed = time.monotonic()
        finally:
            _end(process)
            templates.end()
    return 0 if stop else process.returncode


@contextmanager
def _listener() -> Iterator[tuple[socket.socket, str]]:
    folder = tempfile.mkdtemp(prefix="tilth-")  # for this user alone; $DAGSTER_HOME may be too long for a socket's path
    try:
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(address := f"{folder}/runs")
            listener.listen(64)
            yield listener, address
    finally:
        shutil.rmtree(folder)


@contextmanager
def _signals() -> Iterator[socket.socket]:
    """A socket that gets the number of each signal that comes."""
    told, tell = socket.socketpair()
    with told, tell:
        tell.setblocking(False)
        signal.set_wakeup_fd(tell.fileno())
        for number in (*_END_SIGNALS, signal.SIGCHLD):
            signal.signal(number, lambda *_: None)
        yield told
        signal.set_wakeup_fd(-1)


def _accept(listener: socket.socket, templates: Templates) -> None:
    launcher, _ = listener.accept()
    launcher.settimeout(_REQUEST_SECONDS)
    try:
        module, run_id = launcher.recv(_LONGEST_MESSAGE).decode().split()
        launcher.settimeout(None)  # of the connection, not of this process' end of it
    except (OSError, ValueError):
        launcher.close()
        return
    templates.launch(module, run_id.encode(), launcher)


def main() -> None:
    """Supervise the command on the command line."""
    command = sys.argv[1:]
    if not command or not os.environ.get("DAGSTER_HOME"):
        sys.exit("usage: DAGSTER_HOME=FOLDER python -m tilth.execution.supervisor COMMAND [ARGUMENT ...]")
    lock = Path(os.environ["DAGSTER_HOME"], "supervisor.lock")
    with lock.open("a+") as held:
        try:
            fcntl.flock(held, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            held.seek(0)
            sys.exit(
                f"Process {held.read().strip()} already runs Dagster on the state in {lock.parent}. Stop it first, or "
                "give this one a state of its own: TILTH_HOME=FOLDER."
            )
        held.truncate(0)
        held.write(f"{os.getpid()}\n")
        held.flush()
        workspace = yaml.safe_load(Path("workspace.yaml").read_text()) if Path("workspace.yaml").exists() else {}
        modules = [entry["python_module"] for entry in workspace.get("load_from", []) if "python_module" in entry]
        sys.exit(supervise(command, [module for module in modules if isinstance(module, str)]))


if __name__ == "__main__":
    main()
