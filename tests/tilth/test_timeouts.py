"""Timeouts: a step that hangs is ended from outside and says so; what runs beside it goes on."""

import subprocess
import sys
import threading
from pathlib import Path

import dagster as dg
import pytest

from tests.tilth.run_processes import Run, execute
from tilth import timeouts
from tilth.partition_ranges import range_tags
from tilth.timeouts import TAG, seconds, timeout


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("found")


@pytest.fixture(scope="module")
def run(found: Path) -> Run:
    day = {"dagster/partition": "2013-01-05"}
    return execute("tests.tilth.timed_steps", "all_of_them", found / "home", day, TIMED_STEPS_FOUND=str(found))


def test_a_step_that_hangs_fails_and_says_which_asset_partition_and_limit_and_what_to_do(run: Run) -> None:
    assert run.status is dg.DagsterRunStatus.FAILURE
    (why,) = run.failures().values()
    assert why.startswith("models/stuck 2013-01-05 ran longer than its timeout of 4s and was ended.")
    assert 'op_tags=timeout("4s")' in why


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
    assert len(deaths) == 2
    assert all("SIGALRM" in message and "memory" not in message for message in deaths)


def test_a_process_that_ignores_the_alarm_is_killed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(timeouts, "_GRACE_SECONDS", 0.1)
    deaf = (
        "import signal, time; signal.signal(signal.SIGALRM, signal.SIG_IGN); print('deaf', flush=True); time.sleep(99)"
    )
    with subprocess.Popen([sys.executable, "-c", deaf], stdout=subprocess.PIPE, text=True) as process:
        assert process.stdout
        assert process.stdout.readline() == "deaf\n"
        killed: set[str] = set()
        timeouts._end_when_due(process.pid, "step", 0, threading.Event(), killed)
        assert process.wait() == -9
        assert killed == {"step"}


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
