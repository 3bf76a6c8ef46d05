"""How long a running daemon takes from landed files to predictions and models, and from each hop's cause to its run.

Twice on a state of its own: with this project's sensors and instance, and with Dagster's: its automation sensors and
queue as they are when nothing is set. A hop begins with the event that completed what a run reads, and ends when that
run started.
"""

import os
import signal
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from datetime import UTC, datetime
from pathlib import Path

import dagster as dg
import yaml

from assets.flights.definitions import defs
from benchmarks.report import Figure, load_average, report

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 600
PREDICTIONS, QUALITY, CHAMPION = "predictions/delays", "reports/prediction_quality", "models/delay_champion"
ORIGINS = ("EWR", "JFK", "LGA")
OURS, STOCK = "assets.flights.definitions", "benchmarks.peers.stock_flights"


class Platform:
    """A state of its own, and a daemon over it."""

    def __init__(self, home: Path, module: str) -> None:
        self.home, self.module = home, module
        self.environment = os.environ | {"TILTH_HOME": str(home), "DAGSTER_HOME": str(home / "dagster")}
        settings = yaml.safe_load((ROOT / "platform/dagster.yaml").read_text())
        if module == STOCK:
            del settings["run_coordinator"]["config"]
        (home / "dagster").mkdir(parents=True)
        (home / "dagster/dagster.yaml").write_text(yaml.safe_dump(settings))
        os.environ |= {"DAGSTER_HOME": str(home / "dagster")}
        self.instance = dg.DagsterInstance.from_config(str(home / "dagster"))

    def command(self, module: str, *arguments: str) -> None:
        done = subprocess.run(
            [sys.executable, "-m", module, *arguments],
            cwd=ROOT, env=self.environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
        )  # fmt: skip
        if done.returncode:
            sys.exit(f"{module} {arguments} failed:\n{done.stdout[-4000:]}")

    @contextmanager
    def daemon(self) -> Iterator[None]:
        with (self.home / "daemon.log").open("wb") as log:
            process = subprocess.Popen(
                [BIN / "dagster-daemon", "run", "-m", self.module],
                cwd=ROOT, env=self.environment, stdout=log, stderr=subprocess.STDOUT, start_new_session=True,
            )  # fmt: skip
            try:
                yield
            finally:
                os.killpg(process.pid, signal.SIGTERM)
                try:
                    process.wait(30)
                except subprocess.TimeoutExpired:
                    os.killpg(process.pid, signal.SIGKILL)

    def made_since(self, key: str, partition: str, moment: float) -> bool:
        asked = dg.AssetRecordsFilter(dg.AssetKey(key.split("/")), asset_partitions=[partition], after_timestamp=moment)
        return bool(self.instance.fetch_materializations(asked, limit=1).records)

    def seconds_until(self, land: Sequence[str], wanted: Sequence[tuple[str, str]]) -> float:
        """From landed files until all of these assets' partitions are made."""
        started = time.time()
        self.command("assets.flights.replay", *land)
        while not all(self.made_since(key, partition, started) for key, partition in wanted):
            if time.time() - started > PATIENCE_SECONDS:
                log = (self.home / "daemon.log").read_text()[-4000:]
                sys.exit(f"{self.module}: {wanted} were not made in {PATIENCE_SECONDS} s\n{log}")
            time.sleep(0.5)
        return time.time() - started

    def hops(self, since: float) -> dict[str, list[tuple[int, float]]]:
        """By first asset of a run, how many partitions it takes, and the seconds from the last cause to its start."""
        graph = defs.resolve_asset_graph()
        found = defaultdict(list)
        for record in self.instance.get_run_records(dg.RunsFilter(created_after=datetime.fromtimestamp(since, UTC))):
            selected = record.dagster_run.asset_selection or set()
            outside = {parent for key in selected for parent in graph.get(key).parent_keys} - set(selected)
            causes = [
                event.timestamp
                for parent in outside
                for event in self.instance.fetch_materializations(
                    dg.AssetRecordsFilter(
                        parent, after_timestamp=since, before_timestamp=record.create_timestamp.timestamp()
                    ),
                    limit=1,
                ).records
            ]
            if causes and record.start_time:
                keys = graph.toposorted_asset_keys
                first = min(selected, key=keys.index).to_user_string()
                partitions = len({e.partition for e in self._planned(record.dagster_run.run_id)})
                found[first].append((partitions, record.start_time - max(causes)))
        return found

    def _planned(self, run_id: str) -> list[dg.AssetMaterialization]:
        kind = dg.DagsterEventType.ASSET_MATERIALIZATION
        events = [entry.asset_materialization for entry in self.instance.all_logs(run_id, of_type=kind)]
        return [event for event in events if event]


def _time(moment: float):
    from datetime import UTC, datetime

    return datetime.fromtimestamp(moment, UTC)


def measured(module: str) -> tuple[dict[str, float], dict[str, list[tuple[int, float]]]]:
    """The seconds of each scenario, and of each hop in them."""
    with tempfile.TemporaryDirectory() as folder:
        platform = Platform(Path(folder), module)
        with platform.daemon():
            # January, and a February that lacks two days.
            platform.seconds_until(["--through", "2013-02-26"], [(QUALITY, "2013-02-01"), (QUALITY, "2013-02-26")])
            time.sleep(20)
            since = time.time()
            day, last = "2013-02-27", "2013-02-28"
            several = [f"2013-03-{n:02}" for n in range(1, 6)]
            seconds = {
                "a day": platform.seconds_until(["--day", day], [(PREDICTIONS, day), (QUALITY, day)]),
                "a month's last day": platform.seconds_until(
                    ["--day", last], [(CHAMPION, f"2013-02|{origin}") for origin in ORIGINS]
                ),
                "five days": platform.seconds_until(
                    ["--through", several[-1]], [(QUALITY, several[0]), (QUALITY, several[-1])]
                ),
            }
            hops = platform.hops(since)
        print(f"  {module}: " + ", ".join(f"{name} {value:.0f} s" for name, value in seconds.items()))
        for first, taken in hops.items():
            print(f"    {first:<28}" + ", ".join(f"{n} in {value:.1f} s" for n, value in sorted(taken)))
        return seconds, hops


def median(hops: dict[str, list[tuple[int, float]]], fits: Callable[[int], bool]) -> float:
    """Seconds of the hops to runs of so many partitions."""
    return statistics.median(seconds for taken in hops.values() for n, seconds in taken if fits(n))


if __name__ == "__main__":
    load = load_average()
    seconds, hops = measured(OURS)
    stock, _ = measured(STOCK)
    report(
        "latency",
        [
            Figure("a day's files → predictions and quality", seconds["a day"], "s", "<= 90", load),
            Figure("a month's last day → champions", seconds["a month's last day"], "s", "<= 180", load),
            Figure("hop to a run of one partition, median", median(hops, lambda n: n == 1), "s", "<= 8", load),
            Figure("hop to a run of several, median", median(hops, lambda n: n > 1), "s", "<= 12", load),
            Figure("five days / with stock settings", seconds["five days"] / stock["five days"], "x", "<= 1", load),
            Figure("a day / with stock settings", seconds["a day"] / stock["a day"], "x", "<= 1", load),
        ],
    )
