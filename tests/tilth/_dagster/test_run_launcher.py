"""A run is found dead when its process is gone, and only then."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import EngineEventData
from dagster._core.launcher.base import WorkerStatus

from tests.tilth.run_processes import ROOT
from tilth._dagster import run_launcher as launcher

GONE, THERE = WorkerStatus.NOT_FOUND, WorkerStatus.RUNNING


@dg.job
def nothing() -> None: ...


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    (tmp_path / "dagster.yaml").write_text((ROOT / "platform" / "dagster.yaml").read_text())
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def run(instance: dg.DagsterInstance) -> dg.DagsterRun:
    return instance.create_run_for_job(nothing, status=dg.DagsterRunStatus.STARTED)


def status(instance: dg.DagsterInstance, run: dg.DagsterRun) -> WorkerStatus:
    assert instance.run_launcher.supports_check_run_worker_health
    return instance.run_launcher.check_run_worker_health(run).status


def says(instance: dg.DagsterInstance, run: dg.DagsterRun, pid: int) -> None:
    instance.report_engine_event("Started process for run", run, EngineEventData.in_process(pid))


def test_a_run_is_there_while_its_process_is_and_gone_with_it(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    assert status(instance, run) is THERE  # nobody has said yet who executes it
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as process:
        says(instance, run, process.pid)
        assert status(instance, run) is THERE
        process.kill()
        os.waitid(os.P_PID, process.pid, os.WEXITED | os.WNOWAIT)
        assert status(instance, run) is GONE  # also before its parent has collected it
    assert status(instance, run) is GONE


proc = pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc nobody tells when a process began")


@proc
def test_another_process_with_its_number_is_not_taken_for_it(
    instance: dg.DagsterInstance, run: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth._dagster.run_launcher._SLACK_SECONDS", -3600.0)
    says(instance, run, os.getpid())
    assert status(instance, run) is GONE


@proc
def test_a_clock_that_is_set_ahead_ends_no_run(
    instance: dg.DagsterInstance, run: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(instance, run, os.getpid())
    assert status(instance, run) is THERE
    # By the clock, this process now begins an hour after it spoke. A launcher that has just been started knows as well.
    monkeypatch.setattr("tilth._dagster.run_launcher._SLACK_SECONDS", -3600.0)
    assert status(instance, run) is THERE
    says(instance, run, os.getpid())  # as its executor does, after the code server did
    with dg.DagsterInstance.get() as later:
        assert status(later, run) is THERE


@proc
def test_after_a_restart_another_process_with_its_number_is_not_taken_for_it(
    instance: dg.DagsterInstance, run: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    says(instance, run, os.getpid())
    assert status(instance, run) is THERE
    ours = launcher._began(os.getpid())
    assert ours is not None
    with monkeypatch.context() as restarted:  # a container: its processes are numbered from the beginning
        restarted.setattr(launcher, "_began", lambda _: ours + 1)
        assert status(instance, run) is GONE
    with monkeypatch.context() as restarted:  # the machine
        restarted.setattr(launcher, "_of_this_boot", lambda ticks: f"{ticks} of another boot")
        assert status(instance, run) is GONE
    assert status(instance, run) is THERE


def test_a_process_is_looked_after_once(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    says(instance, run, os.getpid())
    for _ in range(3):
        assert status(instance, run) is THERE
    (note,) = [e for e in instance.all_logs(run.run_id) if e.message.startswith("Looks after")]
    assert note.message == f"Looks after its process {os.getpid()} from here on."


def test_of_two_processes_the_one_that_spoke_last_counts(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    says(instance, run, ended.pid)
    says(instance, run, os.getpid())
    assert status(instance, run) is THERE
