"""What every step process would do for itself, done once: the fork server imports this module, and nothing else does.

A list of module names would have to follow each release of Dagster and each kind of storage. A rehearsal need not: it
runs an asset and opens the instance, so what those import lazily is there, whatever it is. On SQLite that is alembic
with mako and pygments, sqlalchemy, upath, fsspec and 450 modules more. tests/tilth/test_warm.py shows what is left.
"""

import functools
import gc
import os
import sys
import traceback

import dagster as dg

_QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dg.asset
def _nothing(context: dg.AssetExecutionContext) -> None: ...


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


# In this order: Dagster keeps the three configurations of alembic used last, and the ephemeral instance has its own.
for _part in (_read_revisions_once, _run_an_asset, _open_the_instance, _resolve_definitions):
    try:
        _part()
    except Exception:  # noqa: BLE001 (whatever fails here fails in the step too, and is recorded there)
        print(f"tilth: {_part.__name__} failed in the fork server; steps begin more slowly.", file=sys.stderr)
        traceback.print_exc()

gc.enable()
gc.collect()  # else the first thing that each step does is to look through all of this
