"""How long a user waits, measured as they do it: `make dev` in a clone with its own environment, then `make land`.

Beside it, on the same graph and from a copy of the same state, plain Dagster under `dagster dev`
(benchmarks/peers/stock_flights.py). All times are of the event log. CPU-seconds are those of the machine, so that
nothing else may run beside.
"""

import json
import os
import random
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import time
import urllib.request
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import dagster as dg

from benchmarks.report import Figure, load_average, report

ROOT = Path(__file__).parents[1]
PATIENCE_SECONDS = 900
QUIET_SECONDS = 10
PREDICTIONS, QUALITY, CHAMPION = "predictions/delays", "reports/prediction_quality", "models/delay_champion"
ORIGINS = ("EWR", "JFK", "LGA")
SMALL = ["raw", "airlines"]
CLICKS, EDITS = 5, 20
EDITED = '"rejected_rows": batch.counts[partition].rejected,'  # in resources/ingestion/assets.py
MOMENTS = random.Random(11)  # noqa: S311
OURS, STOCK = "assets.flights.definitions", "benchmarks.peers.stock_flights"
# Plain Dagster, but that one step at a time may have the DuckDB file.
STOCK_SETTINGS = "telemetry: {enabled: false}\nconcurrency:\n  pools: {default_limit: 1, granularity: op}\n"
LAUNCH = """
mutation($parameters: ExecutionParams!) {
  launchRun(executionParams: $parameters) {
    __typename ... on LaunchRunSuccess { run { runId } } ... on PythonError { message }
  }
}
"""
ENDED = (dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE, dg.DagsterRunStatus.CANCELED)


