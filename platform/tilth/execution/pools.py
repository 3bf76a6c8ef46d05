"""How many steps at once may use what they share, said beside the assets that use it.

An asset names its pool, `@dg.asset(pool="warehouse")`, but Dagster keeps the limits in the instance, where a person
sets them by hand. Here they are part of the definitions, `dg.Definitions(metadata=pool_limits(warehouse=1), ...)`, and
`python -m tilth.execution.pools assets.flights.definitions` sets the instance's to them; under `make dev` that is done
for each version of the code (tilth/execution/run_template.py).
"""

import argparse
import importlib
import sys
from typing import Any

import dagster as dg

from tilth._dagster.asset_graph import graph_of
from tilth._dagster.event_log import set_pool_limit

_POOLS = "pools"


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


def apply_pool_limits(definitions: dg.Definitions, instance: dg.DagsterInstance) -> dict[str, int]:
    """Set the instance's limits to those of the definitions, and return them. Other pools keep what they have.

    Raises:
        ValueError: a limit of a pool that no asset is in: its name is misspelled, or no longer used.
    """
    declared: Any = definitions.metadata.get(_POOLS)
    limits: dict[str, int] = declared.value if declared else {}
    used = graph_of(definitions).pools
    if unknown := sorted(limits.keys() - used):
        raise ValueError(f"No asset is in the pool {unknown[0]!r}; they are in {', '.join(sorted(used)) or 'none'}.")
    for pool, limit in limits.items():
        set_pool_limit(instance, pool, limit)
    return limits


def main() -> None:
    """Set the limits of the instance in DAGSTER_HOME, and print them."""
    arguments = argparse.ArgumentParser(prog="python -m tilth.execution.pools", description=main.__doc__)
    arguments.add_argument("module", help="the module that holds the definitions, as `defs`")
    definitions = importlib.import_module(arguments.parse_args().module).defs
    with dg.DagsterInstance.get() as instance:
        try:
            limits = apply_pool_limits(definitions, instance)
        except ValueError as error:
            sys.exit(f"{error}")
    for pool, limit in limits.items():
        print(f"pool {pool}: {limit} step{'s' if limit > 1 else ''} at once")


if __name__ == "__main__":
    main()
