"""The landing zone: where feeds leave their files, and how to tell which ones are new."""

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from uuid import uuid4

import dagster as dg
from pydantic import field_validator


@dataclass(frozen=True)
class LandedFile:
    """A complete file in the landing zone; `partition` is None for a table that lands as one file."""

    table: str
    name: str
    partition: str | None
    arrived_ns: int
    size: int


def file_name(table: str, partition: str | None = None) -> str:
    """What a feed calls its file: `<partition>.csv.gz`, or `<table>.csv` for a table that lands as one file."""
    return f"{table}.csv" if partition is None else f"{partition}.csv.gz"


class LandingZone(dg.ConfigurableResource):
    """Files under `<uri>/<table>/`: `<partition>.csv.gz` for a daily table, `<table>.csv` for an unpartitioned one.

    Everything else there, hidden names above all, is invisible: a feed writes under a hidden name and renames.

    A file's arrival is its inode change time, which a rename sets, even one that preserves the modification time
    (`rsync -t`). So a reader's place in the stream is one integer: each tick takes
    `arrived(cursor, now - 1 second)` and keeps that end as its cursor. A file renamed in during the listing or
    after it belongs to the next interval; none is lost and none is seen twice.
    """

    uri: str

    @field_validator("uri")
    @classmethod
    def _is_a_folder(cls, uri: str) -> str:
        if "://" in uri:
            raise ValueError(f"TILTH_LANDING_URI is {uri}: files land in a folder; name its path.")
        return uri

    def path_of(self, table: str, name: str) -> str:
        """Where the file is or would be, for people to read."""
        return str(Path(self.uri, table, name))

    def put(self, table: str, name: str, data: bytes) -> None:
        """Land a file, in place of one of the same name; a reader sees the old file or the new one, never a part.

        A writer that is killed leaves at most a hidden file, which nobody reads.

        Raises:
            ValueError: the name is not one that `arrived` would list.
        """
        folder = Path(self.uri, table)
        if not _is_visible(table) or not _is_landing_name(table, name):
            raise ValueError(
                f"{self.path_of(table, name)} would never be read; name the file "
                f"{file_name(table)} or {file_name(table, '<partition>')}."
            )
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
        """The whole file.

        Raises:
            FileNotFoundError: nothing of that name has landed.
        """
        try:
            return Path(self.uri, table, name).read_bytes()
        except FileNotFoundError as error:
            raise FileNotFoundError(
                f"{self.path_of(table, name)} is not in the landing zone; have the feed send it again."
            ) from error

    def arrived(self, after_ns: int, until_ns: int) -> list[LandedFile]:
        """The files that arrived after `after_ns` and not after `until_ns`, in order of arrival.

        Both are nanoseconds since the epoch; a landing zone that does not exist yet is empty.
        """
        found = [file for file in self._files() if after_ns < file.arrived_ns <= until_ns]
        return sorted(found, key=lambda file: (file.arrived_ns, file.table, file.name))

    def _files(self) -> Iterator[LandedFile]:
        if not Path(self.uri).is_dir():
            return
        with os.scandir(self.uri) as tables:
            folders = [entry for entry in tables if _is_visible(entry.name) and entry.is_dir()]
        for folder in folders:
            with os.scandir(folder) as entries:
                for entry in entries:
                    if _is_landing_name(folder.name, entry.name) and entry.is_file():
                        status = entry.stat()
                        yield LandedFile(
                            table=folder.name,
                            name=entry.name,
                            partition=_partition(entry.name),
                            arrived_ns=status.st_ctime_ns,
                            size=status.st_size,
                        )


def _is_visible(name: str) -> bool:
    return name == Path(name).name and not name.startswith(".")


def _is_landing_name(table: str, name: str) -> bool:
    return _is_visible(name) and (name == file_name(table) or _partition(name) not in (None, ""))


def _partition(name: str) -> str | None:
    return name.removesuffix(".csv.gz") if name.endswith(".csv.gz") else None
