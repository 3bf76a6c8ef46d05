"""A PostgreSQL server of the tests' own, from the server programs that are installed."""

import getpass
import os
import pwd
import shutil
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest


def server_program(name: str) -> Path:
    """`initdb` and its like, which Debian keeps off the PATH; the newest release installed."""
    if found := shutil.which(name):
        return Path(found)
    installed = sorted(Path("/usr/lib/postgresql").glob(f"*/bin/{name}"), key=lambda p: int(p.parts[-3]))
    if not installed:
        pytest.fail(f"{name} is not installed: these tests start their own PostgreSQL (Debian: apt install postgresql)")
    return installed[-1]


def free_port() -> int:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        return server.getsockname()[1]


@pytest.fixture(scope="session")
def postgres_uri(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The address of an empty database on 127.0.0.1; the server and its data are gone afterwards."""
    folder = tmp_path_factory.mktemp("postgres")
    # PostgreSQL refuses to run as root.
    user = "postgres" if getpass.getuser() == "root" else None
    if user:
        account = pwd.getpwnam(user)
        os.chown(folder, account.pw_uid, account.pw_gid)
        for parent in [folder, *folder.parents][:4]:
            if parent.stat().st_uid == 0 and parent != Path("/tmp"):  # noqa: S108
                parent.chmod(0o755)
    password = folder / "password"
    password.write_text("only-for-this-test")
    if user:
        password.chmod(0o644)

    def run(*command: str | Path) -> None:
        subprocess.run([str(part) for part in command], user=user, check=True, capture_output=True, cwd="/")

    data, port = folder / "data", free_port()
    run(server_program("initdb"), "--username=tilth", "--auth=scram-sha-256", f"--pwfile={password}", data)
    options = f"-p {port} -c listen_addresses=127.0.0.1 -c unix_socket_directories= -c fsync=off"
    control = server_program("pg_ctl")
    run(control, "start", "--wait", "-D", data, "-l", folder / "log", "-o", options)
    yield f"postgresql://tilth:only-for-this-test@127.0.0.1:{port}/postgres"
    run(control, "stop", "-D", data, "-m", "immediate")