class Platform:
    """Dagster as somebody runs it in the clone, on a state of its own."""

    def __init__(self, clone: Path, home: Path, location: str) -> None:
        self.clone, self.home, self.location = clone, home, location
        ours = str(Path(sys.executable).parent)
        path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != ours)
        dropped = {"VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
        self.environment = {name: value for name, value in os.environ.items() if name not in dropped} | {
            "PATH": path,
            "TILTH_HOME": str(home),
            "DAGSTER_HOME": str(home / "dagster"),
        }
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]

    @contextmanager
    def running(self) -> Iterator[None]:
        command = ["make", "dev", f"PORT={self.port}"]
        if self.location == STOCK:
            (self.home / "dagster").mkdir(parents=True, exist_ok=True)
            (self.home / "dagster/dagster.yaml").write_text(STOCK_SETTINGS)
            dagster = str(self.clone / ".venv/bin/dagster")
            # As in an environment that is activated: dagster-dbt looks for dbt there.
            self.environment["PATH"] = f"{Path(dagster).parent}{os.pathsep}{self.environment['PATH']}"
            command = [dagster, "dev", "-m", STOCK, "--host", "127.0.0.1", "--port", str(self.port)]
        with (self.home / "dev.log").open("ab") as log:
            self.process = subprocess.Popen(
                command, cwd=self.clone, env=self.environment, stdout=log, stderr=log, start_new_session=True
            )
        try:
            self.until("the webserver", self._answers)
            os.environ["DAGSTER_HOME"] = str(self.home / "dagster")
            with dg.DagsterInstance.from_config(str(self.home / "dagster")) as self.instance:
                yield
        finally:
            os.killpg(self.process.pid, signal.SIGINT)
            # Plain `dagster dev` does not always end.
            with suppress(subprocess.TimeoutExpired):
                self.process.wait(60)
            with suppress(ProcessLookupError):
                os.killpg(self.process.pid, signal.SIGKILL)

    def _answers(self) -> bool:
        with suppress(OSError):
            urllib.request.urlopen(f"http://127.0.0.1:{self.port}/server_info", timeout=5).close()
            return True
        return False

    def until(self, what: str, found: Callable[[], object]) -> None:
        began = time.monotonic()
        while not found():
            if time.monotonic() - began > PATIENCE_SECONDS or self.process.poll() is not None:
                log = (self.home / "dev.log").read_text()[-4000:]
                sys.exit(f"{self.location}: {what} did not come in {PATIENCE_SECONDS} s\n{log}")
            time.sleep(0.1)

    def settle(self) -> None:
        """Until no run has been there for a while."""
        busy = time.monotonic()
        while time.monotonic() - busy < QUIET_SECONDS:
            unfinished = [status for status in dg.DagsterRunStatus if status not in ENDED]
            if self.instance.get_runs(dg.RunsFilter(statuses=unfinished), limit=1):
                busy = time.monotonic()
            time.sleep(1)

    def cpu_seconds(self) -> float:
        """Of the whole machine since it started: a process whose parent has ended adds to nobody else's."""
        user, nice, system = Path("/proc/stat").read_text().split()[1:4]
        return (int(user) + int(nice) + int(system)) / os.sysconf("SC_CLK_TCK")

    def made_at(self, key: str, partition: str | None, since: float) -> float | None:
        asked = dg.AssetRecordsFilter(
            dg.AssetKey(key.split("/")), asset_partitions=[partition] if partition else None, after_timestamp=since
        )
        records = self.instance.fetch_materializations(asked, limit=100).records
        return min((record.timestamp for record in records), default=None)

    def land(self, land: Sequence[str], wanted: Sequence[tuple[str, str]]) -> tuple[float, float]:
        """Seconds, and CPU-seconds, from landed files until the last of these partitions is made for the first time."""
        cpu = self.cpu_seconds()
        done = subprocess.run(
            ["make", "land", *land], cwd=self.clone, env=self.environment, capture_output=True, text=True, check=False
        )
        if done.returncode:
            sys.exit(done.stdout + done.stderr)
        landed = max(file.stat().st_mtime for file in (self.home / "landing").rglob("*.gz"))
        self.until(str(wanted), lambda: all(self.made_at(key, partition, landed) for key, partition in wanted))
        ended = max(self.made_at(key, partition, landed) or 0.0 for key, partition in wanted)
        return ended - landed, self.cpu_seconds() - cpu

    def click(self) -> str:
        """Ask for a small asset as the UI does; the run's id."""
        selector = {
            "repositoryLocationName": self.location,
            "repositoryName": "__repository__",
            "jobName": "__ASSET_JOB",
            "assetSelection": [{"path": SMALL}],
            "assetCheckSelection": [],
        }
        parameters = {"selector": selector, "runConfigData": {}, "executionMetadata": {"tags": []}}
        body = json.dumps({"query": LAUNCH, "variables": {"parameters": parameters}}).encode()
        address = f"http://127.0.0.1:{self.port}/graphql"
        request = urllib.request.Request(address, body, {"Content-Type": "application/json"})
        with urllib.request.urlopen(request, timeout=60) as answer:  # noqa: S310
            launched = json.load(answer)
        try:
            return launched["data"]["launchRun"]["run"]["runId"]
        except (KeyError, TypeError):
            sys.exit(f"{self.location} does not launch: {launched}")

    def first_step_of(self, run_id: str) -> float:
        def began() -> list[float]:
            entries = self.instance.all_logs(run_id, of_type=dg.DagsterEventType.STEP_START)
            return [entry.timestamp for entry in entries]

        self.until(f"a step of run {run_id}", began)
        return began()[0]

    def end_of(self, run_id: str) -> dg.DagsterRun:
        self.until(f"the end of run {run_id}", lambda: self._run(run_id).status in ENDED)
        return self._run(run_id)

    def _run(self, run_id: str) -> dg.DagsterRun:
        run = self.instance.get_run_by_id(run_id)
        return run or sys.exit(f"{self.location} has forgotten run {run_id}")

    def clicks(self) -> tuple[list[float], list[float]]:
        """From a click to the first step, and the CPU-seconds from it to the run's end."""
        waited, cpu = [], []
        for _ in range(CLICKS):
            time.sleep(MOMENTS.uniform(2, 4))
            before, began = self.cpu_seconds(), time.time()
            run_id = self.click()
            waited.append(self.first_step_of(run_id) - began)
            self.end_of(run_id)
            cpu.append(self.cpu_seconds() - before)
        return waited, cpu

    def edits_seen(self) -> int:
        """Of edits at random moments, how many the next run used."""
        file = self.clone / "resources/ingestion/assets.py"
        before, seen = file.read_text(), 0
        for edit in range(EDITS):
            time.sleep(MOMENTS.uniform(0, 6))
            file.write_text(before.replace(EDITED, f'"rejected_rows": {1000 + edit},'))
            run = self.end_of(self.click())
            events = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
            rows = [e.asset_materialization.metadata["rejected_rows"].value for e in events if e.asset_materialization]
            seen += rows == [1000 + edit]
        file.write_text(before)
        return seen

    def dbt_seconds(self, since: float) -> list[float]:
        """Of the steps that built a day of the daily dbt models since then."""
        found = []
        for record in self.instance.get_run_records(limit=50):
            if record.create_timestamp.timestamp() < since:
                continue
            for step in self.instance.get_run_step_stats(record.dagster_run.run_id):
                if step.step_key == "daily_models" and step.start_time and step.end_time:
                    found.append(step.end_time - step.start_time)
        return found


