"""A DuckDB file's turn: one connection of one process may have it open, and the next one waits, saying for whom."""

import logging
import os
import re
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import TYPE_CHECKING

import adbc_driver_manager

if TYPE_CHECKING:  # as in resources.warehouse
    from adbc_driver_manager import dbapi

log = logging.getLogger("tilth.warehouse")

TRY_EVERY_SECONDS = 0.2
SAY_EVERY_SECONDS = 10.0

_guard = threading.Lock()
_open_here: dict[Path, int] = {}  # by which thread


class WarehouseBusyError(RuntimeError):
    """Somebody else held the DuckDB file for longer than the wait."""


@contextmanager
def duckdb_connection(path: Path, wait_seconds: float) -> "Iterator[dbapi.Connection]":
    """The only connection to the file; it is closed at the end, for whoever keeps it open keeps all others out.

    While another process holds the file, the logger `tilth.warehouse` says which, at once and every 10 s.

    Raises:
        WarehouseBusyError: the file is still held after `wait_seconds`, or at once where this thread holds it itself.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    connection = _in_turn(path.resolve(), wait_seconds)
    try:
        yield connection
    finally:
        connection.close()
        del _open_here[path.resolve()]


@contextmanager
def duckdb_turn(path: Path, wait_seconds: float) -> Iterator[None]:
    """The file's turn for connections of another library, such as dbt's, which it has closed when the block ends.

    Raises:
        WarehouseBusyError: as `duckdb_connection`.
    """
    path = path.absolute()
    path.parent.mkdir(parents=True, exist_ok=True)
    _in_turn(path.resolve(), wait_seconds).close()
    try:
        yield
    finally:
        del _open_here[path.resolve()]


def _in_turn(path: Path, wait_seconds: float) -> "dbapi.Connection":
    started = time.monotonic()
    say_at = started
    while True:
        opened = _connection_or_holder(path)
        if not isinstance(opened, str):
            return opened
        now = time.monotonic()
        if now - started >= wait_seconds:
            raise WarehouseBusyError(
                f"{path} was held for {wait_seconds:g} s by {opened}. End that process or close its connection (an "
                "open notebook or a DuckDB shell, often), then run the partition again."
            )
        if now >= say_at:
            log.warning(
                "%s is held by %s; waiting for it, %.0f of at most %g s", path, opened, now - started, wait_seconds
            )
            say_at = now + SAY_EVERY_SECONDS
        time.sleep(min(TRY_EVERY_SECONDS, started + wait_seconds - now))


def _connection_or_holder(path: Path) -> "dbapi.Connection | str":
    """The file's connection, or in words who holds it."""
    # The lock keeps other processes out, but not a second connection of this one: each would overwrite what the other
    # commits, and the first one closed would give the lock away.
    with _guard:
        if _open_here.get(path) == threading.get_ident():
            raise WarehouseBusyError(
                f"This thread has a transaction open on {path}: read and write within it by that transaction's own "
                "methods, or open the other one after it."
            )
        if path in _open_here:
            return f"another thread of this process (PID {os.getpid()})"
        if _is_open_in_this_process(path):
            return f"this process itself (PID {os.getpid()}), by a connection that is not the warehouse's"
        from adbc_driver_duckdb import dbapi as duckdb

        try:
            connection = duckdb.connect(str(path))
        except adbc_driver_manager.Error as error:
            if "lock on file" not in str(error):
                raise
            holder = re.search(r"held in (.+? \(PID \d+\)[^.]*)", str(error))
            return holder[1] if holder else f"another process; DuckDB says: {error}"
        _open_here[path] = threading.get_ident()
        return connection


def _is_open_in_this_process(path: Path) -> bool:
    """As Linux tells it; elsewhere this cannot be known."""
    for descriptor in Path("/proc/self/fd").glob("*"):
        with suppress(OSError):
            if descriptor.readlink() == path:
                return True
    return False
