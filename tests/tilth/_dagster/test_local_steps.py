"""Processes of steps: each says how it ended, however it did."""

import os
import signal
import time
from multiprocessing import get_context
from pathlib import Path
from typing import cast

import pytest

from tilth._dagster import local_steps as module
from tilth._dagster.local_steps import LocalSteps


def local_steps(slots: int) -> LocalSteps:
    get_context("forkserver").set_forkserver_preload(["dagster._cli.api"])  # or each process would import it
    return LocalSteps(slots)


def test_a_process_that_cannot_be_started_says_why() -> None:
    steps = local_steps(1)
    steps.start("unheard of", cast(str, lambda: None), None)  # what cannot be sent to another process
    assert steps._steps["unheard of"].ended.wait(30)
    assert steps.death("unheard of").startswith("could not be started (")
    assert "lambda" in steps.death("unheard of")


class Sleeps:
    """Whoever unpickles it sleeps."""

    def __reduce__(self) -> tuple[object, tuple[int]]:
        return time.sleep, (600,)


def test_a_step_that_is_stopped_while_its_process_is_being_started_does_not_run() -> None:
    steps = local_steps(1)
    with module._ONE_LOOKS:  # nothing starts meanwhile
        steps.start("stopped", cast(str, Sleeps()), None)
        steps.stop()
    assert steps._steps["stopped"].ended.wait(30)


def work(file: str, ends_by: int = 0) -> None:
    Path(file).touch()
    if ends_by:
        os.kill(os.getpid(), ends_by)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    time.sleep(600)


class Works:
    """Whoever unpickles it leaves a file and works on, whatever it is asked, or ends by a signal."""

    def __init__(self, file: Path, ends_by: int = 0) -> None:
        self.arguments = (str(file), ends_by)

    def __reduce__(self) -> tuple[object, tuple[str, int]]:
        return work, self.arguments


def test_steps_that_do_not_listen_are_killed_within_one_grace_and_one_that_waits_never_starts(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_GRACE_SECONDS", 2.0)
    steps = local_steps(2)
    for name in ("first", "second", "waits"):
        steps.start(name, cast(str, Works(tmp_path / name)), None)
    until = time.monotonic() + 30
    while len(list(tmp_path.iterdir())) < 2 and time.monotonic() < until:
        time.sleep(0.05)
    began = time.monotonic()
    steps.stop()
    assert time.monotonic() - began < 1  # it waits for none
    steps.join()
    assert time.monotonic() - began < 2 * module._GRACE_SECONDS
    assert {step.exit_code for step in steps._steps.values()} == {-signal.SIGKILL, None}
    assert not (tmp_path / "waits").exists()
    assert steps._steps["waits"].ended.wait(0)


@pytest.mark.parametrize(("number", "name"), [(signal.SIGSEGV, "SIGSEGV"), (40, "signal 40")])
def test_a_step_that_a_signal_ended_says_which(number: int, name: str, tmp_path: Path) -> None:
    steps = local_steps(1)
    steps.start("ended", cast(str, Works(tmp_path / "began", number)), None)
    assert steps._steps["ended"].ended.wait(30)
    assert steps.death("ended") == f"was ended by {name}"


def test_of_many_that_end_at_once_each_says_how() -> None:
    steps = local_steps(8)
    names = [f"step {number}" for number in range(80)]
    for name in names:
        steps.start(name, "no json", None)
    for name in names:
        assert steps._steps[name].ended.wait(120)
    assert {steps.death(name) for name in names} == {"ended with exit code 1"}
