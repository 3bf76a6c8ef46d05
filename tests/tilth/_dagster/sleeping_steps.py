"""A code location whose one step sleeps beside a program of its own; test_parent_watchdog.py kills its run."""

import os
import subprocess
import time
from pathlib import Path

import dagster as dg

from tilth.execution.local import local_executor
from tilth.execution.steps import kubernetes_executor

executors = {"local": local_executor, "kubernetes": kubernetes_executor}


@dg.asset
def sleeps() -> None:
    program = subprocess.Popen(["sleep", "600"])
    found = Path(os.environ["SLEEPING_STEPS_FOUND"])
    found.with_suffix(".new").write_text(f"{os.getpid()} {program.pid}")
    found.with_suffix(".new").rename(found)
    time.sleep(600)


defs = dg.Definitions(
    assets=[sleeps],
    jobs=[dg.define_asset_job("all_steps")],
    executor=executors[os.environ.get("SLEEPING_STEPS_EXECUTOR", "local")]("tests.tilth._dagster.sleeping_steps"),
)
