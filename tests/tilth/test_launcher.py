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


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc nobody tells when a process began")
def test_another_process_with_its_number_is_not_taken_for_it(
    instance: dg.DagsterInstance, run: dg.DagsterRun, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth.launcher._SLACK_SECONDS", -3600.0)
    says(instance, run, os.getpid())
    assert status(instance, run) is GONE


def test_of_two_processes_the_one_that_spoke_last_counts(instance: dg.DagsterInstance, run: dg.DagsterRun) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as ended:
        pass
    says(instance, run, ended.pid)
    says(instance, run, os.getpid())
    assert status(instance, run) is THERE
