"""This project's side: a hundred partitions in one step, and twenty steps in one run, with nothing to do in any."""

from typing import Any

import dagster as dg

from tilth.batches import for_each_partition
from tilth.warm import warm_executor

WORKERS = 2
KEYS = [f"{n:03}" for n in range(100)]


def one(key: str) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(metadata={"made": int(key)}, data_version=dg.DataVersion(key))


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(KEYS), backfill_policy=dg.BackfillPolicy.single_run())
def hundred(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    return for_each_partition(context, one, workers=WORKERS)


def trivial(number: int) -> dg.AssetsDefinition:
    @dg.asset(name=f"twenty_{number:02}", group_name="twenty")
    def asset() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata={"made": number})

    return asset


twenty = [trivial(number) for number in range(20)]
defs = dg.Definitions(
    assets=[hundred, *twenty],
    jobs=[dg.define_asset_job("twenty", dg.AssetSelection.groups("twenty"))],
    executor=warm_executor("benchmarks.peers.trivial", max_concurrent=WORKERS),
)
