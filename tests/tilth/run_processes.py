"""A run as `dagster job execute` makes it, in processes of its own, on the settings that `make` installs."""

import json
import os
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pytest

ROOT = Path(__file__).parents[2]


@dataclass(frozen=True)
class Run:
    """What a run left: its status, its record, and what its processes printed."""

    status: dg.DagsterRunStatus
    log: Sequence[dg.EventLogEntry]
    printed: str

    def failures(self) -> dict[str | None, str]:
        """By step, why it failed."""
        events = [entry.dagster_event for entry in self.log if entry.dagster_event]
        return {e.step_key: e.step_failure_data.error.message for e in events if e.is_step_failure}

    def steps(self, event_type: dg.DagsterEventType) -> list[str | None]:
        return [entry.step_key for entry in self.log if entry.dagster_event_type is event_type]


def execute(module: str, job: str, home: Path, tags: Mapping[str, str] | None = None, **environment: str) -> Run:
    """Run the job on a new instance in `home`."""
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "platform" / "dagster.yaml").read_text())
    command = ["-m", "dagster", "job", "execute", "-m", module, "-j", job, "--tags", json.dumps(tags or {})]
    with pytest.MonkeyPatch.context() as here:
        here.setenv("DAGSTER_HOME", str(home))
        done = subprocess.run(
            [sys.executable, *command],
            cwd=ROOT,
            env=os.environ | environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=300,
        )
        with dg.DagsterInstance.from_config(str(home)) as instance:
            runs = instance.get_runs()
            assert len(runs) == 1, done.stdout
            return Run(runs[0].status, instance.all_logs(runs[0].run_id), done.stdout)
