"""How many steps at once may use what they share, said beside the assets that use it.

An asset names its pool, `@dg.asset(pool="warehouse")`, but Dagster keeps the limits in the instance, where a person
sets them by hand. Here they are part of the definitions, `dg.Definitions(metadata=pool_limits(warehouse=1), ...)`, and
`python -m tilth.execution.pools assets.orders.definitions` sets the instance's to them; under `make dev` that is done
for each version of the code (tilth/execution/run_template.py).
"""

import argparse
import fcntl
import importlib
import json
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import dagster as dg

from tilth._dagster.asset_graph import graph_of
from tilth._dagster.event_log import set_pool_limit
from tilth._dagster.kept_values import keep_value, kept_values

_POOLS = "pools"
# Where an instance keeps what each code location declared.
_KEPT = "tilth/pools"


def pool_limits(**limits: int) -> dict[str, dg.JsonMetadataValue]:
    """The metadata of definitions whose pools take so many steps at once.

    Raises:
        ValueError: a limit below one, by which no step of the pool would ever begin.
    """
    for pool, limit in limits.items():
        if limit < 1:
            raise ValueError(
                f"No step of the pool {pool!r} could ever begin with a limit of {limit}; give it at least 1."
            )
    return {_POOLS: dg.MetadataValue.json(limits)}


def apply_pool_limits(definitions: dg.Definitions, instance: dg.DagsterInstance, location: str) -> dict[str, int]:
    """Set the instance's limits to those that this code location declares, and return what they are now.

    Of a pool that several locations share, the smallest limit that any of them declared holds. Other pools keep what
    they have.

    Args:
        location: the module of the code location.

    Raises:
        ValueError: a limit of a pool that no asset is in: its name is misspelled, or no longer used.
    """
    metadata: Any = definitions.metadata.get(_POOLS)
    declared: dict[str, int] = metadata.value if metadata else {}
    used = graph_of(definitions).pools
    if unknown := sorted(declared.keys() - used):
        raise ValueError(f"No asset is in the pool {unknown[0]!r}; they are in {', '.join(sorted(used)) or 'none'}.")
    with _lock():
        by_location = _limits_by_location(instance)
        before = by_location.get(location, {})
        by_location[location] = declared
        keep_value(instance, _KEPT, json.dumps(by_location))
        limits = {}
        for pool in sorted(before.keys() | declared):
            if of_all := [theirs[pool] for theirs in by_location.values() if pool in theirs]:
                limits[pool] = min(of_all)
                set_pool_limit(instance, pool, limits[pool])
    return limits


def _limits_by_location(instance: dg.DagsterInstance) -> dict[str, dict[str, int]]:
    return json.loads(kept_values(instance, [_KEPT]).get(_KEPT, "{}"))


@contextmanager
def _lock() -> Iterator[None]:
    """One process of this machine at a time: under `make dev`, the locations declare theirs at once."""
    home = os.environ.get("DAGSTER_HOME", "")
    with ExitStack() as held:
        if os.access(home, os.W_OK):  # not on Kubernetes, where the hooks run one after another
            lock = held.enter_context(Path(home, "pools.lock").open("w"))
            fcntl.flock(lock, fcntl.LOCK_EX)  # it goes with its process
        yield


def main() -> None:
    """Set the limits of the instance in DAGSTER_HOME, and print them."""
    arguments = argparse.ArgumentParser(prog="python -m tilth.execution.pools", description=main.__doc__)
    arguments.add_argument("module", help="the module that holds the definitions, as `defs`")
    module = arguments.parse_args().module
    definitions = importlib.import_module(module).defs
    with dg.DagsterInstance.get() as instance:
        try:
            limits = apply_pool_limits(definitions, instance, module)
        except ValueError as error:
            sys.exit(f"{error}")
        by_location = _limits_by_location(instance)
    for pool, limit in limits.items():
        said = f"pool {pool}: {limit} step{'s' if limit > 1 else ''} at once"
        if by_location[module].get(pool) != limit:
            holders = sorted(location for location, theirs in by_location.items() if theirs.get(pool) == limit)
            said += f", the limit of {', '.join(holders)}"
        print(said)


if __name__ == "__main__":
    main()
