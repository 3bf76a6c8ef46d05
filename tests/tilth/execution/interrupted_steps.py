"""A code location whose one step cleans up when it is interrupted; test_local.py cancels its run."""

import os
import time
from pathlib import Path

import dagster as dg

from tilth.execution.local import local_executor


@dg.asset
def sleeps() -> None:
    found = Path(os.environ["INTERRUPTED_STEPS_FOUND"])
    found.joinpath("began").touch()
    try:
        time.sleep(600)
    finally:
        found.joinpath("cleaned up").touch()


defs = dg.Definitions(
    assets=[sleeps],
    jobs=[dg.define_asset_job("all_steps")],
    executor=local_executor("tests.tilth.execution.interrupted_steps"),
)
