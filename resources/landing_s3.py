"""The landing zone on S3: objects under a prefix, and what a reader remembers to see each arrival once."""

import json
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field, replace
from functools import cached_property
from typing import Any, Self

from botocore.exceptions import BotoCoreError, ClientError, HTTPClientError, IncompleteReadError
from botocore.exceptions import ConnectionError as NotConnected
from dagster_aws.s3 import S3Resource

from resources.landing_files import LandedFile, digest, is_landing_name, is_visible, not_landed, partition_of

SECOND = 1_000_000_000  # nanoseconds

# S3 dates an object by the start of its upload, and shows it at the end. So an upload that takes up to this long is
# reported, whatever else lands meanwhile.
OVERLAP_NANOSECONDS = 3600 * SECOND

# How often everything is listed: within this time a day that is sent again, or late, is reported. In between, a tick
# lists only names beyond the greatest one of its table, as the next days' are.
WHOLE_LISTING_NANOSECONDS = 60 * SECOND

# After the first try, by botocore's "standard" mode: with growing pauses, only for what may pass.
RETRIES = 3

HOW_TO_SIGN_IN = (
    "check the credentials that AWS' own tools find here (variables, profile, role of the machine or pod), and that "
    "they allow s3:ListBucket, s3:GetObject and s3:PutObject there"
)


@dataclass(frozen=True)
class Place:
    """How far a reader of the landing zone `uri` has come; times in nanoseconds since the epoch.

    A tick lists either everything or, for each table, the names after `greatest`, its greatest name when everything
    was last listed (at `listed_ns` by this machine's clock). Any version among those names is new unless it is
    one of `seen`; among the others it must also be dated `since_ns` or later. `since_ns` lies an hour before the newest
    arrival in the last listing of everything, by S3's own clock, and `seen` has a digest of each version dated then or
    later. So nothing rests on two clocks agreeing, on a listing being an instant, or on dates telling versions apart.
    """

    uri: str
    listed_ns: int = 0
    since_ns: int = 0
    greatest: Mapping[str, str] = field(default_factory=dict)
    seen: frozenset[str] = frozenset()

    @classmethod
    def of(cls, cursor: str | None, uri: str) -> Self:
        """The place that a cursor keeps; the beginning for none, or for one of another landing zone."""
        stored: dict[str, Any] = json.loads(cursor) if cursor and cursor.startswith("{") else {}
        if stored.get("uri") != uri:
            return cls(uri)
        seen = stored["seen"] if "seen" in stored else stored["told"]  # as an earlier release had it
        return cls(uri, stored["listed_ns"], stored["since_ns"], stored["greatest"], frozenset(seen))

    def cursor(self) -> str:
        """Some 15 bytes for each version dated within the hour, and little else."""
        return json.dumps(asdict(self) | {"seen": sorted(self.seen)}, separators=(",", ":"))

    def wants_everything(self, now_ns: int) -> bool:
        """Whether the next tick has to list everything; also when the clock was set back, or nothing is known yet."""
        return not self.greatest or not 0 <= now_ns - self.listed_ns < WHOLE_LISTING_NANOSECONDS

    def after_everything(self, files: Sequence[LandedFile], now_ns: int) -> tuple[list[LandedFile], Self]:
        """What is new in a listing of everything, and the place after it."""
        new = [
            file
            for file in files
            if (file.arrived_ns >= self.since_ns or file.name > self.greatest.get(file.table, ""))
            and digest(file) not in self.seen
        ]
        # A date in the future, which only a broken clock gives, must not hide what comes until then.
        newest = min(now_ns, max((file.arrived_ns for file in files), default=0))
        since = max(self.since_ns, newest - OVERLAP_NANOSECONDS)
        greatest: dict[str, str] = {}
        for file in files:
            greatest[file.table] = max(file.name, greatest.get(file.table, ""))
        seen = frozenset(digest(file) for file in files if file.arrived_ns >= since)
        return new, replace(self, listed_ns=now_ns, since_ns=since, greatest=greatest, seen=seen)

    def after_greatest(self, files: Sequence[LandedFile]) -> tuple[list[LandedFile], Self]:
        """What is new in a listing of the names after the greatest ones, and the place after it."""
        new = [file for file in files if digest(file) not in self.seen]
        return new, replace(self, seen=self.seen | {digest(file) for file in new})


