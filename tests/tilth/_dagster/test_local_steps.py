"""Processes of steps: each says how it ended, however it did."""

import time
from multiprocessing import get_context
from typing import cast

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
        steps.stop("stopped")
    assert steps._steps["stopped"].ended.wait(30)


def test_of_many_that_end_at_once_each_says_how() -> None:
    steps = local_steps(8)
    names = [f"step {number}" for number in range(80)]
    for name in names:
        steps.start(name, "no json", None)
    for name in names:
        assert steps._steps[name].ended.wait(120)
    assert {steps.death(name) for name in names} == {"ended with exit code 1"}
