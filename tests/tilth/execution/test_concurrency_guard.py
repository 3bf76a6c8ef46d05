"""Two runs never make the same partition at once, however they were started."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.events import DagsterEvent

from tests.tilth.execution.guarded_steps import defs
from tests.tilth.run_processes import ROOT
from tilth.execution import concurrency_guard

PATIENCE_SECONDS = 120


class Runs:
    """Runs in processes of their own over one instance; each works until `go`."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.seen, self.go = folder, folder / "home", folder / "seen", folder / "go"
        self.home.mkdir()
        self.seen.mkdir()
        (self.home / "dagster.yaml").write_text((ROOT / "platform" / "dagster.yaml").read_text())
        self.instance = dg.DagsterInstance.from_config(str(self.home))
        self.processes: list[subprocess.Popen[bytes]] = []

    def start(self, *partitions: str) -> str:
        """A run of these partitions; its id, once it has started."""
        before = {run.run_id for run in self.instance.get_runs()}
        command = ["asset", "materialize", "-m", "tests.tilth.execution.guarded_steps", "--select", "*", *partitions]
        environment = os.environ | {"GUARDED_SEEN": str(self.seen), "GUARDED_GO": str(self.go)}
        environment["DAGSTER_HOME"] = str(self.home)
        with (self.folder / f"{len(self.processes)}.log").open("wb") as log:
            self.processes.append(
                subprocess.Popen(
                    [sys.executable, "-m", "dagster", *command],
                    cwd=ROOT,
                    env=environment,
                    stdout=log,
                    stderr=log,
                    start_new_session=True,
                )
            )
        started = [dg.DagsterRunStatus.STARTED]
        self.until(lambda: {r.run_id for r in self.instance.get_runs(dg.RunsFilter(statuses=started))} - before)
        return next(iter({run.run_id for run in self.instance.get_runs()} - before))

    def until(self, found: Callable[[], object]) -> None:
        began = time.monotonic()
        while not found():
            logs = [file.read_text() for file in self.folder.glob("*.log")]
            assert time.monotonic() - began < PATIENCE_SECONDS, "\n".join(logs)
            time.sleep(0.1)

    def at(self, run: str, moment: str) -> float | None:
        file = self.seen / f"{run} {moment}"
        return float(file.read_text()) if file.exists() and file.read_text() else None

    def waits(self, run: str) -> list[str]:
        return [e.message for e in self.instance.all_logs(run) if e.message.startswith("Waits for the run")]

    def status(self, run: str) -> dg.DagsterRunStatus:
        found = self.instance.get_run_by_id(run)
        assert found is not None
        return found.status


@pytest.fixture
def runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Runs]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    runs = Runs(tmp_path)
    yield runs
    for process in runs.processes:
        if process.poll() is None:
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
    runs.instance.dispose()


def test_a_run_of_the_same_partition_waits_and_one_of_another_does_not(runs: Runs) -> None:
    first = runs.start("--partition-range", "2013-01-01...2013-01-03")
    runs.until(lambda: runs.at(first, "began"))
    same = runs.start("--partition", "2013-01-02")
    other = runs.start("--partition", "2013-01-04")
    runs.until(lambda: runs.at(other, "began"))
    runs.until(lambda: runs.waits(same))
    assert runs.at(same, "began") is None
    assert runs.waits(other) == []
    assert runs.waits(same) == [
        f"Waits for the run {first}, which began before this one and makes slow 2013-01-02 as well."
    ]

    runs.go.touch()
    runs.until(lambda: runs.at(same, "ended"))
    ended, began = runs.at(first, "ended"), runs.at(same, "began")
    assert ended
    assert began
    assert ended < began
    runs.until(lambda: all(process.poll() is not None for process in runs.processes))
    assert {runs.status(run) for run in (first, same, other)} == {dg.DagsterRunStatus.SUCCESS}


