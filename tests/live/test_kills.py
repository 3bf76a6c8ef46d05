"""A backfill of 200 partitions whose workers, run and daemon are killed ends with each of them recorded once."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path

import dagster as dg
import pytest
import yaml

from tests.live.two_hundred import KEYS

ROOT = Path(__file__).parents[2]
MODULE = "tests.live.two_hundred"
PATIENCE_SECONDS = 400
LAUNCH = """
mutation($parameters: LaunchBackfillParams!) {
  launchPartitionBackfill(backfillParams: $parameters) { __typename ... on PythonError { message } }
}
"""


class Backfill:
    """A daemon with its code server, and what they started, over an instance of their own."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home, self.processes = folder, folder / "home", folder / "processes"
        self.home.mkdir()
        self.processes.mkdir()
        settings = yaml.safe_load((ROOT / "platform/dagster.yaml").read_text())
        settings["run_monitoring"]["poll_interval_seconds"] = 2
        (self.home / "dagster.yaml").write_text(yaml.safe_dump(settings))
        self.environment = os.environ | {"DAGSTER_HOME": str(self.home), "TWO_HUNDRED_PROCESSES": str(self.processes)}
        self.instance = dg.DagsterInstance.from_config(str(self.home))
        self.daemons: list[subprocess.Popen[bytes]] = []

    def start_daemon(self) -> None:
        with (self.folder / "daemon.log").open("ab") as log:
            command = [Path(sys.executable).with_name("dagster-daemon"), "run", "-m", MODULE]
            self.daemons.append(
                subprocess.Popen(
                    command, cwd=ROOT, env=self.environment, stdout=log, stderr=log, start_new_session=True
                )
            )

    def launch(self, keys: list[str]) -> None:
        """As the UI does: through GraphQL."""
        selector = {"repositoryLocationName": MODULE, "repositoryName": "__repository__"}
        parameters = {"assetSelection": [{"path": ["things"]}], "partitionNames": keys}
        command = [Path(sys.executable).with_name("dagster-graphql"), "-m", MODULE, "-t", LAUNCH]
        done = subprocess.run(
            [*command, "-v", json.dumps({"parameters": parameters, "selector": selector})],
            cwd=ROOT, env=self.environment, capture_output=True, text=True,
        )  # fmt: skip
        assert "LaunchBackfillSuccess" in done.stdout, done.stdout + done.stderr

    def recorded(self) -> Counter[str]:
        asked = dg.AssetRecordsFilter(dg.AssetKey("things"))
        records = self.instance.fetch_materializations(asked, limit=10 * len(KEYS)).records
        return Counter(str(record.partition_key) for record in records)

    def under_way(self) -> bool:
        at_work = [s for s in dg.DagsterRunStatus if s.name in ("QUEUED", "STARTING", "STARTED", "CANCELING")]
        backfills = [b for b in self.instance.get_backfills() if b.status.name == "REQUESTED"]
        return bool(backfills or self.instance.get_runs(dg.RunsFilter(statuses=at_work)))

    def until(self, what: str, found: Callable[[], object]) -> None:
        began = time.monotonic()
        while not found():
            log = (self.folder / "daemon.log").read_text()[-5000:]
            assert time.monotonic() - began < PATIENCE_SECONDS, f"{what} did not come\n{log}"
            time.sleep(0.1)

    def kill_a_worker(self, chosen: random.Random) -> bool:
        """SIGKILL to a process that makes partitions; whether there was one."""
        there = [int(file.name) for file in self.processes.glob("*") if Path("/proc", file.name).exists()]
        for pid in chosen.sample(there, len(there)):
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
                return True
        return False

    def kill_the_run(self) -> list[int]:
        """SIGKILL to the process of the run alone; the processes of its steps."""
        (run,) = self.instance.get_runs()
        entries = self.instance.all_logs(run.run_id)
        events = [entry.dagster_event for entry in entries if entry.dagster_event]
        (began,) = [event for event in events if event.event_type is dg.DagsterEventType.PIPELINE_START]
        assert began.pid is not None
        os.kill(began.pid, signal.SIGKILL)
        return [event.pid for event in events if event.event_type is dg.DagsterEventType.STEP_START and event.pid]

    def kill_everything(self) -> None:
        """The daemon, the code server and the run, as when the machine is switched off."""
        for process in Path("/proc").glob("[0-9]*"):
            with suppress(OSError, ValueError):
                environment = process.joinpath("environ").read_bytes()
                if int(process.name) != os.getpid() and f"DAGSTER_HOME={self.home}".encode() in environment:
                    os.kill(int(process.name), signal.SIGKILL)
        for daemon in self.daemons:
            daemon.wait()


@pytest.fixture
def backfill(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Backfill]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "home"))
    backfill = Backfill(tmp_path)
    yield backfill
    backfill.kill_everything()
    backfill.instance.dispose()


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc the processes are not found")
def test_all_partitions_are_recorded_once_each(backfill: Backfill) -> None:
    chosen = random.Random(200)  # noqa: S311
    backfill.start_daemon()
    backfill.launch(KEYS)
    for made in sorted(chosen.sample(range(5, 60), 3)):
        backfill.until(f"{made} partitions", lambda made=made: backfill.recorded().total() >= made)
        assert backfill.kill_a_worker(chosen)
    # The daemon alone: the run goes on under its code server.
    backfill.daemons[-1].kill()
    backfill.until("half of them", lambda: backfill.recorded().total() >= 100)
    backfill.start_daemon()
    backfill.until("more", lambda: backfill.recorded().total() >= 110)
    assert backfill.kill_a_worker(chosen)
    # And all at once: what runs is found dead by the daemon that starts next.
    backfill.kill_everything()
    before = backfill.recorded().total()
    assert before < len(KEYS)
    backfill.start_daemon()
    backfill.until("the end", lambda: not backfill.under_way())

    assert backfill.recorded() == Counter(KEYS)
    runs = backfill.instance.get_runs()
    assert {run.status for run in runs} == {dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.SUCCESS}
    assert [run.parent_run_id for run in runs if run.status is dg.DagsterRunStatus.SUCCESS] == [runs[-1].run_id]


@pytest.mark.skipif(not Path("/proc").exists(), reason="without /proc the processes are not found")
def test_a_step_ends_with_its_run_and_the_next_makes_what_is_left(backfill: Backfill) -> None:
    keys = KEYS[:100]
    backfill.start_daemon()
    backfill.launch(keys)
    backfill.until("10 partitions", lambda: backfill.recorded().total() >= 10)
    steps = backfill.kill_the_run()
    time.sleep(3)
    assert [Path("/proc", str(step)).exists() for step in steps] == [False]
    backfill.until("the end", lambda: not backfill.under_way())
    assert backfill.recorded() == Counter(keys)
    runs = backfill.instance.get_runs()
    assert [run.status for run in runs] == [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
