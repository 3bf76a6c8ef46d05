"""The lane of light steps, in the processes of a real run. Those with pods of their own are in tests/kubernetes."""

import signal
import subprocess
import sys
import time
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import dagster as dg
import pytest

from tests.tilth.run_processes import Run, execute
from tilth._dagster import local_steps as light_steps_module
from tilth._dagster.local_steps import LightSteps


@pytest.fixture(scope="module")
def found(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("found")


@pytest.fixture(scope="module")
def run(found: Path) -> Run:
    return execute("tests.tilth.lane_steps", "all_of_them", found / "home", LANE_STEPS_FOUND=str(found))


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


def light_steps(slots: int) -> LightSteps:
    get_context("forkserver").set_forkserver_preload(["dagster._cli.api"])  # or each process would import it
    return LightSteps(slots)


def test_a_process_that_cannot_be_started_says_why() -> None:
    steps = light_steps(1)
    steps.start("unheard of", cast(str, lambda: None), None)  # what cannot be sent to another process
    assert steps._steps["unheard of"].ended.wait(30)
    assert steps.death("unheard of").startswith("could not be started (")
    assert "lambda" in steps.death("unheard of")


class Sleeps:
    """Whoever unpickles it sleeps."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return time.sleep, (600,)


def test_a_step_that_is_stopped_while_its_process_is_being_started_does_not_run() -> None:
    steps = light_steps(1)
    with light_steps_module._ONE_LOOKS:  # nothing starts meanwhile
        steps.start("stopped", cast(str, Sleeps()), None)
        steps.stop("stopped")
    assert steps._steps["stopped"].ended.wait(30)


def test_of_many_that_end_at_once_each_says_how() -> None:
    steps = light_steps(8)
    names = [f"step {number}" for number in range(80)]
    for name in names:
        steps.start(name, "no json", None)
    for name in names:
        assert steps._steps[name].ended.wait(120)
    assert {steps.death(name) for name in names} == {"ended with exit code 1"}


def step_process(home: Path, run_id: str, *command: str) -> "subprocess.Popen[str]":
    home.mkdir(exist_ok=True)
    return subprocess.Popen(
        [sys.executable, "-c", "from tilth._dagster.step_process import main; main()", run_id, *command],
        env={"DAGSTER_HOME": str(home), "PATH": "/usr/bin:/bin"}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        text=True,
    )  # fmt: skip


def test_a_pods_process_does_what_dagsters_command_does(tmp_path: Path) -> None:
    process = step_process(tmp_path, "run", "dagster", "--version")
    assert "dagster, version " in process.communicate()[0]
    assert process.returncode == 0
    process = step_process(tmp_path, "run", "dagster", "api", "execute_step")
    assert "Must provide one of input_json" in process.communicate()[0]
    assert process.returncode == 1


def waiting(home: Path, run_id: str) -> "subprocess.Popen[str]":
    """A command that goes on until it is ended: Dagster's code server."""
    process = step_process(
        home, run_id, "dagster", "api", "grpc", "-m", "tests.tilth.lane_steps", "-s", str(home / "socket")
    )
    assert process.stdout
    while "Started Dagster code server" not in (line := process.stdout.readline()):
        assert line
    return process


def test_told_to_stop_it_ends_at_once_with_what_it_started(tmp_path: Path) -> None:
    process = waiting(tmp_path, "run")
    began = time.monotonic()
    process.send_signal(signal.SIGTERM)
    assert process.wait() == 128 + signal.SIGTERM
    assert time.monotonic() - began < 2
    assert process.stdout
    assert process.stdout.read() is not None  # its end: no process holds the other side any more


def test_it_ends_when_its_run_is_over(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        made = dg.materialize([dg.asset(name="a")(lambda: None)], instance=instance)
    process = waiting(tmp_path, made.run_id)
    assert process.wait(timeout=40) == 128 + signal.SIGKILL
