"""Steps that ask for no machine, in the processes of a real run. Those in pods of their own are in tests/kubernetes."""

from pathlib import Path

import dagster as dg
import pytest

from tests.tilth.run_processes import Run, execute


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("found")


@pytest.fixture(scope="module")
def run(found: Path) -> Run:
    return execute(
        "tests.tilth.execution.steps_without_requests", "all_of_them", found / "home", STEPS_FOUND=str(found)
    )


def test_steps_are_forked_from_one_server_and_follow_each_other(run: Run, found: Path) -> None:
    assert {"first", "second"} <= set(run.steps(dg.DagsterEventType.STEP_SUCCESS))
    assert found.joinpath("first").read_text() == found.joinpath("second").read_text()


@pytest.mark.usefixtures("run")
def test_a_step_waits_for_a_database_that_is_away(found: Path) -> None:
    assert found.joinpath("waits").read_text() == "True"


def test_what_fails_fails_alone_and_retry_policies_hold(run: Run) -> None:
    assert set(run.steps(dg.DagsterEventType.STEP_FAILURE)) == {
        *("fails", "dies", "leaves", "hangs", "hangs_and_would_listen")
    }
    assert set(run.steps(dg.DagsterEventType.STEP_RESTARTED)) == {"fails_once", "dies_once"}
    assert {"fails_once", "dies_once"} <= set(run.steps(dg.DagsterEventType.STEP_SUCCESS))
    assert "after_hangs" not in run.steps(dg.DagsterEventType.STEP_START)


def test_a_process_that_died_says_how_and_what_to_ask_for(run: Run) -> None:
    died = run.failures()["dies"]
    assert died.startswith("The process of dies was ended by SIGKILL, in the run's pod.")
    assert 'op_tags=compute(memory="4Gi")' in died


def test_a_process_that_ends_well_without_having_ended_its_step_has_failed(run: Run) -> None:
    assert run.failures()["leaves"].startswith(
        "The process of leaves ended with exit code 0 before its step had ended, in the run's pod."
    )


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc a step's own programs are not found")
def test_a_step_that_hangs_is_ended_with_the_programs_that_it_started(run: Run, found: Path) -> None:
    for step in ("hangs", "hangs_and_would_listen"):
        assert run.failures()[step].startswith(f"{step} ran longer than its timeout of 3s and was ended.")
    stat = Path("/proc", found.joinpath("program").read_text(), "stat")
    assert not stat.exists() or stat.read_text().rpartition(")")[2].split()[0] == "Z"
