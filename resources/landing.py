"""The landing zone: where feeds leave their files, and how to tell which ones are new."""

import hashlib
import os
import re
import time
from base64 import urlsafe_b64encode
from collections.abc import Collection, Iterable, Iterator
from dataclasses import dataclass
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, Self
from uuid import uuid4

import dagster as dg
from pydantic import PrivateAttr, field_validator

from tilth.settings import Deployment

# On disk a file counts as landed a second after its rename: two versions within one tick of the kernel's clock have the
# same time, and a reader who was told of the first would not tell the second from it.
SETTLE_NANOSECONDS = 1_000_000_000

# On disk a file that is dated up to this long before what was told last is told too: a volume's clock may be behind
# this machine's, and a clock may have been set back between two looks.
LEEWAY_NANOSECONDS = 600 * 1_000_000_000


@dataclass(frozen=True)
class LandedFile:
    """A complete file in the landing zone; `partition` is None for a table that lands as one file.

    `arrived_ns` is in nanoseconds since the epoch, as fine as the storage tells it. `arrival` differs between any two
    versions of a file that a reader could tell apart, also where their time does not.
    """

    table: str
    name: str
    partition: str | None
    arrived_ns: int
    arrival: str
    size: int


class Store(Protocol):
    """What a kind of storage does for a landing zone; `LandingZone` says what each means."""

    def path_of(self, table: str, name: str) -> str: ...
    def put(self, table: str, name: str, data: bytes) -> None: ...
    def read(self, table: str, name: str) -> bytes: ...
    def files(self, table: str | None) -> list[LandedFile]: ...
    def check_there(self) -> None: ...
    def news(self, cursor: str | None) -> tuple[list[LandedFile], str]: ...
    def paths(self, table: str) -> list[str]: ...


class LandingZone(dg.ConfigurableResource):
    """Files under `<uri>/<table>/`: `<partition>.csv.gz` for a daily table, `<table>.csv` for an unpartitioned one.

    `uri` is a folder's path or `s3://bucket/prefix`. Nothing else there is read; what is not hidden, `unread` tells: on
    disk a feed writes under a hidden name and renames; on S3 an object appears when it is complete.

    Credentials for S3 come from where AWS' own tools look for them and are no part of this resource.
    """

    uri: str
    s3_endpoint_url: str = ""
    s3_region: str = ""
    _opened: Store | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        """The landing zone of this deployment."""
        return cls(
            uri=deployment.landing_uri, s3_endpoint_url=deployment.s3_endpoint_url, s3_region=deployment.s3_region
        )

    @field_validator("uri")
    @classmethod
    def _is_of_a_known_kind(cls, uri: str) -> str:
        if "://" in uri and not re.fullmatch(r"s3://[A-Za-z0-9._-]+(/.*)?", uri):
            raise ValueError(
                f"TILTH_LANDING_URI is {uri}: files land in a folder (name its path) or at s3://bucket/prefix."
            )
        return uri

    @property
    def _store(self) -> Store:
        if self._opened is None:
            if self.uri.startswith("s3://"):
                from resources.landing_s3 import Bucket  # a second, which a landing zone on disk need not wait for

                self._opened = Bucket(self.uri, self.s3_endpoint_url, self.s3_region)
            else:
                self._opened = Folder(Path(self.uri))
        return self._opened

    def path_of(self, table: str, name: str) -> str:
        """Where the file is or would be, for people to read."""
        return self._store.path_of(table, name)

    def put(self, table: str, name: str, data: bytes) -> None:
        """Land a file, in place of one of the same name; a reader sees the old file or the new one, never a part.

        Raises:
            ValueError: the name is not one that `files` would list.
            OSError: the storage refused; the message says what it said and what to do next.
        """
        if not is_visible(table) or not is_landing_name(table, name):
            raise ValueError(
                f"{self.path_of(table, name)} would never be read; name the file "
                f"{file_name(table)} or {file_name(table, '<partition>')}."
            )
        self._store.put(table, name, data)

    def read(self, table: str, name: str) -> bytes:
        """The whole file.

        Raises:
            FileNotFoundError: nothing of that name has landed.
            OSError: the storage refused; the message says what it said and what to do next.
        """
        return self._store.read(table, name)

    def files(self, table: str | None = None) -> list[LandedFile]:
        """All files, or those of one table, in order of arrival.

        A landing zone that does not exist yet is empty, and so seems one that is gone: `check_there` tells.
        """
        return by_arrival(self._store.files(table))

    def unread(self, table: str, partitions: Collection[str] | None = None) -> dict[str, str]:
        """Files of the table that nobody reads, because of their names: by path, the nearest name that would be read.

        That is all in its folder and those below, hidden names apart, and in folders that differ from it only in case.

        Args:
            partitions: those that the table has; None for one that lands as one file.
        """
        read = {file_name(table)} if partitions is None else {file_name(table, key) for key in partitions}
        paths = [path for path in self._store.paths(table) if path not in {f"{table}/{name}" for name in read}]
        nearest = {path: _nearest(path, read) for path in sorted(paths)}
        return {path: f"{table}/{name}" if name else "" for path, name in nearest.items()}

    def check_there(self) -> None:
        """For who knows that something has landed, and finds less in a listing: the listing may be of nothing.

        Raises:
            FileNotFoundError: the landing zone is gone; on disk also when it is empty, as an unmounted volume's folder.
        """
        self._store.check_there()

    def news(self, cursor: str | None = None) -> tuple[list[LandedFile], str]:
        """What arrived since the cursor was given out, in order of arrival, and the next cursor.

        Each arrival is told once along a chain of cursors, and on disk once more when the clock was set back; without
        a cursor, or with one of another landing zone, all that is there. It is to be stored and handed back, not to be
        read.

        Raises:
            OSError: the landing zone is gone, or the storage refused; the same cursor is good for the next look.
        """
        found, place = self._store.news(cursor)
        return by_arrival(found), place


