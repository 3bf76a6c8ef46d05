"""The landing zone on disk: files in folders, and which of them arrived since a reader asked last."""

import os
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

from resources.landing_files import LandedFile, digest, is_landing_name, is_visible, not_landed, partition_of

# On disk a file counts as landed a second after its rename: two versions within one tick of the kernel's clock have the
# same time, and a reader who has seen the first could not know the second from it.
SETTLE_NANOSECONDS = 1_000_000_000

# On disk a file that is dated up to this long before what was reported last is reported too: a volume's clock may be
# behind this machine's, and a clock may have been set back between two ticks.
LEEWAY_NANOSECONDS = 600 * 1_000_000_000


@dataclass(frozen=True)
class Folder:
    """A landing zone on disk.

    A file's arrival is its inode change time, which a rename sets, even one that preserves the modification time
    (`rsync -t`). A reader's place in the stream is the time up to which it was notified, and a digest of each file
    that is dated within the leeway before that or later: 13 bytes each, and none once nothing has landed for so long.
    """

    path: Path

    def path_of(self, table: str, name: str) -> str:
        return str(self.path / table / name)

    def put(self, table: str, name: str, data: bytes) -> None:
        """As promised by `LandingZone`; a writer that is killed leaves at most a hidden file, which nobody reads."""
        folder = self.path / table
        folder.mkdir(parents=True, exist_ok=True)
        hidden = folder / f".{name}.{uuid4().hex}"
        try:
            with hidden.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(folder / name)
        finally:
            hidden.unlink(missing_ok=True)

    def read(self, table: str, name: str) -> bytes:
        try:
            return (self.path / table / name).read_bytes()
        except FileNotFoundError as error:
            raise not_landed(self.path_of(table, name)) from error

    def check_there(self) -> None:
        if not self.path.is_dir():
            raise FileNotFoundError(
                f"The landing zone {self.path} is gone. Bring it back, or mount it again: what has landed meanwhile is "
                "read then."
            )
        if not _entries(self.path):
            raise FileNotFoundError(
                f"The landing zone {self.path} is empty, as a mount point is without its volume. Mount it: what has "
                "landed meanwhile is read then. If it is meant to be empty, make a table's folder in it."
            )

    def arrivals(self, cursor: str | None) -> tuple[list[LandedFile], str]:
        after, seen = _place_of(cursor)
        files = self.files(None)
        if after:
            self.check_there()
        if not files:
            return [], _cursor_of(after, seen)
        now = time.time_ns()
        until = now - SETTLE_NANOSECONDS
        # A clock that is behind the cursor is wrong now or was then, and so may be the dates of what landed between.
        since = after - LEEWAY_NANOSECONDS if after <= until else 0
        # What is dated in the future landed under another clock: it does not settle by this one.
        settled = [file for file in files if not until < file.arrived_ns <= now]
        found = [file for file in settled if file.arrived_ns > since and digest(file) not in seen]
        recent = frozenset(digest(file) for file in settled if file.arrived_ns > until - LEEWAY_NANOSECONDS)
        return found, _cursor_of(until, recent)

    def paths(self, table: str) -> list[str]:
        """Of all files below the table's folder and those of other cases that are not hidden, the paths from here."""
        found = []
        for folder, entry in _entries(self.path):
            if folder.casefold() == table.casefold() and entry.is_dir():
                for place, folders, names in os.walk(entry.path):
                    folders[:] = [name for name in folders if is_visible(name)]
                    found += [Path(place, name).relative_to(self.path).as_posix() for name in names if is_visible(name)]
        return found

    def files(self, table: str | None) -> list[LandedFile]:
        tables = [table] if table else [name for name, entry in _entries(self.path) if entry.is_dir()]
        return [file for table in tables for file in self._files_of(table)]

    def _files_of(self, table: str) -> Iterator[LandedFile]:
        for name, entry in _entries(self.path / table):
            if is_landing_name(table, name) and entry.is_file():
                status = entry.stat()
                yield LandedFile(
                    table=table,
                    name=name,
                    partition=partition_of(name),
                    arrived_ns=status.st_ctime_ns,
                    arrival=str(status.st_ctime_ns),
                    size=status.st_size,
                )


def _place_of(cursor: str | None) -> tuple[int, frozenset[str]]:
    """The place that a cursor keeps; earlier releases' had the time alone."""
    after, *seen = (cursor or "").split(" ")
    return (int(after), frozenset(seen)) if after.isdecimal() else (0, frozenset())


def _cursor_of(after: int, seen: frozenset[str]) -> str:
    return " ".join([str(after), *sorted(seen)])


def _entries(folder: Path) -> list[tuple[str, os.DirEntry[str]]]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [(entry.name, entry) for entry in entries if is_visible(entry.name)]
