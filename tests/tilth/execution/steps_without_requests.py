"""A code location whose steps ask for no machine: all of them run in the run's pod."""

import os
import signal
import subprocess
import time
from pathlib import Path

import dagster as dg
from sqlalchemy import event
from sqlalchemy.engine import Engine

from tilth._dagster import connections
from tilth.execution.steps import kubernetes_executor
from tilth.execution.timeouts import timeout

executor = kubernetes_executor("tests.tilth.execution.steps_without_requests")
found = Path(os.environ.get("STEPS_FOUND", "."))


@dg.asset
def first() -> None:
    found.joinpath("first").write_text(str(os.getppid()))


@dg.asset(deps=[first])
def second() -> None:
    found.joinpath("second").write_text(str(os.getppid()))
    found.joinpath("waits").write_text(str(event.contains(Engine, "do_connect", connections._connect)))


@dg.asset
def fails() -> None:
    raise ValueError("on purpose")


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
def fails_once(context: dg.AssetExecutionContext) -> None:
    if context.retry_number == 0:
        raise ValueError("on purpose, once")


@dg.asset
def dies() -> None:
    os.kill(os.getpid(), signal.SIGKILL)


@dg.asset(retry_policy=dg.RetryPolicy(max_retries=1))
def dies_once(context: dg.AssetExecutionContext) -> None:
    if context.retry_number == 0:
        os.kill(os.getpid(), signal.SIGKILL)


@dg.asset
def leaves() -> None:
    os._exit(0)  # as a library that ends its program does


@dg.asset(op_tags=timeout("3s"))
def hangs() -> None:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    program = subprocess.Popen(["sleep", "600"])
    found.joinpath("program").write_text(str(program.pid))
    time.sleep(600)


@dg.asset(op_tags=timeout("3s"))
def hangs_and_would_listen() -> None:
    time.sleep(600)


@dg.asset(deps=[hangs])
def after_hangs() -> None: ...


defs = dg.Definitions(
    assets=[first, second, fails, fails_once, dies, dies_once, leaves, hangs, hangs_and_would_listen, after_hangs],
    jobs=[dg.define_asset_job("all_of_them")],
    executor=executor,
)