@dataclass(frozen=True)
class Folder:
    """A landing zone on disk.

    A file's arrival is its inode change time, which a rename sets, even one that preserves the modification time
    (`rsync -t`). A reader's place in the stream is the time up to which it was told, and a digest of each file told
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

    def news(self, cursor: str | None) -> tuple[list[LandedFile], str]:
        after, told = _place_of(cursor)
        files = self.files(None)
        if after:
            self.check_there()
        if not files:
            return [], _cursor_of(after, told)
        now = time.time_ns()
        until = now - SETTLE_NANOSECONDS
        # A clock that is behind the cursor is wrong now or was then, and so may be the dates of what landed between.
        since = after - LEEWAY_NANOSECONDS if after <= until else 0
        # What is dated in the future landed under another clock: it does not settle by this one.
        settled = [file for file in files if not until < file.arrived_ns <= now]
        found = [file for file in settled if file.arrived_ns > since and digest(file) not in told]
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
    after, *told = (cursor or "").split(" ")
    return (int(after), frozenset(told)) if after.isdecimal() else (0, frozenset())


def _cursor_of(after: int, told: frozenset[str]) -> str:
    return " ".join([str(after), *sorted(told)])


def _entries(folder: Path) -> list[tuple[str, os.DirEntry[str]]]:
    if not folder.is_dir():
        return []
    with os.scandir(folder) as entries:
        return [(entry.name, entry) for entry in entries if is_visible(entry.name)]


def file_name(table: str, partition: str | None = None) -> str:
    """What a feed calls its file: `<partition>.csv.gz`, or `<table>.csv` for a table that lands as one file."""
    return f"{table}.csv" if partition is None else f"{partition}.csv.gz"


def partition_of(name: str) -> str | None:
    """The partition that a file's name tells; None for a table that lands as one file."""
    return name.removesuffix(".csv.gz") if name.endswith(".csv.gz") else None


def is_visible(name: str) -> bool:
    """Whether a table or a file of this name can be seen: neither hidden nor a path."""
    return name == Path(name).name and not name.startswith(".")


def is_landing_name(table: str, name: str) -> bool:
    """Whether a file of this name is one that lands for the table."""
    return is_visible(name) and (name == file_name(table) or partition_of(name) not in (None, ""))


def _nearest(path: str, names: Collection[str]) -> str:
    """Of names that would be read, the one that this path stands for; empty where it may stand for none or several."""
    if len(names) == 1:
        return next(iter(names))
    below = path.partition("/")[2]
    for part in (Path(below).name, below):
        digits = re.sub("[^0-9]", "", part)
        # As 20130105, and as 2013-1-5.
        ymd = re.search(r"(?<![0-9])([0-9]{4})[^0-9]([0-9]{1,2})[^0-9]([0-9]{1,2})(?![0-9])", part)
        padded = f"{ymd[1]}{ymd[2]:0>2}{ymd[3]:0>2}" if ymd else digits
        if same := [name for name in names if digits and re.sub("[^0-9]", "", name) == padded]:
            return same[0]
    # Another day's name is never near: who took it would overwrite that day.
    worded = [name for name in names if not re.search("[0-9]", name)]
    return next(iter(get_close_matches(Path(below).name.lower(), worded, 1)), "")


def by_arrival(files: Iterable[LandedFile]) -> list[LandedFile]:
    """In order of arrival, then by name."""
    return sorted(files, key=lambda file: (file.arrived_ns, file.table, file.name))


def digest(file: LandedFile) -> str:
    """Twelve characters (72 bits) for one version of one file."""
    text = f"{file.table}/{file.name}@{file.arrival}"
    return urlsafe_b64encode(hashlib.sha256(text.encode()).digest()[:9]).decode()


def not_landed(path: str) -> FileNotFoundError:
    """The error for a file that is not there."""
    return FileNotFoundError(f"{path} is not in the landing zone; have the feed send it again.")