def test_a_run_that_waits_can_be_cancelled(runs: Runs) -> None:
    first = runs.start("--partition", "2013-01-01")
    runs.until(lambda: runs.at(first, "began"))
    waiting = runs.start("--partition", "2013-01-01")
    runs.until(lambda: runs.waits(waiting))
    run = runs.instance.get_run_by_id(waiting)
    assert run is not None
    runs.instance.report_run_canceling(run)
    runs.processes[1].send_signal(signal.SIGTERM)
    runs.until(lambda: runs.processes[1].poll() is not None)
    assert runs.status(waiting) is dg.DagsterRunStatus.CANCELED
    assert runs.at(waiting, "began") is None
    assert runs.status(first) is dg.DagsterRunStatus.STARTED


def test_what_died_without_a_word_is_waited_for_until_it_is_declared_failed(runs: Runs) -> None:
    first = runs.start("--partition", "2013-01-01")
    runs.until(lambda: runs.at(first, "began"))
    os.killpg(runs.processes[0].pid, signal.SIGKILL)
    runs.go.touch()
    second = runs.start("--partition", "2013-01-01")
    runs.until(lambda: runs.waits(second))
    dead = runs.instance.get_run_by_id(first)
    assert dead is not None
    runs.instance.report_run_failed(dead)  # as run monitoring does
    runs.until(lambda: runs.at(second, "ended"))


class Starting:
    """A run of 2013-01-01 that is about to start, in no process: what it stores and when is the test's."""

    def __init__(self, runs: Runs) -> None:
        self.instance = runs.instance
        self.run = runs.instance.create_run_for_job(
            defs.resolve_implicit_global_asset_job_def(), tags={"dagster/partition": "2013-01-01"}
        )
        self.stores(dg.DagsterEventType.PIPELINE_STARTING, time.time())

    def stores(self, event: dg.DagsterEventType, moment: float) -> None:
        self.instance.handle_new_event(
            dg.EventLogEntry(
                error_info=None, level=20, user_message="", run_id=self.run.run_id, timestamp=moment,
                dagster_event=DagsterEvent(event_type_value=event.value, job_name=self.run.job_name),
            )
        )  # fmt: skip


def test_of_two_that_start_at_once_the_earlier_goes_first_though_the_later_looked_first(runs: Runs) -> None:
    runs.go.touch()
    earlier = Starting(runs)
    noted = time.time()  # and is not stored yet: it waits for the database
    later = runs.start("--partition", "2013-01-01")
    runs.until(lambda: runs.waits(later))
    assert "to start, which makes slow 2013-01-01 as well" in runs.waits(later)[0]
    earlier.stores(dg.DagsterEventType.PIPELINE_START, noted)
    runs.until(lambda: len(runs.waits(later)) == 2)
    assert "which began before this one and makes slow 2013-01-01 as well" in runs.waits(later)[1]
    assert runs.at(later, "began") is None
    earlier.stores(dg.DagsterEventType.PIPELINE_SUCCESS, time.time())
    runs.until(lambda: runs.at(later, "ended"))


def test_what_turns_out_to_start_later_is_not_waited_for(runs: Runs) -> None:
    runs.go.touch()
    later = Starting(runs)
    first = runs.start("--partition", "2013-01-01")
    runs.until(lambda: runs.waits(first))
    later.stores(dg.DagsterEventType.PIPELINE_START, time.time())
    runs.until(lambda: runs.at(first, "ended"))
    assert len(runs.waits(first)) == 1


def test_what_does_not_start_is_waited_for_for_a_while_only(runs: Runs, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(concurrency_guard, "START_SECONDS", 0.0)
    Starting(runs)
    run = runs.instance.create_run_for_job(
        defs.resolve_implicit_global_asset_job_def(),
        tags={"dagster/partition": "2013-01-01"},
        status=dg.DagsterRunStatus.STARTED,
    )
    concurrency_guard.wait_for_earlier_runs(runs.instance, run.run_id)
    assert len(runs.waits(run.run_id)) == 1