def scenarios(platform: Platform, days: Sequence[str], last: str) -> dict[str, Any]:
    """What is measured of either side, from a state that holds all days before these."""
    found: dict[str, Any] = {"load": load_average()}
    platform.settle()
    since = time.time()
    found["days"] = []
    for day in days:
        found["days"].append(platform.land([f"DAY={day}"], [(PREDICTIONS, day), (QUALITY, day)]))
        platform.settle()
    found["dbt"] = platform.dbt_seconds(since)
    found["month"] = platform.land([f"DAY={last}"], [(CHAMPION, f"{last[:7]}|{origin}") for origin in ORIGINS])
    platform.settle()
    found["clicks"], found["click cpu"] = platform.clicks()
    idle, began = platform.cpu_seconds(), time.monotonic()
    time.sleep(60)
    found["idle"] = (platform.cpu_seconds() - idle) * 60 / (time.monotonic() - began)
    print(f"  {platform.location}: {json.dumps(found)}", flush=True)
    return found


def main() -> None:
    with tempfile.TemporaryDirectory() as folder:
        clone = Path(folder, "tilth")
        subprocess.run(["git", "clone", "--quiet", str(ROOT), str(clone)], check=True)
        ours = Platform(clone, clone / ".tilth", OURS)
        subprocess.run(["make", "setup"], cwd=clone, env=ours.environment, check=True)
        days, last = ["2013-02-26", "2013-02-27"], "2013-02-28"
        with ours.running():
            ours.land(["THROUGH=2013-02-25"], [(QUALITY, "2013-02-01"), (QUALITY, "2013-02-25")])
            ours.settle()
        shutil.copytree(ours.home, home := Path(folder, "stock"), ignore=shutil.ignore_patterns("*.lock"))
        with ours.running():
            our = scenarios(ours, days, last)
            seen = ours.edits_seen()
            print(f"  {seen} edits used", flush=True)
        stock = Platform(clone, home, STOCK)
        with stock.running():
            theirs = scenarios(stock, days, last)

    median = statistics.median
    load, stock_load = our["load"], theirs["load"]
    day, stock_day = (median(seconds for seconds, _ in side["days"]) for side in (our, theirs))
    day_cpu, stock_day_cpu = (median(cpu for _, cpu in side["days"]) for side in (our, theirs))
    click, stock_click = median(our["clicks"]), median(theirs["clicks"])
    report(
        "latency",
        [
            Figure("a day's files → predictions and quality", day, "s", "<= 25", load),
            Figure("a day / plain Dagster", day / stock_day, "x", "<= 0.35", stock_load),
            Figure("a day, CPU", day_cpu, "s", "<= 20", load),
            Figure("a day, CPU / plain Dagster", day_cpu / stock_day_cpu, "x", "<= 0.35", stock_load),
            Figure("a month's last day → champions", our["month"][0], "s", "<= 45", load),
            Figure("a month's last day → champions, CPU", our["month"][1], "s", "<= 60", load),
            Figure("a click → the first step", click, "s", "<= 1.5", load),
            Figure("a click → the first step / plain Dagster", click / stock_click, "x", "<= 0.25", stock_load),
            Figure("a click's run, CPU", median(our["click cpu"]), "s", "<= 3", load),
            Figure("the dbt step of a day", median(our["dbt"]), "s", "<= 2.5", load),
            Figure("edits that the next run used, of 20", seen, "", ">= 20", load),
            Figure("make dev at rest, CPU a minute", our["idle"], "s", "<= 6", load),
        ],
    )


if __name__ == "__main__":
    main()
