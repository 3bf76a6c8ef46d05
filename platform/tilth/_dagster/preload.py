"""What every run and step would do for itself, done once in the process that they are forked from, and that process.

A list of module names would have to follow each release of Dagster and each kind of storage. Instead an asset is run
and the instance opened, so what those import lazily is there, whatever it is. On SQLite that is alembic with mako and
pygments, sqlalchemy, upath, fsspec and 450 modules more.

Steps are forked from a server that is itself a fork of the run's process, which has its definitions already. Python's
own begins as a new program and imports them once more, 1 to 2 s for which the run waits. To `multiprocessing` this one
is the same. docs/upgrading.md names what here is not public.
"""

import atexit
import gc
import importlib
import os
import signal
import socket
import sys
import threading
import traceback
from collections.abc import Iterator, Sequence
from multiprocessing import connection, forkserver, resource_tracker
from pathlib import Path
from typing import Any, NoReturn

import dagster as dg

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_used_late: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
_done = False
_unseeded: tuple[bytes, int] | None = None
"""The state of NumPy's generator that nobody has set or drawn from; None where that is not known."""
# Threads that hold no lock while they wait, which they do: of Dagster's that for a cancellation, where a code server
# started the run, and Python's behind the queue to that server; and the one of tilth.observability.usage, which a step
# starts anew.
_HARMLESS = {"MainThread", "termination-handler", "QueueFeederThread", "tilth-usage"}


@dg.asset
def _nothing(context: dg.AssetExecutionContext) -> None: ...


def note(code_location: str, modules: Sequence[str], in_template: Sequence[str]) -> None:
    """Have `preload` import these modules too, as `executor_of` says."""
    _used_late[code_location] = modules, in_template
    # Dagster, which is loaded by now, stays: while the rest is, collecting garbage would look through it over and over.
    gc.freeze()
    # In the end it goes: DuckDB would say, in a hundred lines, what of it was never collected.
    atexit.register(gc.unfreeze)


def preload(code_location: str, *, in_a_run: bool = False) -> None:
    """Import the code location and what it uses late, and try out what a run and a step do; a second call does nothing.

    Args:
        code_location: its module.
        in_a_run: whether this process executes a run. It has then done for itself what is tried out here, and the run's
            first step waits for no more than the imports.

    Raises:
        Exception: what the code location itself raises when it is imported. All else that fails is said, and no more:
            it fails in the step too, and is recorded there.
    """
    global _done, _unseeded
    if _done:
        return
    gc.disable()  # while modules only load, collecting garbage finds none and takes a fifth of the time
    if "numpy" not in sys.modules:
        importlib.import_module("numpy")
        _unseeded = _random_state()
    importlib.import_module(code_location)
    modules, in_template = _used_late.get(code_location, ((), ()))
    for module in ("tilth._dagster.parent_watchdog", *modules, *(() if in_a_run else in_template)):
        try:
            importlib.import_module(module)
        except ImportError as problem:
            print(f"tilth: {module} cannot be imported beforehand: {problem}", file=sys.stderr)
    # In this order: Dagster keeps alembic's three configurations used last, and the ephemeral instance has its own.
    tried = (_preload_resources, _run_an_asset, _open_the_instance, _resolve_definitions, gc.collect)
    for part in () if in_a_run else tried:
        try:
            part()
        except Exception:  # noqa: BLE001
            print(f"tilth: {part.__name__} failed beforehand; steps begin more slowly.", file=sys.stderr)
            traceback.print_exc()
    gc.freeze()  # else each fork looks through all of this when it first collects garbage, and so copies it
    gc.enable()
    _done = True


def _run_an_asset() -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        dg.materialize([_nothing], instance=instance, run_config=_QUIET)


def _open_the_instance() -> None:
    """Its storages are opened by asking them, and closed again: no connection crosses the fork."""
    if os.environ.get("DAGSTER_HOME"):
        with dg.DagsterInstance.get() as instance:
            instance.get_runs(limit=1)
            instance.fetch_materializations(_nothing.key, limit=1)


def _definitions() -> Iterator[dg.Definitions]:
    """Of each code location that was imported."""
    found = [value for module in list(sys.modules.values()) for value in list(vars(module).values())]
    return (value for value in found if isinstance(value, dg.Definitions))


def _preload_resources() -> None:
    """Those that say by a method `preload()` what takes long when they are first used."""
    resources = {id(found): found for each in _definitions() for found in (each.resources or {}).values()}
    for resource in resources.values():
        if callable(preload_it := getattr(resource, "preload", None)):
            preload_it()


def _resolve_definitions() -> None:
    """The asset graph of each code location; it is kept by its `dg.Definitions`."""
    for definitions in _definitions():
        definitions.get_repository_def()


def _random_state() -> tuple[bytes, int] | None:
    """That of NumPy's own generator; None where NumPy is not imported."""
    if (numpy := sys.modules.get("numpy")) is None:
        return None
    _, key, position, *_ = numpy.random.get_state()
    return key.tobytes(), position


def _draw_other_random_numbers() -> None:
    """Without a seed, else every run and step would draw the same ones from NumPy; Python's own sees to itself."""
    global _unseeded
    if _unseeded is not None and _random_state() == _unseeded:
        sys.modules["numpy"].random.seed()
        _unseeded = _random_state()


os.register_at_fork(after_in_child=_draw_other_random_numbers)


def fork_server(instance: dg.DagsterInstance, code_location: str) -> None:
    """Have steps forked from this process as it is now, after `preload` of the code location.

    Where other threads run, whose locks a fork has but not their work, steps are forked from Python's own server, which
    the first of them starts, and which imports what `preload` would.
    """
    forkserver.set_forkserver_preload(
        ["__main__", code_location, *_used_late.get(code_location, ((), ()))[0], "tilth._dagster.parent_watchdog"]
    )
    server: Any = forkserver._forkserver
    any_address: Any = getattr(connection, "arbitrary_address")  # noqa: B009 (not in its types)
    if server._forkserver_pid is not None or {thread.name for thread in threading.enumerate()} - _HARMLESS:
        return
    from tilth._dagster.sqlite import BatchedSqliteEventLogStorage

    storage = instance.event_log_storage
    if isinstance(storage, BatchedSqliteEventLogStorage):
        storage.dispose()  # it opens again what it needs; no connection may cross the fork
    resource_tracker.ensure_running()
    with socket.socket(socket.AF_UNIX) as listener:
        address = any_address("AF_UNIX")
        listener.bind(address)
        Path(address).chmod(0o600)
        listener.listen()
        # Whoever uses the server holds the writing end. When the last of them has ended, the server ends.
        alive, used = os.pipe()
        pid = os.fork()
        if pid == 0:
            os.close(used)
            _serve(listener.fileno(), alive, code_location)
        os.close(alive)
    server._forkserver_address, server._forkserver_alive_fd, server._forkserver_pid = address, used, pid


def _serve(listener: int, alive: int, code_location: str) -> NoReturn:
    code = 1
    try:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)  # what Dagster does about it is for the run
        preload(code_location, in_a_run=True)
        main: Any = forkserver.main
        main(listener, alive, [])
    except SystemExit:
        code = 0
    finally:
        os._exit(code)
