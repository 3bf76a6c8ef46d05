"""The processes that runs are forked from, one for each code location, and what each was made of.

One is made anew when that has changed: a file in the folders of the project's code, the project's settings, or what is
installed. It is compared before each fork, so that no run misses an edit.
"""

import json
import os
import selectors
import socket
import subprocess
import sys
import sysconfig
import time
from collections.abc import Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

from tilth._dagster.fork_protocol import CANNOT, RETIRE

_LONGEST_MESSAGE = 65536
# What is told to stop may take so long, before it is killed.
GRACE_SECONDS = 20.0
# A template that cannot be made may be made later, with the same files: a database was away.
_TRY_AGAIN_SECONDS = 30.0
# While somebody saves file after file, a template that nobody asks for is made no more often than this.
_REST_SECONDS = 10.0
# One that is killed is replaced at once, but for one that dies of itself as soon as it is there.
_LIFE_SECONDS = 1.0
# The clock by which the kernel notes when a file changed is a few milliseconds behind.
_SLACK_SECONDS = 0.1
_SETTINGS = ("workspace.yaml", "pyproject.toml", ".env")
_NO_SOURCES = {"__pycache__", "target", "logs", "node_modules"}
_WRITTEN_BY_PROGRAMS = (".log", ".out", ".pyc")

Stamp = tuple[float, float, int, int]


def sources(folders: Sequence[str]) -> dict[str, Stamp]:
    """By path, what changes with a file's content, of all files in these folders and below that may be code: not hidden
    ones, nor what programs write.

    With the settings and locks in the working folder, and the folder that packages are installed in.
    """
    paths = [sysconfig.get_path("purelib"), *_SETTINGS, *map(str, Path().glob("requirements/*.lock"))]
    for folder in folders:
        for here, below, files in os.walk(folder):
            below[:] = [name for name in below if name not in _NO_SOURCES and not name.startswith(".")]
            paths += [f"{here}/{name}" for name in files if name[0] != "." and not name.endswith(_WRITTEN_BY_PROGRAMS)]
    found: dict[str, Stamp] = {}
    for path in paths:
        with suppress(OSError):
            at = os.stat(path)  # noqa: PTH116 (every other second, so in a tenth of pathlib's time)
            found[path] = (at.st_mtime, at.st_ctime, at.st_size, at.st_ino)
    return found


@dataclass
class _Template:
    """One process that runs are forked from, and who waits for it."""

    process: subprocess.Popen[bytes]
    control: socket.socket
    began: float
    folders: Sequence[str]
    made_of: Mapping[str, Stamp] = field(default_factory=dict)
    state: str = "being made"  # then "ready", or "failed"
    ready: float = 0.0
    waiting: list[tuple[socket.socket, bytes]] = field(default_factory=list)

    def outdated(self) -> str:
        """A file that has changed since it was made; empty where none has."""
        if self.state == "being made" or (now := sources(self.folders)) == self.made_of:
            return ""
        return next(path for path in [*now, *self.made_of] if now.get(path) != self.made_of.get(path))


class Templates:
    """The template of each code location, by its module."""

    def __init__(self, selector: selectors.BaseSelector) -> None:
        self._selector = selector
        self._present: dict[str, _Template] = {}
        self._retired: list[_Template] = []

    def make(self, module: str, changed: str = "") -> _Template:
        """A new template, in place of the one there is; that one ends when its runs have."""
        if changed:
            print(f"tilth: {changed} has changed; runs of {module} begin with it.", file=sys.stderr, flush=True)
        before = self._present.get(module)
        ours, theirs = socket.socketpair()
        command = [sys.executable, "-m", "tilth.execution.run_template", module, str(theirs.fileno())]
        began = time.time() - _SLACK_SECONDS
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, pass_fds=[theirs.fileno()])
        theirs.close()
        template = _Template(process, ours, began, before.folders if before else [])
        if before is not None:
            self._retire(before)
            template.waiting = before.waiting
        self._present[module] = template
        self._selector.register(ours, selectors.EVENT_READ, lambda: self._hear(module, template))
        return template

    def _retire(self, template: _Template) -> None:
        with suppress(KeyError):
            self._selector.unregister(template.control)
        with suppress(OSError):
            template.control.send(RETIRE)
        if template.state == "being made":
            template.process.kill()
        self._retired.append(template)

    def _hear(self, module: str, template: _Template) -> None:
        """Of a template that it is ready, or has ended."""
        said = b""
        with suppress(OSError):
            said = template.control.recv(_LONGEST_MESSAGE)
        if said:
            template.folders = json.loads(said)
            template.made_of = sources(template.folders)
            changed = [path for path, stamp in template.made_of.items() if max(stamp[:2]) >= template.began]
            if changed:
                self.make(module, changed[0])
                return
            template.state, template.ready = "ready", time.time()
        else:
            self._selector.unregister(template.control)
            template.process.wait()
            lived = time.time() - template.ready if template.state == "ready" else 0.0
            template.state, template.made_of = "failed", sources(template.folders)
            if lived > _LIFE_SECONDS:
                self.make(module)
                return
        waiting, template.waiting = template.waiting, []
        for launcher, run_id in waiting:
            self._answer(template, launcher, run_id)

    def launch(self, module: str, run_id: bytes, launcher: socket.socket) -> None:
        """Have the run forked for its launcher, or say that it cannot be."""
        template = self._present.get(module)
        changed = template.outdated() if template else ""
        if template is None or changed:
            template = self.make(module, changed)
        if template.state == "being made":
            template.waiting.append((launcher, run_id))
            return
        self._answer(template, launcher, run_id)
        if template.state == "failed" and time.time() - template.began > _TRY_AGAIN_SECONDS:
            self.make(module)

    def _answer(self, template: _Template, launcher: socket.socket, run_id: bytes) -> None:
        with launcher, suppress(OSError):
            if template.state == "ready":
                socket.send_fds(template.control, [run_id], [launcher.fileno()])
            else:
                launcher.sendall(CANNOT)

    def renew(self) -> None:
        """Make anew what is outdated, before anybody asks for it."""
        for module, template in list(self._present.items()):
            if time.time() - template.began > _REST_SECONDS and (changed := template.outdated()):
                self.make(module, changed)
        for template in self._retired:
            if template.process.poll() is not None:
                template.control.close()
        self._retired = [template for template in self._retired if template.process.returncode is None]

    def end(self) -> None:
        """All of them, with their runs."""
        every = [*self._present.values(), *self._retired]
        for template in every:
            template.control.close()
            if template.state == "being made":
                template.process.kill()
        for template in every:
            wait(template.process)


def wait(process: subprocess.Popen[bytes]) -> None:
    """For its end; it is killed where that takes too long."""
    try:
        process.wait(GRACE_SECONDS)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()
