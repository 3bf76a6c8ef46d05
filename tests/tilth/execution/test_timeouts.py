"""Timeouts: a step that hangs is ended from outside and says so; what runs beside it goes on."""

from pathlib import Path
from typing import cast

import dagster as dg
import pytest

from tests.tilth.run_processes import Run, execute
from tilth._dagster.executor import Run as RunningRun
from tilth._dagster.executor import Step
from tilth.automation.ranges import range_tags
from tilth.execution import timeouts
from tilth.execution.timeouts import TAG, seconds, timeout


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("found")


@pytest.fixture(scope="module")
def run(found: Path) -> Run:
    day = {"dagster/partition": "2013-01-05"}
    return execute(
        "tests.tilth.execution.timed_steps", "all_of_them", found / "home", day, TIMED_STEPS_FOUND=str(found)
    )


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


def test_it_is_not_taken_for_a_lack_of_memory(run: Run) -> None:
    assert "memory" not in run.failures()["models__stuck"]
    assert "memory" in run.failures()["leaves"]


def a_step(tags: dict[str, str], **of_run: str) -> Step:
    run = RunningRun(dg.DagsterInstance.ephemeral(), "run", of_run, None, cast(dg.DagsterLogManager, None))
    return Step("letters", tags, [dg.AssetKey("letters")], run)


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
    why = timeouts.explanation(a_step({}, **range_tags("a", "c")), "10m")
    assert why.startswith("letters a to c ran longer than its timeout of 10m")
    assert timeouts.explanation(a_step({}), "10m").startswith("letters ran longer")