@dataclass(frozen=True)
class Bucket:
    """A landing zone on S3, or on what speaks its protocol at `endpoint_url`, under `s3://bucket/prefix`.

    S3 dates versions in whole seconds; by its ETag those of one second differ. A listing has 1,000 names a request.
    Names must be listed in order, which general purpose buckets do and directory buckets (S3 Express) do not.
    """

    uri: str
    endpoint_url: str = ""
    region: str = ""

    @cached_property
    def client(self) -> Any:
        """The S3 client; addresses are `endpoint/bucket/key` where an endpoint is named, AWS' own otherwise."""
        with self._explained():
            return S3Resource(
                endpoint_url=self.endpoint_url or None, region_name=self.region or None, max_attempts=RETRIES
            ).get_client()

    @property
    def _bucket(self) -> str:
        return self.uri.removeprefix("s3://").partition("/")[0]

    def _key(self, *parts: str) -> str:
        prefix = self.uri.removeprefix("s3://").partition("/")[2].strip("/")
        return "/".join([*([prefix] if prefix else []), *parts])

    def path_of(self, table: str, name: str) -> str:
        return f"s3://{self._bucket}/{self._key(table, name)}"

    def put(self, table: str, name: str, data: bytes) -> None:
        with self._explained():
            self.client.put_object(Bucket=self._bucket, Key=self._key(table, name), Body=data)

    def read(self, table: str, name: str) -> bytes:
        with self._explained():
            try:
                return self.client.get_object(Bucket=self._bucket, Key=self._key(table, name))["Body"].read()
            except self.client.exceptions.NoSuchKey as error:
                raise not_landed(self.path_of(table, name)) from error

    def arrivals(self, cursor: str | None) -> tuple[list[LandedFile], str]:
        place, now = Place.of(cursor, self.uri), time.time_ns()
        if place.wants_everything(now):
            found, place = place.after_everything(self.files(None), now)
        else:
            files = [file for table, name in place.greatest.items() for file in self._files_after(table, name)]
            found, place = place.after_greatest(files)
        return found, place.cursor()

    def files(self, table: str | None) -> list[LandedFile]:
        tables = [table] if table else self._tables()
        return [file for table in tables for file in self._files_after(table, "")]

    def paths(self, table: str) -> list[str]:
        """As of a folder; what ends in a slash is how consoles show a folder without files, not a file."""
        root = self._key("")
        folders = [name for name in self._tables() if name.casefold() == table.casefold()]
        pages = [page for folder in folders for page in self._pages(self._key(folder, ""), "", delimiter="")]
        paths = [item["Key"].removeprefix(root) for page in pages for item in page.get("Contents", [])]
        return [path for path in paths if not path.endswith("/") and all(map(is_visible, path.split("/")))]

    def check_there(self) -> None:
        """Nothing to look at: to list a bucket that is gone, or cannot be reached, is an error already."""

    def _tables(self) -> list[str]:
        root = self._key("")
        folders = [prefix["Prefix"] for page in self._pages(root, "") for prefix in page.get("CommonPrefixes", [])]
        names = [folder.removeprefix(root).removesuffix("/") for folder in folders]
        return [name for name in names if name and is_visible(name)]

    def _files_after(self, table: str, name: str) -> Iterator[LandedFile]:
        folder = self._key(table, "")
        for page in self._pages(folder, folder + name):
            for item in page.get("Contents", []):
                name = item["Key"].removeprefix(folder)
                if is_landing_name(table, name):
                    arrived = round(item["LastModified"].timestamp() * 1000) * 1_000_000
                    arrival = f"{arrived}-{item['ETag']}".replace('"', "")
                    yield LandedFile(table, name, partition_of(name), arrived, arrival, item["Size"])

    def _pages(self, prefix: str, start_after: str, delimiter: str = "/") -> Iterator[Mapping[str, Any]]:
        options = {"StartAfter": start_after} if start_after else {}
        if delimiter:
            options["Delimiter"] = delimiter
        with self._explained():
            yield from self.client.get_paginator("list_objects_v2").paginate(
                Bucket=self._bucket, Prefix=prefix, **options
            )

    @contextmanager
    def _explained(self) -> Iterator[None]:
        """Makes of what S3, or the way to it, refused an error that names the address, the answer and the next step."""
        where = f"s3://{self._bucket}/{self._key()}" + (f" at {self.endpoint_url}" if self.endpoint_url else "")
        try:
            yield
        except ClientError as error:
            code, said = error.response["Error"].get("Code"), error.response["Error"].get("Message")
            status = error.response["ResponseMetadata"].get("HTTPStatusCode")
            answer = f"{where}: S3 answered {code} ({said})"
            if code == "NoSuchBucket":
                raise FileNotFoundError(f"{answer}; create the bucket, or correct TILTH_LANDING_URI.") from error
            if status in (401, 403) or code in ("ExpiredToken", "InvalidToken"):
                raise PermissionError(f"{answer}; {HOW_TO_SIGN_IN}.") from error
            raise OSError(f"{answer}; correct TILTH_S3_REGION if it speaks of one, or try again later.") from error
        except (NotConnected, HTTPClientError, IncompleteReadError) as error:
            raise ConnectionError(
                f"{where}: {error}; check TILTH_S3_ENDPOINT_URL and TILTH_S3_REGION, and the network between."
            ) from error
        except BotoCoreError as error:
            raise PermissionError(f"{where}: {error}; {HOW_TO_SIGN_IN}.") from error
