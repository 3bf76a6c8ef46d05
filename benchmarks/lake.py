"""The lake against bare Parquet, Metaflow's artifacts and Dagster's pickles: a frame of 5 million rows x 10 columns.

Each action runs in a fresh process (benchmarks/peers/sides.py), the sides in turn, and medians are compared. Metaflow
has an environment of its own with the same pandas and pyarrow, made here from the package index.
"""

import json
import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections import defaultdict
from datetime import date, timedelta
from importlib.metadata import version
from pathlib import Path
from venv import EnvBuilder

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from benchmarks.report import Figure, load_average, report
from resources.lake import Lake

ROWS, ROUNDS, LARGE = 5_000_000, 3, 10
SIDES = Path(__file__).with_name("peers") / "sides.py"
ROOT = Path(__file__).parents[1]


def make_frame() -> pa.Table:
    """5 float64 and 3 int64 columns, a string of five values and a timestamp; 395 MB as Arrow."""
    random = np.random.default_rng(0)
    return pa.table(
        {
            **{f"float_{n}": random.normal(size=ROWS) for n in range(5)},
            **{f"int_{n}": random.integers(0, 10 ** (2 * n + 2), ROWS) for n in range(3)},
            "airport": pa.array(random.choice(["EWR", "JFK", "LGA", "BOS", "ATL"], ROWS)),
            "at": pa.array(
                np.datetime64("2013-01-01", "us") + np.arange(ROWS) * np.timedelta64(6, "s"), pa.timestamp("us", "UTC")
            ),
        }
    )


