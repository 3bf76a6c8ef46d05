"""A code location with steps that hang; test_timeouts.py runs it."""

import os
import subprocess
import time
from pathlib import Path

import dagster as dg

from tilth.execution.local import local_executor
from tilth.execution.timeouts import timeout

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
FOREVER = 600


@dg.asset(key=["models", "stuck"], partitions_def=DAYS, op_tags=timeout("4s"))
def stuck(context: dg.AssetExecutionContext) -> None:
    program = subprocess.Popen(["sleep", str(FOREVER)])
    Path(os.environ["TIMED_STEPS_FOUND"], "programs").write_text(f"{os.getpid()} {program.pid}")
    time.sleep(FOREVER)


@dg.asset(partitions_def=DAYS, op_tags=timeout("4s"), retry_policy=dg.RetryPolicy(max_retries=1))
def stuck_once(context: dg.AssetExecutionContext) -> None:
    if not context.retry_number:
        time.sleep(FOREVER)


@dg.asset(partitions_def=DAYS)
def leaves() -> None:
    os._exit(0)


@dg.asset(partitions_def=DAYS, op_tags=timeout("10m"))
def neighbour() -> None:
    """It is at work while the others are ended."""
    time.sleep(6)


@dg.asset(partitions_def=DAYS, deps=[neighbour])
def after_neighbour() -> None: ...


defs = dg.Definitions(
    assets=[stuck, stuck_once, leaves, neighbour, after_neighbour],
    executor=local_executor("tests.tilth.execution.timed_steps", max_concurrent=3),
    jobs=[dg.define_asset_job("all_of_them", "*")],
)
