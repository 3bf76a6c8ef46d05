"""Steps in processes of this machine, in those of a real run."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from tests.tilth.run_processes import ROOT


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_cancelled_run_interrupts_its_steps_which_clean_up(
    number: signal.Signals, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "platform" / "dagster.yaml").read_text())
    environment = os.environ | {"DAGSTER_HOME": str(home), "INTERRUPTED_STEPS_FOUND": str(tmp_path)}
    job = ["job", "execute", "-m", "tests.tilth.execution.interrupted_steps", "-j", "all_steps"]
    with (tmp_path / "printed").open("wb") as log:
        run = subprocess.Popen(
            [sys.executable, "-m", "dagster", *job], cwd=ROOT, env=environment, stdout=log, stderr=log
        )
    until = time.monotonic() + 60
    while not (tmp_path / "began").exists():
        assert time.monotonic() < until, (tmp_path / "printed").read_text()
        time.sleep(0.05)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        instance.report_run_canceling(instance.get_runs()[0])
        run.send_signal(number)
        run.wait(30)
        assert (tmp_path / "cleaned up").exists()
        assert instance.get_runs()[0].status is dg.DagsterRunStatus.CANCELED
