"""A PostgreSQL server of one's own, from the server programs that are installed: for tests and benchmarks."""

import getpass
import os
import pwd
import shutil
import socket
import subprocess
import tempfile
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

PASSWORD = "only-for-this-test"  # noqa: S105


class NotInstalledError(RuntimeError):
    """A program of the PostgreSQL server is not on this machine."""


def server_program(name: str) -> Path:
    """`initdb` and its like, which Debian keeps off the PATH; the newest release installed."""
    if found := shutil.which(name):
        return Path(found)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
    if not installed:
        raise NotInstalledError(f"{name} is not installed: this starts a PostgreSQL (Debian: apt install postgresql)")
    return installed[-1]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


def dagster_address(uri: str) -> str:
    """The same for Dagster, whose driver is not SQLAlchemy's own choice."""
    return uri.replace("postgresql://", "postgresql+psycopg2://")


@dataclass
class Server:
    """A server that can go away and come back."""

    uri: str
    start: Callable[[], None]
    stop: Callable[[], None]


@contextmanager
def postgres_server(settings: Sequence[str] = ()) -> Iterator[str]:
    """The address of an empty database on 127.0.0.1; as `restartable_server`."""
    with restartable_server(settings) as server:
        yield server.uri


@contextmanager
def restartable_server(settings: Sequence[str] = ()) -> Iterator[Server]:
    """A server with an empty database on 127.0.0.1; it and its data are gone afterwards.

    `settings` are the server's, such as `fsync=off`, over PostgreSQL's own.

    Raises:
        NotInstalledError: the server programs are not on this machine.
    """
    initdb, control = server_program("initdb"), server_program("pg_ctl")
    # PostgreSQL refuses to run as root.
    user = "postgres" if getpass.getuser() == "root" else None

    def run(*command: str | Path) -> None:
        subprocess.run([str(part) for part in command], user=user, check=True, capture_output=True, cwd="/")

    with tempfile.TemporaryDirectory(prefix="postgres-") as name:
        folder = Path(name)
        password = folder / "password"
        password.write_text(PASSWORD)
        if user:
            account = pwd.getpwnam(user)
            os.chown(folder, account.pw_uid, account.pw_gid)
            os.chown(password, account.pw_uid, account.pw_gid)
        data, port = folder / "data", free_port()
        run(initdb, "--username=tilth", "--auth=scram-sha-256", f"--pwfile={password}", data)
        options = ["listen_addresses=127.0.0.1", "unix_socket_directories=", *settings]
        server = Server(
            uri=f"postgresql://tilth:{PASSWORD}@127.0.0.1:{port}/postgres",
            start=lambda: run(
                *(control, "start", "--wait", "-D", data, "-l", folder / "log"),
                *("-o", " ".join([f"-p {port}", *(f"-c {option}" for option in options)])),
            ),
            stop=lambda: run(control, "stop", "-D", data, "-m", "immediate"),
        )
        server.start()
        try:
            yield server
        finally:
            server.stop()
