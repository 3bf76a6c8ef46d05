"""This project's side: a hundred partitions in one step, and twenty steps in one run."""

from typing import Any

import dagster as dg

from benchmarks.peers import trivial
from tilth.execution.local import local_executor

executor = local_executor("benchmarks.peers.trivial_ours", max_concurrent=trivial.WORKERS)

from tilth.execution.partitions import for_each_partition


def one(key: str) -> dg.MaterializeResult[Any]:
    return dg.MaterializeResult(metadata={"made": int(key)}, data_version=dg.DataVersion(key))


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(trivial.KEYS), backfill_policy=dg.BackfillPolicy.single_run())
def hundred(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    return for_each_partition(context, one, workers=trivial.WORKERS)


defs = dg.Definitions(
    assets=[hundred, *trivial.twenty],
    jobs=[dg.define_asset_job("twenty", dg.AssetSelection.groups("twenty"))],
    executor=executor,
)
