"""`make demo`: three months of the record through the whole graph, and a summary of what exists afterwards.

python -m assets.flights.demo --through 2013-12-31
"""

import argparse
import contextlib
import os
import resource
import sys
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

import dagster as dg
import pandas as pd

from assets.flights import partitions as by
from assets.flights import replay
from assets.flights.definitions import defs
from assets.flights.models import PYTORCH_INSTALLED, TENSOR_MODELS, TRUSTED_TYPES
from assets.flights.scoring import probability_scores
from assets.flights.tables import DAILY, REFERENCE, TABLES
from resources.lake import Lake
from resources.landing import LandingZone
from resources.registry import ModelRegistry
from resources.warehouse import Warehouse
from tilth._dagster.preload import fork_server, preload
from tilth._dagster.processes import run_finalizers
from tilth.automation.ranges import range_tags
from tilth.execution.concurrency_guard import planned_partitions
from tilth.settings import Deployment

deployment = Deployment()
warehouse = Warehouse(deployment.warehouse_uri)
lake = Lake.of(deployment)
registry = ModelRegistry.of(deployment, TRUSTED_TYPES, TENSOR_MODELS)

THREE_MONTHS = date(2013, 3, 31)
REFERENCE_MARTS = [["marts", name] for name in ("aircraft", "airlines", "airports")]
REFERENCE_STAGING = [["staging", name] for name in ("planes", "airlines", "airports")]
DAILY_MODELS = [["staging", "flights"], ["staging", "weather"], ["marts", "departures"], ["marts", "daily_lateness"]]
CANDIDATES = [["models", f"delay_{name}"] for name in ("logistic", "boosted", *["neural"] * PYTORCH_INSTALLED)]
BAR = 40  # characters
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}


