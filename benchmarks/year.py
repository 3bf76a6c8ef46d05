"""All 365 landed days to features as one backfill, by Dagster's command line, on a fresh state each time.

`dagster asset materialize` starts the run that a single-run backfill starts: process start, definitions and storage of
every layer are in the figure; writing the landing files, the outside world's work, is not.
"""

import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from assets.flights import replay
from benchmarks.report import Figure, load_average, report
from resources.landing import LandingZone

ROOT = Path(__file__).parents[1]
REPEATS = 3
REFERENCE = "+key:marts/aircraft or +key:marts/airlines or +key:marts/airports"
DAILY = "(key:raw/flights+ or key:raw/weather+) and +key:features/departures"
DAYS = f"{replay.FIRST_DAY}...{replay.LAST_DAY}"


def materialize(home: Path, selection: str, *partitions: str) -> float:
    """Seconds that one `dagster asset materialize` takes."""
    dagster_home = home / "dagster"
    dagster_home.mkdir(parents=True, exist_ok=True)
    (dagster_home / "dagster.yaml").write_bytes((ROOT / "platform/dagster.yaml").read_bytes())
    started = time.monotonic()
    done = subprocess.run(
        [
            Path(sys.executable).with_name("dagster"),
            *("asset", "materialize", "-m", "assets.flights.definitions", "--select", selection, *partitions),
        ],
        cwd=ROOT,
        env=os.environ | {"DAGSTER_HOME": str(dagster_home), "TILTH_HOME": str(home)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    if done.returncode:
        sys.exit(f"{selection} failed:\n{done.stdout[-4000:]}")
    return time.monotonic() - started


def landing_to_features() -> float:
    """Seconds from landed files to 365 days of features, reference tables included."""
    with tempfile.TemporaryDirectory() as folder:
        home = Path(folder)
        landing = LandingZone(uri=str(home / "landing"))
        replay.land_reference(landing)
        replay.land_days(landing, replay.FIRST_DAY, replay.LAST_DAY)
        return make(home)


def make(home: Path) -> float:
    """Seconds of the one run that makes all of it, from what has landed."""
    return materialize(home, f"{REFERENCE} or ({DAILY})", "--partition-range", DAYS)


if __name__ == "__main__":
    load = load_average()
    seconds = statistics.median(landing_to_features() for _ in range(REPEATS))
    report("year", [Figure("landing to features, 365 days as one backfill", seconds, "s", "<= 90", load)])
