"""A code location of steps that work until they are interrupted, or longer; test_local.py runs its jobs."""

import os
import signal
import subprocess
import time
from pathlib import Path

import dagster as dg

from tilth.execution.local import local_executor

FIRST = {"dagster/priority": "1"}
found = Path(os.environ.get("INTERRUPTED_STEPS_FOUND", "."))


@dg.asset
def sleeps() -> None:
    found.joinpath("began").write_text("now")
    try:
        time.sleep(600)
    finally:
        found.joinpath("cleaned up").touch()


def deaf(name: str) -> dg.AssetsDefinition:
    @dg.asset(name=name, op_tags=FIRST)
    def works() -> None:
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        program = subprocess.Popen(["sleep", "600"])
        found.joinpath(name).write_text(f"{os.getpid()} {program.pid}")
        time.sleep(600)

    return works


@dg.asset(op_tags=FIRST)
def busy(context: dg.AssetExecutionContext) -> None:
    time.sleep(1)
    slots = context.instance.event_log_storage.get_concurrency_info("press")
    found.joinpath("slots taken").write_text(str(len(slots.claimed_slots)))


@dg.asset(pool="press")
def pooled() -> None:
    found.joinpath("pooled").touch()


deaf_steps = [deaf(f"deaf{number}") for number in range(3)]
executor = local_executor("tests.tilth.execution.interrupted_steps")
three_at_once, one_at_once = (
    local_executor("tests.tilth.execution.interrupted_steps", max_concurrent=slots) for slots in (3, 1)
)
defs = dg.Definitions(
    assets=[sleeps, *deaf_steps, busy, pooled],
    jobs=[
        dg.define_asset_job("all_steps", [sleeps], executor_def=executor),
        dg.define_asset_job("deaf_steps", [*deaf_steps, pooled], executor_def=three_at_once),
        dg.define_asset_job("busy_and_pooled", [busy, pooled], executor_def=one_at_once),
    ],
)
