"""A backfill in a process that a test may kill: forked from one that has everything imported, so it starts at once."""

import multiprocessing
import os
import signal
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext, redirect_stdout
from dataclasses import dataclass, field
from multiprocessing.context import ForkServerContext
from multiprocessing.process import BaseProcess
from pathlib import Path

import dagster as dg
import pytest
from pydantic import SecretStr

from tests.example import DAILY_DBT, DAILY_RAW, FEATURES, Platform
from tests.signals_in_dbt import signal_after
from tilth.settings import Deployment

INSTANCE = """
telemetry: {enabled: false}
event_log_storage: {module: tilth._dagster.sqlite, class: BatchedSqliteEventLogStorage}
"""
DAILY = [*DAILY_RAW, *DAILY_DBT, *FEATURES]


@dataclass(frozen=True)
class Stack:
    """Where a platform under test keeps its state, as plain values that a new process takes."""

    home: str
    warehouse_uri: str = field(default="", repr=False)
    lake_uri: str = ""
    landing_uri: str = ""
    s3_endpoint_url: str = ""
    environment: Mapping[str, str] = field(default_factory=dict, repr=False)

    @property
    def deployment(self) -> Deployment:
        return Deployment(
            home=Path(self.home),
            warehouse_uri=SecretStr(self.warehouse_uri),
            lake_uri=self.lake_uri,
            landing_uri=self.landing_uri,
            s3_endpoint_url=self.s3_endpoint_url,
            s3_region="us-east-1" if self.s3_endpoint_url else "",
        )


def context() -> ForkServerContext:
    """Of processes that are forked from a server which has imported what a run needs."""
    forking = multiprocessing.get_context("forkserver")
    forking.set_forkserver_preload(
        ["assets.flights.definitions", "tests.faults.preloaded", "tests.example", "tests.faults.backfill"]
    )
    return forking


def start(
    forking: ForkServerContext, stack: Stack, first: str, last: str, ending: tuple[str, signal.Signals] | None = None
) -> BaseProcess:
    """Begin to make all daily assets for these days, in a process of its own group.

    `ending`, a moment and a signal: the process sends itself that then, as `tests.signals_in_dbt` says.
    """
    process = forking.Process(target=_run, args=(stack, first, last, ending))
    process.start()
    return process


def _run(stack: Stack, first: str, last: str, ending: tuple[str, signal.Signals] | None) -> None:
    os.environ.update(stack.environment)
    with (
        Path(os.devnull).open("w") as nowhere,
        redirect_stdout(nowhere),
        signal_after(*ending) if ending else nullcontext(),
        platform_on(stack) as platform,
    ):
        platform.make(DAILY, first, last)


@contextmanager
def platform_on(stack: Stack) -> Iterator[Platform]:
    """The platform on a stack. Its instance has no pools: no daemon is here to give back what a killed run held."""
    home = Path(stack.home, "dagster")
    home.mkdir(exist_ok=True)
    (home / "dagster.yaml").write_text(INSTANCE)
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            yield Platform(stack.deployment, instance)


def kill(process: BaseProcess, after_seconds: float) -> bool:
    """Kill the process at that moment; whether it was still at work."""
    process.join(after_seconds)
    alive = process.is_alive()
    if alive:
        os.kill(process.pid or 0, signal.SIGKILL)
    process.join()
    return alive


def finish(process: BaseProcess) -> float:
    """Wait for its end; the seconds it took from now on."""
    started = time.monotonic()
    process.join()
    assert process.exitcode == 0, f"the backfill ended with {process.exitcode}"
    return time.monotonic() - started
