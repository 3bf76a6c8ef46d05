"""Files in the landing zone: what is known of each, and which names are read."""

import hashlib
from base64 import urlsafe_b64encode
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class LandedFile:
    """A complete file in the landing zone; `partition` is None for a table that lands as one file.

    `arrived_ns` is in nanoseconds since the epoch, as fine as the storage has it. `arrival` differs between any two
    versions of a file that a reader could tell apart, also where their time does not.
    """

    table: str
    name: str
    partition: str | None
    arrived_ns: int
    arrival: str
    size: int


def file_name(table: str, partition: str | None = None) -> str:
    """What a feed calls its file: `<partition>.csv.gz`, or `<table>.csv` for a table that lands as one file."""
    return f"{table}.csv" if partition is None else f"{partition}.csv.gz"


def partition_of(name: str) -> str | None:
    """The partition that a file's name says; None for a table that lands as one file."""
    return name.removesuffix(".csv.gz") if name.endswith(".csv.gz") else None


def is_visible(name: str) -> bool:
    """Whether a table or a file of this name can be seen: neither hidden nor a path."""
    return name == Path(name).name and not name.startswith(".")


def is_landing_name(table: str, name: str) -> bool:
    """Whether a file of this name is one that lands for the table."""
    return is_visible(name) and (name == file_name(table) or partition_of(name) not in (None, ""))


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
