"""A run that is killed leaves no step behind."""

import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import pytest

from tests.tilth.run_processes import ROOT


def until(found: Callable[[], object], seconds: float) -> bool:
    began = time.monotonic()
    while not found():
        if time.monotonic() - began > seconds:
            return False
        time.sleep(0.05)
    return True


def is_there(pid: int) -> bool:
    stat = Path("/proc", str(pid), "stat")
    try:
        return stat.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc a step's own programs are not found")
@pytest.mark.parametrize("executor", ["local", "kubernetes"])
def test_a_step_ends_when_its_runs_process_is_killed(executor: str, tmp_path: Path) -> None:
    home, found, printed = tmp_path / "home", tmp_path / "found", tmp_path / "printed"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "platform" / "dagster.yaml").read_text())
    environment = {"DAGSTER_HOME": str(home), "SLEEPING_STEPS_FOUND": str(found), "SLEEPING_STEPS_EXECUTOR": executor}
    command = [
        sys.executable,
        "-m",
        "dagster",
        "job",
        "execute",
        "-m",
        "tests.tilth._dagster.sleeping_steps",
        "-j",
        "all_steps",
    ]
    with printed.open("wb") as log:
        run = subprocess.Popen(command, cwd=ROOT, env=os.environ | environment, stdout=log, stderr=log)
    try:
        assert until(found.exists, 60), printed.read_text()
    finally:
        run.kill()
        run.wait()
    step, program = (int(pid) for pid in found.read_text().split())
    try:
        assert until(lambda: not is_there(step), 3)
        assert until(lambda: not is_there(program), 5)
    finally:
        for pid in filter(is_there, (step, program)):
            os.kill(pid, signal.SIGKILL)
