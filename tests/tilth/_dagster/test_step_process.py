"""The process of a step's own pod: it does what Dagster's command does, and ends when it is to."""

import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg


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
        home, run_id, "dagster", "api", "grpc", "-m", "tests.tilth._dagster.stock_steps", "-s", str(home / "socket")
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
