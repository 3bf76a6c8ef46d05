"""Many processes write one table of the lake at once: nothing is lost, nothing is there twice."""

import multiprocessing
import time
from collections.abc import Sequence
from multiprocessing.synchronize import Barrier
from pathlib import Path

import pyarrow as pa
import pytest

from resources.lake import Lake
from tests.s3 import CREDENTIALS, S3

ASSET = "features/things"
ROWS = 5


@pytest.fixture(params=["disk", "S3"])
def lake(request: pytest.FixtureRequest, tmp_path: Path) -> Lake:
    if request.param == "disk":
        return Lake(str(tmp_path / "lake"))
    s3: S3 = request.getfixturevalue("s3")
    address = {"aws_endpoint_url": s3.endpoint_url, "aws_region": s3.region, "aws_allow_http": "true"}
    keys = {name.lower(): value for name, value in CREDENTIALS.items()}
    return Lake(f"s3://{s3.bucket()}/lake", storage_options=address | keys)


def rows(part: str, writer: int) -> pa.Table:
    return pa.table({"part": [part] * ROWS, "writer": [writer] * ROWS, "n": range(ROWS)})


def write(lake: Lake, writer: int, batches: Sequence[Sequence[str]], together: Barrier) -> None:
    together.wait()
    for parts in batches:
        data = pa.concat_tables([rows(part, writer) for part in parts])
        lake.replace(ASSET, data, list(parts), ["part"])


def at_once(lake: Lake, batches_of: Sequence[Sequence[Sequence[str]]]) -> None:
    """One process for each of `batches_of`, all beginning at the same moment."""
    spawning = multiprocessing.get_context("forkserver")
    spawning.set_forkserver_preload(["resources.lake", "tests.faults.test_writers"])
    together = spawning.Barrier(len(batches_of))
    writers = [
        spawning.Process(target=write, args=(lake, number, batches, together))
        for number, batches in enumerate(batches_of)
    ]
    for writer in writers:
        writer.start()
    for writer in writers:
        writer.join()
    assert [writer.exitcode for writer in writers] == [0] * len(writers)


def test_eight_processes_write_two_hundred_partitions_and_all_are_there_once(lake: Lake) -> None:
    parts = [f"{n:03}" for n in range(200)]
    # Each commit to a store takes some ten requests, so there five partitions a commit.
    size = 5 if "://" in lake.uri else 1
    shares = [parts[number * 25 : (number + 1) * 25] for number in range(8)]
    at_once(lake, [[share[n : n + size] for n in range(0, 25, size)] for share in shares])

    found = lake.read(ASSET).to_pandas()
    assert sorted(found["part"].unique()) == parts
    assert (found.groupby("part").size() == ROWS).all()
    assert (found.groupby("part")["writer"].nunique() == 1).all()


def test_of_writers_of_the_same_partitions_one_wins_each_of_them_whole(lake: Lake) -> None:
    # The sets overlap without being equal: a winner takes all of its own commit.
    at_once(lake, [[["a", "b"]] * 3, [["b", "c"]] * 3])

    found = lake.read(ASSET).to_pandas()
    assert (found.groupby("part").size() == ROWS).all()
    winners = found.groupby("part")["writer"].unique().to_dict()
    assert [list(winners[part]) for part in ("a", "c")] == [[0], [1]]
    assert len(winners["b"]) == 1


def test_a_reader_sees_every_partition_whole_while_it_is_replaced(lake: Lake) -> None:
    lake.replace(ASSET, rows("a", 99), ["a"], ["part"])
    spawning = multiprocessing.get_context("forkserver")
    together = spawning.Barrier(2)
    writer = spawning.Process(target=write, args=(lake, 1, [["a"]] * 20, together))
    writer.start()
    together.wait()
    looks, deadline = 0, time.monotonic() + 120
    while writer.is_alive() and time.monotonic() < deadline:
        found = lake.read(ASSET, ["a"])
        assert found["n"].to_pylist() == list(range(ROWS))
        assert len(found["writer"].unique()) == 1
        looks += 1
    writer.join()
    assert writer.exitcode == 0
    assert looks > 10
