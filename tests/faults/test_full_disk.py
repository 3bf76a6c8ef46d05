"""A disk that is full: an error that says so, and everything that was stored before can be read."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]

LAKE = """
import numpy as np, pyarrow as pa, sys
from resources.lake import Lake
lake = Lake(sys.argv[1])
lake.replace("a/b", pa.table({"n": np.arange(1000)}))
try:
    lake.replace("a/b", pa.table({"n": np.random.default_rng(0).integers(0, 2**62, 5_000_000)}))
except Exception as error:
    print(type(error).__name__, error)
print("still there:", lake.read("a/b").num_rows)
"""

WAREHOUSE = """
import numpy as np, pyarrow as pa, sys
from pydantic import SecretStr
from resources.warehouse import Warehouse
warehouse = Warehouse(SecretStr(f"duckdb:///{sys.argv[1]}/warehouse.duckdb"))
warehouse.replace("raw.things", pa.table({"n": np.arange(1000)}))
try:
    warehouse.replace("raw.things", pa.table({"n": np.random.default_rng(0).integers(0, 2**62, 5_000_000)}))
except Exception as error:
    print(type(error).__name__, error)
print("still there:", warehouse.read("SELECT count(*) AS n FROM raw.things")["n"][0])
"""

LANDING = """
import os, sys
from resources.landing import LandingZone
landing = LandingZone(uri=sys.argv[1])
landing.put("sales", "2020-01-01.csv.gz", b"complete")
try:
    landing.put("sales", "2020-01-01.csv.gz", os.urandom(40_000_000))
except Exception as error:
    print(type(error).__name__, error)
print("still there:", landing.read("sales", "2020-01-01.csv.gz"), os.listdir(sys.argv[1] + "/sales"))
"""


def on_a_small_disk(program: str, folder: Path) -> str:
    """What the program prints that has a disk of 24 MB at its argument, in a mount namespace of its own."""
    own = ["unshare", "--mount", *([] if os.getuid() == 0 else ["--map-root-user"])]
    script = f"mount -t tmpfs -o size=24m tmpfs {folder} && exec {sys.executable} -c '{program}' {folder}"
    done = subprocess.run([*own, "sh", "-c", script], cwd=ROOT, capture_output=True, text=True)
    if done.returncode and "unshare:" in done.stderr:
        pytest.fail(f"this test mounts a small disk, which needs root or user namespaces here: {done.stderr}")
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_the_lake_says_that_the_disk_is_full_and_keeps_what_it_held(tmp_path: Path) -> None:
    said = on_a_small_disk(LAKE, tmp_path)
    assert "LakeError a/b cannot be written" in said
    assert "The disk is full: free some space there, or move TILTH_LAKE_URI" in said
    assert "still there: 1000" in said


def test_the_warehouse_says_that_the_disk_is_full_and_keeps_what_it_held(tmp_path: Path) -> None:
    said = on_a_small_disk(WAREHOUSE, tmp_path)
    assert "No space left on device" in said
    assert "The warehouse's disk is full; its tables hold what they held" in said
    assert "still there: 1000" in said


def test_the_landing_zone_says_that_the_disk_is_full_and_keeps_the_file_that_was_there(tmp_path: Path) -> None:
    said = on_a_small_disk(LANDING, tmp_path)
    assert "No space left on device" in said
    assert "still there: b'complete' ['2020-01-01.csv.gz']" in said
