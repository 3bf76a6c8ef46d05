"""A code location whose one step sleeps beside a program of its own; tests/tilth/test_orphans.py kills its run."""

import os
import subprocess
import time
from pathlib import Path

import dagster as dg

from tilth.execution.local import warm_executor
from tilth.execution.steps import lanes_executor

executors = {"warm": warm_executor, "lanes": lanes_executor}


@dg.asset
def sleeps() -> None:
    program = subprocess.Popen(["sleep", "600"])
    found = Path(os.environ["ORPHAN_STEPS_FOUND"])
    found.with_suffix(".new").write_text(f"{os.getpid()} {program.pid}")
    found.with_suffix(".new").rename(found)
    time.sleep(600)


defs = dg.Definitions(
    assets=[sleeps],
    jobs=[dg.define_asset_job("all_steps")],
    executor=executors[os.environ.get("ORPHAN_STEPS_EXECUTOR", "warm")]("tests.tilth.orphan_steps"),
)
