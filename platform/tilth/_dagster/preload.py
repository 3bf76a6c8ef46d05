"""What every run and step would do for itself, done once in the process that they are forked from.

A list of module names would have to follow each release of Dagster and each kind of storage. A rehearsal need not: it
runs an asset and opens the instance, so what those import lazily is there, whatever it is. On SQLite that is alembic
with mako and pygments, sqlalchemy, upath, fsspec and 450 modules more. tests/tilth/test_warm.py shows what is left.
"""

import functools
import gc
import importlib
import os
import sys
import traceback
from collections.abc import Sequence

import dagster as dg

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
_used_late: dict[str, tuple[Sequence[str], Sequence[str]]] = {}
_done = False
_unseeded: tuple[bytes, int] | None = None
"""The state of NumPy's generator that nobody has set or drawn from; None where that is not known."""


@dg.asset
def _nothing(context: dg.AssetExecutionContext) -> None: ...


def note(code_location: str, modules: Sequence[str], in_template: Sequence[str]) -> None:
    """Have `preload` import these modules too, as `executor_of` says."""
    _used_late[code_location] = modules, in_template


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
    rehearsal = () if in_a_run else (_run_an_asset, _open_the_instance, _resolve_definitions, gc.collect)
    for part in (_read_revisions_once, *rehearsal):
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


def _read_revisions_once() -> None:
    """Each SQLite storage, when it is opened, has alembic read all of its revision files: 0.1 s a step."""
    from alembic.script import ScriptDirectory

    ScriptDirectory.from_config = functools.cache(ScriptDirectory.from_config)


def _resolve_definitions() -> None:
    """The asset graph of each code location that was imported; it is kept by its `dg.Definitions`."""
    found = [value for module in list(sys.modules.values()) for value in list(vars(module).values())]
    for definitions in (value for value in found if isinstance(value, dg.Definitions)):
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
