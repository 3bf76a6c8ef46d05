"""A million rows out of PostgreSQL into Arrow, beside pandas on psycopg2; and what the read takes of memory.

The rows lie in the server's cache. Each timed read includes its connection; the two ways take turns. Memory: a process
of its own, which has read one row already, notes its resident memory, resets the peak that Linux counts of it
(VmHWM; not ru_maxrss, which a process inherits from its parent), reads the table, and subtracts the note from the peak.
"""

import statistics
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pyarrow as pa
import sqlalchemy
from pydantic import SecretStr

from benchmarks.report import Figure, load_average, report
from resources.warehouse import Warehouse
from tests.postgres.server import postgres_server

ROWS = 1_000_000
REPEATS = 5
TABLE = "bench.million"
ROOT = Path(__file__).parents[1]


def million_rows() -> pa.Table:
    """Five float64, three int64, a string of 20 values, a timestamp; no nulls."""
    random = np.random.default_rng(2013)
    instants = np.datetime64("2013-01-01", "us") + random.integers(0, 365 * 86_400 * 10**6, ROWS)
    return pa.table(
        {f"float_{n}": random.normal(size=ROWS) for n in range(5)}
        | {f"integer_{n}": random.integers(0, 10**9, ROWS) for n in range(3)}
        | {"text": random.choice([f"carrier {n:02}" for n in range(20)], ROWS), "at": instants}
    )


def seconds_of(read: Callable[[], object]) -> float:
    started = time.perf_counter()
    read()
    return time.perf_counter() - started


def by_pandas(uri: str) -> pd.DataFrame:
    """What `pandas.read_sql` gives on psycopg2."""
    engine = sqlalchemy.create_engine(
        uri.replace("postgresql://", "postgresql+psycopg2://"), poolclass=sqlalchemy.pool.NullPool
    )
    return pd.read_sql(f"SELECT * FROM {TABLE}", engine)  # noqa: S608


def resident_bytes(name: str) -> int:
    """This process' resident memory now (VmRSS) or at its peak (VmHWM), as Linux counts it."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(f"{name}:"))


def peak_against_table(warehouse: Warehouse) -> float:
    """How many times the Arrow table's size this process' memory rose at its peak while it read."""
    warehouse.read(f"SELECT * FROM {TABLE} LIMIT 1")  # noqa: S608
    Path("/proc/self/clear_refs").write_text("5")  # the peak begins again from now
    before = resident_bytes("VmRSS")
    rows = warehouse.read(TABLE)
    return (resident_bytes("VmHWM") - before) / rows.nbytes


def in_own_process(uri: str) -> float:
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.warehouse", "memory"],
        input=uri,
        stdout=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        check=True,
    )
    return float(done.stdout)


def measure() -> list[Figure]:
    with postgres_server() as uri:
        warehouse = Warehouse(SecretStr(uri))
        warehouse.replace(TABLE, million_rows())
        with warehouse.transaction() as transaction:
            transaction.execute(f"ANALYZE {TABLE}")
        load = load_average()
        ways = {"Arrow": lambda: warehouse.read(TABLE), "pandas": lambda: by_pandas(uri)}
        for way in ways.values():
            way()
        seconds: dict[str, list[float]] = {name: [] for name in ways}
        for _ in range(REPEATS):
            for name, way in ways.items():
                seconds[name].append(seconds_of(way))
        arrow, pandas = (statistics.median(seconds[name]) for name in ways)
        print(f"  {ROWS} rows of 10 columns: Arrow {arrow:.2f} s, pandas {pandas:.2f} s")
        memory_load = load_average()
        memory = statistics.median(in_own_process(uri) for _ in range(3))
    return [
        Figure("1 million rows out of PostgreSQL, pandas / Arrow", pandas / arrow, "x", ">= 5", load),
        Figure("peak memory of that read / its Arrow table", memory, "x", "<= 2", memory_load),
    ]


if __name__ == "__main__":
    if sys.argv[1:] == ["memory"]:
        print(peak_against_table(Warehouse(SecretStr(sys.stdin.read()))))
    else:
        report("warehouse", measure())