def metaflow_python(folder: Path) -> Path:
    """The interpreter of an environment with Metaflow and our own pandas and pyarrow."""
    EnvBuilder(with_pip=True).create(folder)
    wanted = ["metaflow==2.19.39", *(f"{name}=={version(name)}" for name in ("pandas", "pyarrow"))]
    python = folder / "bin" / "python"
    subprocess.run([python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", *wanted], check=True)
    return python


class Sides:
    """Runs actions of the sides and keeps what each took."""

    def __init__(self, folder: Path, metaflow: Path) -> None:
        self.folder, self._metaflow = folder, metaflow
        self.seconds: dict[str, list[float]] = defaultdict(list)
        self.megabytes: dict[str, list[float]] = defaultdict(list)

    def run(self, side: str, action: str) -> None:
        """One action in a process of its own."""
        python = self._metaflow if side == "metaflow" else Path(sys.executable)
        paths = os.pathsep.join(str(path) for path in (ROOT, ROOT / "platform"))
        environment = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        if side != "metaflow":
            environment["PYTHONPATH"] = paths
        done = subprocess.run(
            [python, SIDES, side, action, self.folder], env=environment, capture_output=True, text=True
        )
        if done.returncode:
            sys.exit(f"{side} {action} failed:\n{done.stderr[-4000:]}")
        figures = json.loads(done.stdout.splitlines()[-1])
        self.seconds[f"{side} {action}"].append(figures["seconds"])
        self.megabytes[f"{side} {action}"].append(figures["megabytes"])

    def ratio(self, action: str, other: str) -> float:
        """The median of the first action over that of the second."""
        return statistics.median(self.seconds[action]) / statistics.median(self.seconds[other])

    def peak(self, action: str) -> float:
        """The largest of the peaks, in MB."""
        return max(self.megabytes[action])


def stored_megabytes(folder: Path) -> float:
    """What the files in a folder take."""
    return sum(path.stat().st_size for path in folder.rglob("*") if path.is_file()) / 1e6


def against_peers(folder: Path) -> list[Figure]:
    """Write and read the frame on every side."""
    load = load_average()
    table = make_frame()
    arrow = table.nbytes / 1e6
    pq.write_table(table, folder / "frame.parquet")
    for part in range(LARGE):
        of_part = table.append_column("part", pa.repeat(pa.scalar(f"{part:02}"), ROWS))
        Lake(str(folder / "lake")).replace("bench/large", of_part, [f"{part:02}"], ["part"])
    del table
    sides = Sides(folder, metaflow_python(folder / "metaflow_environment"))
    for _ in range(ROUNDS):
        for store in ("lake/main/bench/frame", "lake/main/bench/months", "pickle", "metaflow"):
            shutil.rmtree(folder / store, ignore_errors=True)
        for action in ("write", "read"):
            for side in ("lake", "parquet", "metaflow"):
                sides.run(side, action)
            if action == "write":
                sides.run("lake", "write_versioned")
        for side in ("lake", "pickle"):
            sides.run(side, "write_months")
        sides.run("pickle", "write")
        sides.run("lake", "read_month")
        sides.run("pickle", "read_month")
        sides.run("pickle", "read_frame")
        sides.run("lake", "scan")
    for action, seconds in sorted(sides.seconds.items()):
        print(f"  {action:<28}{statistics.median(seconds):8.3f} s {sides.peak(action):8.0f} MB")
    months, pickles = (stored_megabytes(folder / name) for name in ("lake/main/bench/months", "pickle/bench/months"))
    rows = [
        ("write / pyarrow.parquet.write_table(zstd)", sides.ratio("lake write", "parquet write"), "x", "<= 1.25"),
        ("write and hash / the same", sides.ratio("lake write_versioned", "parquet write"), "x", "<= 1.25"),
        ("read to pandas / pyarrow's", sides.ratio("lake read", "parquet read"), "x", "<= 1.25"),
        ("Metaflow's write / write and hash", sides.ratio("metaflow write", "lake write_versioned"), "x", ">= 6"),
        ("Metaflow's read / read to pandas", sides.ratio("metaflow read", "lake read"), "x", ">= 3"),
        ("pickled frame / 2 columns of 1 of 12", sides.ratio("pickle read_frame", "lake read_month"), "x", ">= 10"),
        ("pickled partition / the same", sides.ratio("pickle read_month", "lake read_month"), "x", ">= 2"),
        ("bytes on disk / pickled partitions", months / pickles, "x", "<= 1"),
        ("memory of a write / Arrow table", sides.peak("lake write") / arrow, "x", "<= 2"),
        ("memory of a read to pandas / Arrow table", sides.peak("lake read") / arrow, "x", "<= 2"),
        ("memory of a scan of 4 GB as Dataset", sides.peak("lake scan"), "MB", "<= 500"),
    ]
    return [Figure(*row, load) for row in rows]


def day_rows(days: list[date], seed: int) -> pa.Table:
    """900 rows a day, as a daily table of events may have."""
    random, count = np.random.default_rng(seed), 900 * len(days)
    return pa.table(
        {
            "day": pa.array(np.repeat(np.array(days, "datetime64[D]"), 900)),
            **{f"float_{n}": random.normal(size=count) for n in range(6)},
            "airport": pa.array(random.choice(["EWR", "JFK", "LGA"], count)),
        }
    )


def small_partitions(folder: Path) -> list[Figure]:
    """A table of 365 days: batches, single days and a thousand commits."""
    load = load_average()
    lake = Lake(str(folder / "days"))
    days = [date(2013, 1, 1) + timedelta(days=n) for n in range(365)]

    def seconds_of(rows: pa.Table, written: list[date]) -> float:
        started = time.perf_counter()
        lake.replace("bench/days", rows, [str(day) for day in written], ["day"])
        return time.perf_counter() - started

    seconds_of(day_rows(days, 0), days)
    batches = [seconds_of(day_rows(days, seed), days) for seed in range(1, 6)]

    def seconds_to_read(day: date) -> float:
        started = time.perf_counter()
        assert len(lake.read("bench/days", [str(day)]).to_pandas()) == 900  # noqa: S101
        return time.perf_counter() - started

    reads = [seconds_to_read(day) for day in days[::20]]
    parts = [day_rows([day], 9) for day in days]
    commits = [seconds_of(parts[n % 365], [days[n % 365]]) for n in range(1000)]
    hundreds = [statistics.median(commits[n : n + 100]) for n in range(0, 1000, 100)]
    return [
        Figure("replacing 365 small partitions at once", statistics.median(batches), "s", "<= 0.5", load),
        Figure("reading one day of 365", 1000 * statistics.median(reads), "ms", "<= 60", load),
        Figure("commits 900 to 1,000 / 400 to 500", hundreds[9] / hundreds[4], "x", "<= 1.5", load),
        Figure("slowest hundred commits, median", 1000 * max(hundreds), "ms", "<= 60", load),
    ]


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        report("lake", [*against_peers(Path(folder)), *small_partitions(Path(folder))])
