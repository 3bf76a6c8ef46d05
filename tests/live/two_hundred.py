"""A code location of one asset with 200 partitions, whose processes tests/live/test_kills.py kills."""

import os
import time
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from tilth.execution.local import local_executor
from tilth.execution.partitions import for_each_partition

KEYS = [f"{n:03}" for n in range(200)]


def make(key: str, *, processes: Path) -> dg.MaterializeResult[Any]:
    processes.joinpath(str(os.getpid())).touch()
    time.sleep(0.15)
    return dg.MaterializeResult(metadata={"key": key}, data_version=dg.DataVersion(key))


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(KEYS), backfill_policy=dg.BackfillPolicy.single_run())
def things(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
    processes = Path(os.environ["TWO_HUNDRED_PROCESSES"])
    return for_each_partition(context, partial(make, processes=processes), workers=2)


defs = dg.Definitions(assets=[things], executor=local_executor("tests.live.two_hundred"))