@dataclass
class Stages:
    """Runs the demo's stages one after another, a line each, and remembers where the time went."""

    instance: dg.DagsterInstance
    log: Path
    name: str = ""
    seconds: dict[str, float] = field(default_factory=dict)
    checks: list[dg.AssetCheckEvaluation] = field(default_factory=list)

    def run(self, name: str, work: Callable[[], str]) -> None:
        """Do `work` and print what it says, with its seconds."""
        self.name = f"  {name:<22} "
        print(self.name, end="", flush=True)
        started = time.monotonic()
        outcome = work()
        self.seconds[name] = time.monotonic() - started
        print(f"\r{self.name}" * sys.stdout.isatty() + f"{outcome:<64} {self.seconds[name]:6.1f} s", flush=True)

    def materialize(self, assets: Sequence[Sequence[str]], first: str | None = None, last: str | None = None) -> str:
        """One Dagster run of these assets over a range of partitions; what it made, in words."""
        run_id = str(uuid.uuid4())
        # dbt prints as it goes; that goes to a file, the demo's own lines to the screen.
        with self.progress(run_id), self.log.open("a") as log, contextlib.redirect_stdout(log):
            result = defs.resolve_implicit_global_asset_job_def().execute_in_process(
                run_id=run_id,
                instance=self.instance,
                asset_selection=[dg.AssetKey(list(key)) for key in assets],
                tags=range_tags(first, last) if first and last else {},
                run_config=QUIET,
                raise_on_error=False,
            )
        if not result.success:
            print(f"\r{self.name}" * sys.stdout.isatty() + "failed\n")
            for event in result.get_failed_step_keys():
                print(f"step {event}: {result.failure_data_for_node(event).error}", file=sys.stderr)
            sys.exit(f"Run {result.run_id} failed. Look at it with `make dev`, then run `make demo` again.")
        self.checks += result.get_asset_check_evaluations()
        made = [event for event in result.get_asset_materialization_events() if event.partition]
        unpartitioned = len(result.get_asset_materialization_events()) - len(made)
        partitions = {event.partition for event in made}
        tables = {event.asset_key for event in made}
        words = [f"{len(tables)} assets x {len(partitions)} partitions"] if made else []
        words += [f"{unpartitioned} tables"] if unpartitioned else []
        return ", ".join(words)

    @contextlib.contextmanager
    def progress(self, run_id: str) -> Iterator[None]:
        """On a terminal, a bar of the partitions that the run has made, every second while the block runs."""
        if not (screen := sys.stdout).isatty():
            yield
            return
        ended = threading.Event()

        def draw() -> None:
            while not ended.wait(1):
                planned = sum(map(len, planned_partitions(self.instance, run_id).values()))
                made = len(self.instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION))
                bar = "#" * (BAR * made // max(planned, 1))
                print(f"\r{self.name}[{bar:<{BAR}}] {made} of {planned}", end=" ", file=screen, flush=True)

        drawing = threading.Thread(target=draw, daemon=True)
        drawing.start()
        try:
            yield
        finally:
            ended.set()
            drawing.join()


def land(landing: LandingZone, last: date) -> str:
    """Play the feed: the reference tables, and what of the days up to `last` has not landed yet."""
    if (first := replay.next_day(landing)) <= last:
        replay.land_reference(landing)
        replay.land_days(landing, first, last)
    return f"{len(landed_days(landing))} days of flights and weather, {len(REFERENCE)} reference tables"


def landed_days(landing: LandingZone) -> list[str]:
    """The days whose flights have landed."""
    return sorted(f.partition for f in landing.files("flights") if f.partition)


def summary(stages: Stages, landing: LandingZone) -> None:
    """What now exists: days, rows per layer, models and champions, predictions, checks, and where the time went."""
    print("\nWhat now exists")
    print(f"  days landed            {len(landed_days(landing))}")
    raw = {table.name: count_rows(table.accepted) for table in TABLES}
    rejected = {table: count_rows(f"raw_rejected.{table}") for table in raw}
    print(f"  rows in raw            {sum(raw.values()):,} ({', '.join(f'{t} {n:,}' for t, n in raw.items())})")
    print(f"  rows set aside         {sum(rejected.values()):,} (in raw_rejected, each with its reason)")
    print(f"  rows in marts          {count_rows('marts.departures'):,} departures")
    for name, key in [
        ("features", ["features", "departures"]),
        ("training sets", ["features", "training_set"]),
        ("predictions", ["predictions", "delays"]),
    ]:
        print(f"  rows in {name:<14} {lake.row_count(dg.AssetKey(key)):,}")

    print("\nModels (AUC on the window's held-out last days; * is the champion, by log loss)")
    names = [key[-1].removeprefix("delay_") for key in CANDIDATES]
    print(f"  {'trained through':<17}{'origin':<8}" + "".join(f"{name:>10}" for name in names))
    trained = [p for p in by.models.get_partition_keys() if registry.holds(dg.AssetKey(CANDIDATES[0]), p)]
    for partition in trained:
        champion = registry.load(dg.AssetKey(["models", "delay_champion"]), partition).card["asset"]
        month, origin = by.month_and_origin(partition)
        cells = ""
        for key in CANDIDATES:
            auc = registry.load(dg.AssetKey(key), partition).card["metrics"]["auc"]
            cells += f"{auc:9.3f}{'*' if champion == '/'.join(key) else ' '}"
        print(f"  {month:<17}{origin:<8}{cells}")

    print("\nPredictions against what happened (each month by models trained on the months before it)")
    print(f"  {'month':<10}{'departures':>11}{'late':>7}{'AUC':>8}{'log loss':>10}")
    for month, scores in prediction_scores().items():
        print(
            f"  {month:<10}{scores['rows']:>11,}{scores['late_share']:>7.1%}{scores['auc']:>8.3f}"
            f"{scores['log_loss']:>10.3f}"
        )

    passed = sum(check.passed for check in stages.checks)
    print(f"\nChecks: {passed} passed, {len(stages.checks) - passed} failed")
    for check in stages.checks:
        if not check.passed:
            level = "warning" if check.severity == dg.AssetCheckSeverity.WARN else "error"
            print(f"  {level}: {check.check_name} on {check.asset_key.to_user_string()}")

    total = sum(stages.seconds.values())
    print(f"\nWhere the {total:.0f} s went: ", end="")
    slowest = sorted(stages.seconds.items(), key=lambda stage: -stage[1])
    print(", ".join(f"{name} {seconds:.0f}" for name, seconds in slowest))
    peak = max(resource.getrusage(who).ru_maxrss for who in (resource.RUSAGE_SELF, resource.RUSAGE_CHILDREN))
    print(f"Peak memory of any process: {peak / (1 if sys.platform == 'darwin' else 1024) / 2**10:.2f} GiB")
    print("\nNext:\n  make dev                     the UI with sensors running, on http://127.0.0.1:3000")
    print("  make land DAY=2013-04-01     land the next day and watch the graph take it in")


def count_rows(table: str) -> int:
    """Rows of a warehouse table; 0 where there is none."""
    if not warehouse.exists(table):
        return 0
    return warehouse.read(f"SELECT count(*) AS rows FROM {table}")["rows"][0].as_py()  # noqa: S608


def prediction_scores() -> dict[str, dict[str, float | int]]:
    """Scores of all stored predictions by calendar month, over the departures that arrived."""
    predictions = lake.read(dg.AssetKey(["predictions", "delays"])).to_pandas()
    outcomes = warehouse.read("SELECT departure_id, late FROM marts.departures WHERE late IS NOT NULL").to_pandas()
    arrived = predictions.merge(outcomes, on="departure_id")
    month = pd.to_datetime(arrived["flight_date"]).dt.strftime("%Y-%m")
    return {
        str(name): probability_scores(rows["late"].astype(bool), rows["probability"])
        for name, rows in arrived.groupby(month)
    }


def main() -> None:
    """Land the days and materialize every asset for them."""
    parser = argparse.ArgumentParser(prog="python -m assets.flights.demo", description=__doc__.splitlines()[0])
    parser.add_argument("--through", type=date.fromisoformat, default=THREE_MONTHS, help="the last day, in 2013")
    first, last = replay.FIRST_DAY, parser.parse_args().through
    first_scored = date.fromisoformat(by.scored_days.get_first_partition_key() or "")
    if not first_scored <= last <= replay.LAST_DAY:
        parser.error(f"--through takes {first_scored} (the first day with a model to score it) to {replay.LAST_DAY}")
    landing = LandingZone.of(deployment)
    instance = dg.DagsterInstance.get()
    print(f"Tilth demo: New York's departures, {first} to {last}")
    # Scikit-learn once, here, for the processes that train as well.
    preload("assets.flights.definitions")
    fork_server(instance, "assets.flights.definitions")
    stages = Stages(instance, deployment.home / "demo.log")
    months = [key for key in by.months.get_partition_keys() if str(first)[:7] <= key <= str(last)[:7]]
    served = [key for key in by.service_months.get_partition_keys() if key <= str(last)[:7]]
    stages.run("landing", lambda: land(landing, last))
    stages.run(
        "reference tables",
        lambda: stages.materialize([*(table.key.path for table in REFERENCE), *REFERENCE_STAGING, *REFERENCE_MARTS]),
    )
    stages.run(
        "raw, dbt, features",
        lambda: stages.materialize(
            [*(table.key.path for table in DAILY), *DAILY_MODELS, ["features", "departures"]],
            str(first),
            str(last),
        ),
    )
    stages.run("training sets", lambda: stages.materialize([["features", "training_set"]], months[0], months[-1]))
    stages.run(
        "candidates, champion",
        lambda: stages.materialize(
            [*CANDIDATES, ["models", "delay_champion"]],
            f"{months[0]}|{by.ORIGINS[0]}",
            f"{months[-1]}|{by.ORIGINS[-1]}",
        ),
    )
    stages.run(
        "models in service",
        lambda: stages.materialize(
            [["models", "in_service"]], f"{served[0]}|{by.ORIGINS[0]}", f"{served[-1]}|{by.ORIGINS[-1]}"
        ),
    )
    stages.run(
        "predictions, quality",
        lambda: stages.materialize(
            [["predictions", "delays"], ["reports", "prediction_quality"]],
            str(first_scored),
            str(last),
        ),
    )
    summary(stages, landing)


if __name__ == "__main__":
    main()
    sys.stdout.flush()
    run_finalizers()
    # To end as other programs do, DuckDB would say in forty lines which of its types Python has not collected by then.
    os._exit(0)
