"""The landing zone: where feeds leave their files, and which of them are new."""

import re
from collections.abc import Collection
from difflib import get_close_matches
from pathlib import Path
from typing import Protocol, Self

import dagster as dg
from pydantic import PrivateAttr, field_validator

from resources.landing_files import LandedFile, by_arrival, file_name, is_landing_name, is_visible
from resources.landing_folder import Folder
from tilth.settings import Deployment


class Store(Protocol):
    """What a kind of storage does for a landing zone; `LandingZone` says what each means."""

    def path_of(self, table: str, name: str) -> str: ...
    def put(self, table: str, name: str, data: bytes) -> None: ...
    def read(self, table: str, name: str) -> bytes: ...
    def files(self, table: str | None) -> list[LandedFile]: ...
    def check_there(self) -> None: ...
    def arrivals(self, cursor: str | None) -> tuple[list[LandedFile], str]: ...
    def paths(self, table: str) -> list[str]: ...


class LandingZone(dg.ConfigurableResource):
    """Files under `<uri>/<table>/`: `<partition>.csv.gz` for a daily table, `<table>.csv` for an unpartitioned one.

    `uri` is a folder's path or `s3://bucket/prefix`. Nothing else there is read; what is not hidden, `unread` lists: on
    disk a feed writes under a hidden name and renames; on S3 an object appears when it is complete.

    Credentials for S3 come from where AWS' own tools look for them and are no part of this resource.
    """

    uri: str
    s3_endpoint_url: str = ""
    s3_region: str = ""
    _opened: Store | None = PrivateAttr(default=None)

    @classmethod
    def of(cls, deployment: Deployment, folder: str = "") -> Self:
        """The landing zone of this deployment, or a domain's own folder in it."""
        uri = f"{deployment.landing_uri.rstrip('/')}/{folder}" if folder else deployment.landing_uri
        return cls(uri=uri, s3_endpoint_url=deployment.s3_endpoint_url, s3_region=deployment.s3_region)

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

        A landing zone that does not exist yet is empty, and so seems one that is gone: `check_there` says which.
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

    def arrivals(self, cursor: str | None = None) -> tuple[list[LandedFile], str]:
        """What arrived since the cursor was given out, in order of arrival, and the next cursor.

        Each arrival is reported once along a chain of cursors, and on disk once more when the clock was set back;
        without a cursor, or with one of another landing zone, all that is there is. It is to be stored and handed back,
        not to be read.

        Raises:
            OSError: the landing zone is gone, or the storage refused; the same cursor is good for the next tick.
        """
        found, place = self._store.arrivals(cursor)
        return by_arrival(found), place


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
