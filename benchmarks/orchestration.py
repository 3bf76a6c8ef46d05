"""Fan-out, steps, models and a year, against Metaflow, stock Dagster, joblib and plain scripts.

Every figure is of whole commands, from their start to their end; the sides run in turn, and medians are compared. How
long a daemon takes to decide is benchmarks/latency.py; what grows with the graph, benchmarks/size.py.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from pathlib import Path

import dagster as dg

from assets.flights import partitions as by
from assets.flights import replay
from benchmarks import year
from benchmarks.lake import metaflow_python
from benchmarks.peers import trivial
from benchmarks.report import Figure, load_average, report
from resources.dbt import connection_environment
from resources.landing import LandingZone
from resources.warehouse import Warehouse
from tilth.settings import Deployment

ROOT = Path(__file__).parents[1]
PEERS = ROOT / "benchmarks" / "peers"
BIN = Path(sys.executable).parent
ROUNDS = 3


class Commands:
    """Runs commands of the sides and keeps the seconds that each took."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def run(self, name: str, *command: str | Path, **environment: str) -> str:
        started = time.monotonic()
        done = subprocess.run(
            command, cwd=ROOT, env=os.environ | environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        self.seconds[name].append(time.monotonic() - started)
        if done.returncode:
            sys.exit(f"{name} failed:\n{done.stdout[-4000:]}")
        return done.stdout

    def dagster(self, name: str, module: str, *arguments: str, **environment: str) -> Path:
        """`dagster …` on an instance of its own, in the folder that is returned."""
        home = self.folder / f"{name} {len(self.seconds[name])}"
        home.mkdir()
        settings = (ROOT / "platform/dagster.yaml").read_text()
        (home / "dagster.yaml").write_text(settings)
        os.environ["DAGSTER_HOME"] = str(home)
        with dg.DagsterInstance.get() as instance:
            instance.get_runs(limit=1)  # its databases are made once, not in every run
        self.run(name, BIN / "dagster", *arguments[:2], "-m", module, *arguments[2:], **environment)
        return home

    def median(self, name: str) -> float:
        return statistics.median(self.seconds[name])

    def print(self) -> None:
        for name, seconds in self.seconds.items():
            print(f"  {name:<44}{statistics.median(seconds):8.2f} s   {[round(second, 1) for second in seconds]}")


def fan_out(folder: Path) -> list[Figure]:
    """A hundred partitions and twenty steps with nothing to do, on two workers."""
    load, commands = load_average(), Commands(folder)
    python = metaflow_python(folder / "metaflow_environment")
    ours, stock = "benchmarks.peers.trivial_ours", "benchmarks.peers.trivial_stock"
    every = f"{trivial.KEYS[0]}...{trivial.KEYS[-1]}"

    def metaflow(name: str, width: int) -> None:
        commands.run(
            name,
            *(python, PEERS / "fan_out.py", "--quiet", "--no-pylint", "run"),
            *("--max-workers", str(trivial.WORKERS), "--max-num-splits", str(width)),
            METAFLOW_DATASTORE_SYSROOT_LOCAL=str(folder / "metaflow"),
            METAFLOW_DEFAULT_METADATA="local",
            USERNAME="bench",
            WIDTH=str(width),
        )

    for _ in range(ROUNDS):
        commands.dagster(
            "100 partitions", ours, "asset", "materialize", "--select", "hundred", "--partition-range", every
        )
        metaflow("100 tasks, Metaflow", len(trivial.KEYS))
        commands.dagster("100 steps, Dagster", stock, "job", "execute", "-j", "hundred")
        home = commands.dagster("20 steps", ours, "job", "execute", "-j", "twenty")
        commands.dagster("20 steps, Dagster", stock, "job", "execute", "-j", "twenty")
        commands.dagster("20 steps, Dagster in process", stock, "job", "execute", "-j", "twenty_in_process")
        metaflow("20 tasks, Metaflow", len(trivial.twenty))
    commands.print()
    where_it_went(home, commands.seconds["20 steps"][-1])
    hundred, twenty = commands.median("100 partitions"), commands.median("20 steps")
    return [
        Figure("100 partitions / Metaflow", hundred / commands.median("100 tasks, Metaflow"), "x", "<= 0.5", load),
        Figure("100 partitions / Dagster", hundred / commands.median("100 steps, Dagster"), "x", "<= 0.1", load),
        Figure("20 steps / Dagster", twenty / commands.median("20 steps, Dagster"), "x", "<= 0.4", load),
    ]


def where_it_went(home: Path, seconds: float) -> None:
    """Of one run of twenty steps: before it, between its steps, in them, and after it."""
    os.environ["DAGSTER_HOME"] = str(home)
    with dg.DagsterInstance.get() as instance:
        (record,) = instance.get_run_records()
        steps = instance.get_run_step_stats(record.dagster_run.run_id)
        first = min(step.start_time or 0.0 for step in steps)
        last = max(step.end_time or 0.0 for step in steps)
        busy = sum((step.end_time or 0.0) - (step.start_time or 0.0) for step in steps)
        run = (record.end_time or 0.0) - (record.start_time or 0.0)
        print(
            f"  of {seconds:.1f} s of 20 steps: {seconds - run:.1f} s start and end of the command, "
            f"{first - (record.start_time or 0.0):.1f} s to the first step, {last - first:.1f} s from the first to the "
            f"last (in steps {busy / trivial.WORKERS:.1f} s on each of {trivial.WORKERS} workers), "
            f"{(record.end_time or 0.0) - last:.1f} s to the run's end"
        )


def year_and_models(folder: Path) -> list[Figure]:
    """365 days from landed files to features against a script, then 36 models against joblib."""
    load, commands = load_average(), Commands(folder)
    landing = LandingZone(uri=str(folder / "landing"))
    replay.land_reference(landing)
    replay.land_days(landing, replay.FIRST_DAY, replay.LAST_DAY)
    compiled = folder / "compiled"
    for n in range(ROUNDS):
        home = folder / f"year {n}"
        places = {"TILTH_HOME": str(home), "TILTH_LANDING_URI": str(folder / "landing")}
        os.environ |= places
        commands.seconds["a year"].append(year.make(home))
        if n == 0:
            of_dbt = ["--project-dir", "assets/flights/dbt", "--profiles-dir", "assets/flights/dbt"]
            connection = connection_environment(Warehouse(Deployment().warehouse_uri))
            commands.run(
                "dbt compile",
                *(BIN / "dbt", "compile", "--quiet", "--target-path", compiled, *of_dbt),
                **connection,
            )
        plain = folder / f"plain {n}"
        plain.mkdir()
        commands.run(
            "a year, a script", sys.executable, "-m", "benchmarks.peers.plain_year", landing.uri, compiled, plain
        )
    months = by.months.get_partition_keys()
    year.materialize(home, "key:features/training_set", "--partition-range", f"{months[0]}...{months[-1]}")
    models = by.models.get_partition_keys()
    for n in range(ROUNDS):
        commands.seconds["36 models"].append(
            year.materialize(home, "key:models/delay_boosted", "--partition-range", f"{models[0]}...{models[-1]}")
        )
        commands.run("36 models, joblib", sys.executable, "-m", "benchmarks.peers.plain_fits", folder / f"models {n}")
    commands.print()
    beyond = commands.median("36 models") - 1.2 * commands.median("36 models, joblib")
    return [
        Figure("a year / a script", commands.median("a year") / commands.median("a year, a script"), "x", "<= 2", load),
        Figure("36 models beyond 1.2 x joblib", beyond, "s", "<= 8", load),
    ]


def loading(folder: Path) -> list[Figure]:
    """The definitions of flights, against nothing but the libraries."""
    load, commands = load_average(), Commands(folder)
    for _ in range(2 * ROUNDS + 1):
        commands.run("loading the definitions", sys.executable, "-c", "import assets.flights.definitions")
        commands.run("loading dagster and dagster_dbt", sys.executable, "-c", "import dagster, dagster_dbt")
    commands.print()
    ratio = commands.median("loading the definitions") / commands.median("loading dagster and dagster_dbt")
    return [Figure("loading the definitions / the libraries", ratio, "x", "<= 1.6", load)]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        figures = []
        for part in (fan_out, year_and_models, loading):
            place = Path(folder, part.__name__)
            place.mkdir()
            figures += part(place)
        report("orchestration", figures)
