"""Steps in processes of this machine, in those of a real run."""

import os
import signal
import sqlite3
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from pathlib import Path

import dagster as dg
import pytest

from tests.tilth.run_processes import ROOT, execute

CODE = "tests.tilth.execution.interrupted_steps"
GRACE_SECONDS = 5


@contextmanager
def running(job: str, folder: Path, *began: str) -> Iterator[subprocess.Popen[bytes]]:
    """The process of a run on a new instance in `folder`/home, once its steps have left these files."""
    home = folder / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "platform" / "dagster.yaml").read_text())
    environment = os.environ | {"DAGSTER_HOME": str(home), "INTERRUPTED_STEPS_FOUND": str(folder)}
    command = [sys.executable, "-m", "dagster", "job", "execute", "-m", CODE, "-j", job]
    with (folder / "printed").open("wb") as log:
        run = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
    try:
        until = time.monotonic() + 60
        while not all((folder / name).exists() and (folder / name).stat().st_size for name in began):
            assert time.monotonic() < until, (folder / "printed").read_text()
            time.sleep(0.05)
        yield run
    finally:
        run.kill()
        run.wait()


def cancel(run: subprocess.Popen[bytes], home: Path, number: signal.Signals) -> dg.DagsterRunStatus | None:
    """How the run ended that was cancelled."""
    with pytest.MonkeyPatch.context() as here:
        here.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.from_config(str(home)) as instance:
            instance.report_run_canceling(instance.get_runs()[0])
            run.send_signal(number)
            run.wait(60)
            return instance.get_runs()[0].status


def processes_left(folder: Path) -> list[str]:
    """The processes that the steps noted, of those that are there."""
    stats = [Path("/proc", pid, "stat") for file in folder.glob("deaf*") for pid in file.read_text().split()]
    return [s.parent.name for s in stats if s.exists() and s.read_text().rpartition(")")[2].split()[0] != "Z"]


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_interrupts_its_steps_which_clean_up(number: signal.Signals, tmp_path: Path) -> None:
    with running("all_steps", tmp_path, "began") as run:
        assert cancel(run, tmp_path / "home", number) is dg.DagsterRunStatus.CANCELED
    assert (tmp_path / "cleaned up").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc a step's own programs are not found")
def test_a_cancelled_run_ends_steps_that_do_not_listen_within_one_grace_for_all(tmp_path: Path) -> None:
    with running("deaf_steps", tmp_path, "deaf0", "deaf1", "deaf2") as run:
        began = time.monotonic()
        assert cancel(run, tmp_path / "home", signal.SIGTERM) is dg.DagsterRunStatus.CANCELED
        assert time.monotonic() - began < 2 * GRACE_SECONDS
        assert processes_left(tmp_path) == []
    assert not (tmp_path / "pooled").exists()


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc a step's own programs are not found")
def test_a_run_that_loses_its_database_ends_with_its_steps(tmp_path: Path) -> None:
    with running("deaf_steps", tmp_path, "deaf0", "deaf1", "deaf2") as run:
        (log,) = (file for file in (tmp_path / "home" / "history" / "runs").glob("*.db") if file.stem != "index")
        with closing(sqlite3.connect(log, timeout=30)) as database:
            database.execute("DROP TABLE event_logs")
        assert run.wait(4 * GRACE_SECONDS)
        assert "no such table: event_logs" in (tmp_path / "printed").read_text()
        assert processes_left(tmp_path) == []
    assert not (tmp_path / "pooled").exists()


def test_a_step_takes_its_pools_slot_when_it_begins(tmp_path: Path) -> None:
    run = execute(CODE, "busy_and_pooled", tmp_path / "home", INTERRUPTED_STEPS_FOUND=str(tmp_path))
    assert run.status is dg.DagsterRunStatus.SUCCESS, run.printed
    assert (tmp_path / "slots taken").read_text() == "0"
    assert (tmp_path / "pooled").exists()
