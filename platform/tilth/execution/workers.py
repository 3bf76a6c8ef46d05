"""Processes that call one function for many keys: started once, each with one key at a time.

A pool that says which key was lost with a process that died, and that ends with the process that made it, however that
one ends.
"""

import os
import pickle
import shutil
import signal
import sys
import threading
import traceback
from collections import deque
from collections.abc import Callable, Generator, Sequence
from contextlib import suppress
from dataclasses import dataclass
from multiprocessing import get_context, parent_process
from multiprocessing.connection import Connection, wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, cast

import pyarrow as pa
from threadpoolctl import threadpool_limits

# What numeric libraries look at when they are loaded, which may be later than the limit on those that are.
_THREAD_VARIABLES = ("OMP_NUM_THREADS", "OPENBLAS_NUM_THREADS", "MKL_NUM_THREADS", "POLARS_MAX_THREADS")


class UnusableFunctionError(TypeError):
    """The function cannot be handed to another process."""


@dataclass(frozen=True)
class Outcome:
    """What became of a key: what the function returned, or its traceback, or how its process died."""

    key: str
    value: Any = None
    error: str = ""


@dataclass
class _Worker:
    process: BaseProcess
    connection: Connection
    key: str | None = None


def in_processes(
    function: Callable[[str], Any],
    keys: Sequence[str],
    *,
    workers: int,
    threads: int,
    preload: Sequence[str],
    folder: Path,
    tick: float,
) -> Generator[Outcome | None]:
    """Call `function` for every key in `workers` processes and give each outcome as it comes; None whenever `tick`
    seconds brought none.

    The processes are forked from a server that has imported what is needed, and take this process' environment,
    standard output and errors. A key whose process died is tried once more when all others are done, with no process
    beside it. Close the iterator to kill the processes.

    Args:
        preload: the modules that the server imports, once for all processes.
        threads: how many each process may use in BLAS, OpenMP and Arrow.
        folder: where the caller keeps files for the processes; they remove it when this process is gone.

    Raises:
        UnusableFunctionError: the function cannot be pickled, or not be found again in another process.
    """
    pickled = _pickled(function)
    forking = get_context("forkserver")
    # Of a server that runs already, such as that of Dagster's own executor, this changes nothing.
    # Each process imports the main module again; what that imports, such as Dagster's command line, is there already.
    main = getattr(sys.modules["__main__"], "__spec__", None)
    forking.set_forkserver_preload([__name__, *preload, *([main.name] if main else [])])

    def started() -> _Worker:
        ours, theirs = forking.Pipe()
        # Dagster keeps the step's output by what these two are, which need not be what they were for the server.
        outputs = [Connection(os.dup(number), readable=False) for number in (1, 2)]
        process = forking.Process(target=_work, args=(pickled, theirs, outputs, dict(os.environ), threads, folder))
        process.start()
        for connection in (theirs, *outputs):
            connection.close()
        return _Worker(process, cast(Connection, ours))

    pool: list[_Worker] = []
    todo, lost, tried = deque(keys), deque[str](), set[str]()
    try:
        while todo or lost or any(worker.key is not None for worker in pool):
            if todo:
                while todo and len(pool) < workers:
                    pool.append(started())
                    _give(pool[-1], todo.popleft())
            elif lost and all(worker.key is None for worker in pool):
                _stop(pool)
                pool.append(started())
                _give(pool[0], lost.popleft())
            outcomes = _next(pool, tick)
            if not outcomes:
                yield None
            for worker, outcome in outcomes:
                key, worker.key = worker.key, None
                if outcome is not None:
                    # The next key before the outcome, so that the process works while the caller looks at this one.
                    if todo:
                        _give(worker, todo.popleft())
                    yield outcome
                    continue
                pool.remove(worker)
                death = _died(worker)
                if key in tried:
                    yield Outcome(key, error=death)
                elif key is not None:
                    tried.add(key)
                    lost.append(key)
    finally:
        _stop(pool)


def _next(pool: Sequence[_Worker], seconds: float) -> list[tuple[_Worker, Outcome | None]]:
    """What came from the workers within this time; None from one that died before it answered."""
    by_signal: dict[Any, _Worker] = {worker.connection: worker for worker in pool}
    by_signal |= {worker.process.sentinel: worker for worker in pool}
    found: list[tuple[_Worker, Outcome | None]] = []
    for signalled in wait(list(by_signal), seconds):
        worker = by_signal[signalled]
        if any(worker is other for other, _ in found):
            continue
        answer = None
        # One that died after its answer has answered.
        with suppress(EOFError, OSError):
            answer = worker.connection.recv() if worker.connection.poll() else None
        if isinstance(answer, UnusableFunctionError):
            raise answer
        found.append((worker, answer))
    return found


def _give(worker: _Worker, key: str) -> None:
    worker.key = key
    with suppress(OSError):  # it died: its sentinel says so
        worker.connection.send(key)


def _died(worker: _Worker) -> str:
    worker.process.join()
    worker.connection.close()
    code = worker.process.exitcode or 0
    if code == -signal.SIGKILL:
        return "its process was killed (SIGKILL), twice: most often it needed more memory than there is."
    how = f"by {signal.Signals(-code).name}" if code < 0 else f"with exit code {code}"
    return f"its process ended {how} before it answered, twice."


def _stop(pool: list[_Worker]) -> None:
    for worker in pool:
        worker.process.kill()
    for worker in pool:
        worker.process.join()
        worker.connection.close()
    pool.clear()


def _pickled(function: Callable[[str], Any]) -> bytes:
    try:
        return pickle.dumps(function)
    except (pickle.PicklingError, AttributeError, TypeError) as error:
        raise UnusableFunctionError(
            f"it cannot be sent to another process ({error}). Define it at the top level of a module, not as a lambda "
            "or inside of another function, and bind its parameters, as plain values, by functools.partial."
        ) from error


def _work(
    pickled: bytes,
    connection: Connection,
    outputs: Sequence[Connection],
    environment: dict[str, str],
    threads: int,
    folder: Path,
) -> None:
    """A worker's life."""
    # Ctrl-C goes to all processes of a terminal; the one that made this one ends it.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    threading.Thread(target=_end_with_parent, args=(folder,), daemon=True).start()
    for output, number in zip(outputs, (1, 2), strict=True):
        os.dup2(output.fileno(), number)
        output.close()
    os.environ.clear()
    os.environ.update(environment | dict.fromkeys(_THREAD_VARIABLES, str(threads)))
    pa.set_cpu_count(threads)
    try:
        function = pickle.loads(pickled)  # noqa: S301 (of the process that started this one)
    except Exception:  # noqa: BLE001
        where = traceback.format_exc(limit=-1)
        connection.send(UnusableFunctionError(f"another process cannot import it; define it in a module.\n{where}"))
        return
    with suppress(EOFError):
        while True:
            key = connection.recv()
            with threadpool_limits(threads):
                outcome = attempt(function, key)
            try:
                connection.send(outcome)
            except Exception:  # noqa: BLE001 (a value's own pickling may raise anything)
                reason = traceback.format_exc(limit=-1)
                connection.send(Outcome(key, error=f"what it returned cannot be sent from its process.\n{reason}"))


def attempt(function: Callable[[str], Any], key: str) -> Outcome:
    """Call the function in this process."""
    try:
        return Outcome(key, function(key))
    except Exception:  # noqa: BLE001 (any failure is this key's alone)
        return Outcome(key, error=traceback.format_exc())


def _end_with_parent(folder: Path) -> None:
    if parent := parent_process():
        parent.join()
    shutil.rmtree(folder, ignore_errors=True)
    os._exit(1)
