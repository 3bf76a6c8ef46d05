"""Where models lie: files in a folder, or objects in a bucket. Either holds the old bytes or the new, never half."""

import os
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Protocol
from urllib.parse import quote, urlencode, urlsplit
from uuid import uuid4

import pyarrow.fs


class ModelFiles(Protocol):
    """What a kind of storage does for models; a name is a relative path with slashes."""

    def address(self, name: str) -> str: ...
    def write(self, name: str, data: bytes) -> None: ...
    def read(self, name: str) -> bytes:
        """Raises FileNotFoundError where there is none."""
        ...

    def holds(self, name: str) -> bool: ...
    def remove(self, name: str) -> None:
        """Nothing happens where there is none."""
        ...


def model_files(uri: str, s3_endpoint_url: str, s3_region: str) -> ModelFiles:
    """The store that an address names: `s3://…`, `gs://…`, `abfss://…`, or a folder.

    Raises:
        ValueError: an address of another kind.
    """
    kind, separator, _ = uri.partition("://")
    if not separator:
        return Folder(Path(uri))
    if kind not in ("s3", "gs", "abfss"):
        raise ValueError(
            f"TILTH_MODELS_URI is {uri}: models are stored in a folder, or at s3://…, gs://… or abfss://…."
        )
    return ObjectStore(uri.rstrip("/"), s3_endpoint_url, s3_region)


@dataclass(frozen=True)
class Folder:
    """Files on disk."""

    path: Path

    def address(self, name: str) -> str:
        return str(self.path / name)

    def write(self, name: str, data: bytes) -> None:
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            with hidden.open("xb") as file:
                file.write(data)
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)

    def read(self, name: str) -> bytes:
        return (self.path / name).read_bytes()

    def holds(self, name: str) -> bool:
        return (self.path / name).is_file()

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)


@dataclass(frozen=True)
class ObjectStore:
    """Objects under an address, through Arrow's file systems; an object appears when all of it is there.

    Credentials are found where the store's own tools look for them: for S3 in variables, a profile, or the role of the
    machine or pod.
    """

    uri: str
    s3_endpoint_url: str = ""
    s3_region: str = ""

    @cached_property
    def _place(self) -> tuple[pyarrow.fs.FileSystem, str]:
        # Made when it is first used: its threads do not survive a fork, and steps are forked.
        options = {}
        if self.uri.startswith("s3://"):
            endpoint = urlsplit(self.s3_endpoint_url)
            options = {"scheme": endpoint.scheme, "endpoint_override": endpoint.netloc, "region": self.s3_region}
        query = urlencode({name: value for name, value in options.items() if value})
        with self._explained("cannot be reached"):
            return pyarrow.fs.FileSystem.from_uri(quote(self.uri, safe=":/@") + (f"?{query}" if query else ""))

    def _path(self, name: str) -> str:
        return f"{self._place[1]}/{name}"

    def address(self, name: str) -> str:
        return f"{self.uri}/{name}"

    def write(self, name: str, data: bytes) -> None:
        with self._explained(f"cannot take {name}"), self._place[0].open_output_stream(self._path(name)) as stream:
            stream.write(data)

    def read(self, name: str) -> bytes:
        with self._explained(f"cannot give {name}"), self._place[0].open_input_file(self._path(name)) as stream:
            return stream.read()

    def holds(self, name: str) -> bool:
        with self._explained(f"cannot be asked for {name}"):
            return self._place[0].get_file_info(self._path(name)).type == pyarrow.fs.FileType.File

    def remove(self, name: str) -> None:
        if self.holds(name):
            with self._explained(f"cannot remove {name}"):
                self._place[0].delete_file(self._path(name))

    @contextmanager
    def _explained(self, what: str) -> Iterator[None]:
        try:
            yield
        except FileNotFoundError:
            raise
        except OSError as error:
            raise OSError(
                f"{self.uri} {what}: {error}. Check that TILTH_MODELS_URI names a bucket that exists, "
                "TILTH_S3_ENDPOINT_URL and TILTH_S3_REGION for S3, and that the credentials found here may list, read, "
                "write and delete there."
            ) from error
