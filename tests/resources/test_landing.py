"""The landing zone: files appear whole, and each arrival is told once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from resources.landing import LandedFile, LandingZone

SETTLE_NS = 100_000_000  # above the kernel's clock tick, below what a test should wait


@pytest.fixture
def landing(tmp_path: Path) -> LandingZone:
    return LandingZone(uri=str(tmp_path / "landing"))


def everything(landing: LandingZone) -> list[LandedFile]:
    return landing.arrived(0, time.time_ns() + 10**9)


def test_what_was_put_is_read_and_listed_with_its_partition(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"abc")
    landing.put("shops", "shops.csv", b"de")

    assert landing.read("sales", "2020-01-01.csv.gz") == b"abc"
    assert [(f.table, f.name, f.partition, f.size) for f in everything(landing)] == [
        ("sales", "2020-01-01.csv.gz", "2020-01-01", 3),
        ("shops", "shops.csv", None, 2),
    ]


def test_a_landing_zone_that_does_not_exist_yet_is_empty(landing: LandingZone) -> None:
    assert everything(landing) == []


def test_a_missing_file_is_named_with_the_next_step(landing: LandingZone) -> None:
    with pytest.raises(FileNotFoundError, match=r"sales/2020-01-01\.csv\.gz is not in the landing zone; have the feed"):
        landing.read("sales", "2020-01-01.csv.gz")


@pytest.mark.parametrize(
    ("table", "name"),
    [
        ("sales", ".hidden.csv.gz"),
        ("sales", "notes.txt"),
        ("sales", ".csv.gz"),
        ("sales", "../x.csv.gz"),
        (".s", "a.csv.gz"),
    ],
)
def test_a_name_that_would_never_be_listed_cannot_be_put(landing: LandingZone, table: str, name: str) -> None:
    with pytest.raises(ValueError, match="would never be read"):
        landing.put(table, name, b"")


def test_hidden_foreign_and_nested_names_are_not_listed(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"")
    root = Path(landing.uri)
    for stray in [
        "README",
        ".hidden",
        "sales/.2020-01-02.csv.gz.1f",
        "sales/2020-01-03.csv.gz.part",
        "sales/other.csv",
    ]:
        (root / stray).write_bytes(b"x")
    (root / "sales" / "2020-01-04.csv.gz").mkdir()
    (root / ".trash").mkdir()
    (root / ".trash" / "2020-01-05.csv.gz").write_bytes(b"x")

    assert [f.name for f in everything(landing)] == ["2020-01-01.csv.gz"]


def test_a_file_sent_again_arrives_again(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"first")
    (first,) = everything(landing)
    time.sleep(0.02)
    landing.put("sales", "2020-01-01.csv.gz", b"second")

    (again,) = landing.arrived(first.arrived_ns, time.time_ns())
    assert again.name == first.name
    assert landing.read("sales", again.name) == b"second"


def test_a_rename_that_keeps_an_old_modification_time_is_an_arrival_now(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"")
    before = max(f.arrived_ns for f in everything(landing))
    time.sleep(0.02)
    hidden = Path(landing.uri, "sales", ".incoming")
    hidden.write_bytes(b"old")
    os.utime(hidden, (0, 0))
    hidden.rename(hidden.with_name("2020-01-02.csv.gz"))

    assert [f.partition for f in landing.arrived(before, time.time_ns())] == ["2020-01-02"]


def test_an_interval_has_its_end_and_not_its_beginning(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"")
    (file,) = everything(landing)

    assert landing.arrived(file.arrived_ns - 1, file.arrived_ns) == [file]
    assert landing.arrived(file.arrived_ns, file.arrived_ns + 1) == []


def test_no_file_is_lost_or_told_twice_while_a_feed_keeps_landing(landing: LandingZone) -> None:
    names = [f"{n:04}.csv.gz" for n in range(400)]

    def feed() -> None:
        for name in names:
            landing.put("sales", name, b"x")

    feeding = threading.Thread(target=feed)
    feeding.start()
    told: list[str] = []
    cursor, ticks = 0, 0
    while True:
        last_tick = not feeding.is_alive()
        if last_tick:
            time.sleep(SETTLE_NS / 1e9 + 0.01)
        until = max(cursor, time.time_ns() - SETTLE_NS)
        told += [f.name for f in landing.arrived(cursor, until)]
        cursor, ticks = until, ticks + 1
        if last_tick:
            break
    feeding.join()

    assert sorted(told) == names
    assert ticks > 1


def test_a_reader_never_sees_a_part_of_a_file(landing: LandingZone) -> None:
    versions = [bytes([n]) * 2_000_000 for n in range(20)]
    landing.put("sales", "2020-01-01.csv.gz", versions[0])

    def feed() -> None:
        for data in versions:
            landing.put("sales", "2020-01-01.csv.gz", data)

    feeding = threading.Thread(target=feed)
    feeding.start()
    reads = 0
    while feeding.is_alive() or reads == 0:
        (file,) = everything(landing)
        data = landing.read(file.table, file.name)
        assert file.size == len(data) == 2_000_000
        assert len(set(data)) == 1
        reads += 1
    feeding.join()


def test_a_killed_writer_leaves_only_complete_files(landing: LandingZone) -> None:
    endless = """
import sys
from resources.landing import LandingZone
landing, n = LandingZone(uri=sys.argv[1]), 0
while True:
    landing.put("sales", f"{n:06}.csv.gz", b"%06d" % n * 500_000)
    n += 1
"""
    writer = subprocess.Popen([sys.executable, "-c", endless, landing.uri])
    deadline = time.monotonic() + 60
    while len(everything(landing)) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()

    files = everything(landing)
    assert len(files) >= 5
    for file in files:
        assert landing.read("sales", file.name) == file.name[:6].encode() * 500_000


def test_a_thousand_files_are_listed_in_far_less_than_a_second(landing: LandingZone) -> None:
    folder = Path(landing.uri, "sales")
    folder.mkdir(parents=True)
    for n in range(1000):
        (folder / f"{n}.csv.gz").touch()
    quickest = min(_seconds(landing) for _ in range(3))

    assert quickest < 0.1


def _seconds(landing: LandingZone) -> float:
    start = time.perf_counter()
    assert len(everything(landing)) == 1000
    return time.perf_counter() - start
