"""Timeouts: a step that hangs is ended from outside and says so; what runs beside it goes on."""

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster_shared.error import SerializableErrorInfo

from tests.tilth.run_processes import Run, execute
from tilth.automation.ranges import range_tags
from tilth.execution import timeouts
from tilth.execution.timeouts import TAG, seconds, timeout


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("found")


@pytest.fixture(scope="module")
def run(found: Path) -> Run:
    day = {"dagster/partition": "2013-01-05"}
    return execute("tests.tilth.timed_steps", "all_of_them", found / "home", day, TIMED_STEPS_FOUND=str(found))


def test_a_step_that_hangs_fails_and_says_which_asset_partition_and_limit_and_what_to_do(run: Run) -> None:
    assert run.status is dg.DagsterRunStatus.FAILURE
    why = run.failures()["models__stuck"]
    assert why.startswith("models/stuck 2013-01-05 ran longer than its timeout of 4s and was ended.")
    assert 'op_tags=timeout("4s")' in why


def test_a_process_that_ends_well_without_having_ended_its_step_has_failed(run: Run) -> None:
    assert run.failures().keys() == {"models__stuck", "leaves"}


def test_it_is_tried_again_only_where_the_asset_has_a_retry_policy(run: Run) -> None:
    assert run.steps(dg.DagsterEventType.STEP_RESTARTED) == ["stuck_once"]
    assert "stuck_once" in run.steps(dg.DagsterEventType.STEP_SUCCESS)


def test_its_neighbours_and_what_follows_them_succeed(run: Run) -> None:
    assert {"neighbour", "after_neighbour"} <= set(run.steps(dg.DagsterEventType.STEP_SUCCESS))


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc a step's own programs are not found")
def test_the_process_and_the_programs_that_it_started_are_gone(run: Run, found: Path) -> None:
    for process in found.joinpath("programs").read_text().split():
        stat = Path("/proc", process, "stat")
        # Whoever inherits a process that was ended may not have collected it yet.
        assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"


def test_dagster_does_not_take_it_for_a_lack_of_memory(run: Run) -> None:
    deaths = [entry.message for entry in run.log if "child process for step" in entry.message]
    assert len(deaths) == 3
    deaths = [message for message in deaths if "leaves" not in message]
    assert all("SIGALRM" in message and "memory" not in message for message in deaths)


def test_a_process_that_ignores_the_alarm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "_GRACE_SECONDS", 0.1)
    deaf = (
        "import signal, time; signal.signal(signal.SIGALRM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "deaf\n"
        attempt = timeouts._Attempt()
        timeouts._end_when_due(process.pid, 0, attempt)
        assert process.wait() == -9
        assert attempt.overdue


def test_an_attempt_that_ended_just_at_its_limit_does_not_name_what_the_next_one_dies_of() -> None:
    """By an executor of two attempts: the first records its own end a moment after its time, the second dies early."""
    named: list[str] = []

    class Executor(dg.Executor):
        retries = None  # pyright: ignore[reportAssignmentType,reportIncompatibleMethodOverride]
        step_dependency_config = None  # pyright: ignore[reportAssignmentType]

        def log_failure_or_retry_event_after_error(self, *arguments: Any) -> Any:
            named.append(arguments[1].message)

        def execute(self, *_: Any) -> Iterator[Any]:
            with subprocess.Popen(["sleep", "99"]) as first, subprocess.Popen(["sleep", "99"]) as second:
                yield happened(dg.DagsterEventType.STEP_WORKER_STARTED, first.pid)
                first.wait()
                yield happened(dg.DagsterEventType.STEP_UP_FOR_RETRY, first.pid)
                yield happened(dg.DagsterEventType.STEP_WORKER_STARTED, second.pid)
                second.kill()
                error = SerializableErrorInfo("killed by SIGKILL", [], None)
                step_context = SimpleNamespace(step=step, dagster_run=SimpleNamespace(tags={}))
                self.log_failure_or_retry_event_after_error(step_context, error, None)

    def happened(event_type: dg.DagsterEventType, pid: int) -> Any:
        return SimpleNamespace(event_type=event_type, step_key="step", pid=pid)

    step = SimpleNamespace(key="step", tags=timeout("1s"), step_outputs=())
    list(timeouts.execute_in_time(Executor(), None, SimpleNamespace(steps=[step])))
    assert named == ["killed by SIGKILL"]


@pytest.mark.parametrize(("limit", "expected"), [("90s", 90), ("10m", 600), ("2h", 7200)])
def test_a_limit_is_a_number_and_its_unit(limit: str, expected: int) -> None:
    assert seconds(limit) == expected
    assert timeout(limit) == {TAG: limit}


@pytest.mark.parametrize("limit", ["", "10", "m", "0s", "-5m", "1.5h", "10 m", "10min", "2H", "1h30m", "٣m", "5m\n"])
def test_another_text_is_an_error_where_the_asset_is_defined(limit: str) -> None:
    with pytest.raises(ValueError, match="write a whole number above zero and its unit") as error:
        dg.asset(op_tags=timeout(limit))(lambda: None)
    assert repr(limit) in str(error.value)


def test_the_explanation_names_a_range_of_partitions_and_an_asset_without_any() -> None:
    why = timeouts.explanation("letters", range_tags("a", "c"), "10m")
    assert why.startswith("letters a to c ran longer than its timeout of 10m")
    assert timeouts.explanation("letters", {}, "10m").startswith("letters ran longer")
