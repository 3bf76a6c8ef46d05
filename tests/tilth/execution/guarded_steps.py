"""A code location whose one step says when it was at work; test_concurrency_guard.py runs it several times at once."""

import os
import time
from pathlib import Path

import dagster as dg

from tilth.execution.local import local_executor

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def slow(context: dg.AssetExecutionContext) -> None:
    seen, go = Path(os.environ["GUARDED_SEEN"]), Path(os.environ["GUARDED_GO"])
    began = time.time()
    seen.joinpath(f"{context.run_id} began").write_text(str(began))
    while not go.exists():
        time.sleep(0.05)
    seen.joinpath(f"{context.run_id} ended").write_text(str(time.time()))


defs = dg.Definitions(assets=[slow], executor=local_executor("tests.tilth.execution.guarded_steps"))
