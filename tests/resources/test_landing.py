"""The landing zone, on disk as on S3: files appear whole, and each arrival is told once."""

import os
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from types import SimpleNamespace

import pytest

import resources.landing_folder
import resources.landing_s3
from resources.landing import LandingZone
from resources.landing_folder import LEEWAY_NANOSECONDS

SETTLE_SECONDS = 0.1  # above the kernel's clock tick, below what a test should wait


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Files settle, and everything on S3 is listed, sooner than in earnest."""
    monkeypatch.setattr(resources.landing_folder, "SETTLE_NANOSECONDS", int(SETTLE_SECONDS * 1e9))
    monkeypatch.setattr(resources.landing_s3, "WHOLE_LISTING_NANOSECONDS", int(SETTLE_SECONDS * 1e9))


@pytest.fixture
def folder(tmp_path: Path) -> LandingZone:
    return LandingZone(uri=str(tmp_path / "landing"))


@pytest.fixture(params=["disk", "s3"])
def landing(request: pytest.FixtureRequest) -> LandingZone:
    if request.param == "disk":
        return request.getfixturevalue("folder")
    s3 = request.getfixturevalue("s3")
    return LandingZone(uri=f"s3://{s3.bucket()}/a/landing", s3_endpoint_url=s3.endpoint_url, s3_region=s3.region)


class Clock:
    """The clock of a reader on disk, so many seconds ahead of the one that dates the files."""

    ahead = 0.0

    def time_ns(self) -> int:
        return time.time_ns() + int(self.ahead * 1e9)


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(resources.landing_folder, "time", SimpleNamespace(time_ns=clock.time_ns))
    return clock


def settled(landing: LandingZone, cursor: str | None = None) -> tuple[list[str], str]:
    """The names that are told once everything so far counts as landed, and the next cursor."""
    time.sleep(SETTLE_SECONDS + 0.02)
    files, cursor = landing.arrivals(cursor)
    return [file.name for file in files], cursor


def test_what_was_put_is_read_and_listed_with_its_partition(landing: LandingZone) -> None:
    before = time.time_ns() - 10**9
    landing.put("sales", "2020-01-01.csv.gz", b"abc")
    landing.put("shops", "shops.csv", b"de")

    assert landing.read("sales", "2020-01-01.csv.gz") == b"abc"
    files = landing.files()
    assert [(f.table, f.name, f.partition, f.size) for f in files] == [
        ("sales", "2020-01-01.csv.gz", "2020-01-01", 3),
        ("shops", "shops.csv", None, 2),
    ]
    assert all(before <= file.arrived_ns <= time.time_ns() for file in files)
    assert landing.path_of("sales", "2020-01-01.csv.gz") == f"{landing.uri}/sales/2020-01-01.csv.gz"


def test_the_files_of_one_table_are_listed_alone(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"")
    landing.put("sales_tax", "2020-01-01.csv.gz", b"")

    assert [file.table for file in landing.files("sales")] == ["sales"]
    assert landing.files("shops") == []


def test_a_landing_zone_that_nothing_has_landed_in_is_empty(landing: LandingZone) -> None:
    assert landing.files() == []
    names, cursor = settled(landing)
    assert names == []
    landing.put("sales", "2020-01-01.csv.gz", b"")
    assert settled(landing, cursor)[0] == ["2020-01-01.csv.gz"]


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


@pytest.mark.parametrize("uri", ["gs://bucket/landing", "s3://", "s3:///landing", "file:///landing"])
def test_an_address_of_another_kind_is_refused_and_the_known_kinds_are_named(uri: str) -> None:
    with pytest.raises(ValueError, match=r"files land in a folder \(name its path\) or at s3://bucket/prefix"):
        LandingZone(uri=uri)


def test_each_file_is_told_once_and_again_when_it_is_sent_again(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"first")
    landing.put("sales", "2020-01-02.csv.gz", b"first")
    names, cursor = settled(landing)
    assert names == ["2020-01-01.csv.gz", "2020-01-02.csv.gz"]
    names, cursor = settled(landing, cursor)
    assert names == []

    before = {file.name: file.arrival for file in landing.files()}
    landing.put("sales", "2020-01-01.csv.gz", b"second")
    names, cursor = settled(landing, cursor)
    assert names == ["2020-01-01.csv.gz"]
    assert landing.read("sales", "2020-01-01.csv.gz") == b"second"
    after = {file.name: file.arrival for file in landing.files()}
    assert {name for name in after if after[name] != before[name]} == {"2020-01-01.csv.gz"}
    assert settled(landing, cursor)[0] == []


def test_a_reader_without_a_cursor_is_told_everything(landing: LandingZone) -> None:
    landing.put("sales", "2020-01-01.csv.gz", b"")
    assert settled(landing)[0] == settled(landing)[0] == ["2020-01-01.csv.gz"]


def test_no_file_is_lost_or_told_twice_while_a_feed_keeps_landing(landing: LandingZone) -> None:
    names = [f"{n * 7 % 100:04}.csv.gz" for n in range(100)]  # not in order

    def feed() -> None:
        for name in names:
            landing.put("sales", name, b"x")

    feeding = threading.Thread(target=feed)
    feeding.start()
    told: list[str] = []
    cursor, ticks = None, 0
    while True:
        last_tick = not feeding.is_alive()
        if last_tick:
            time.sleep(SETTLE_SECONDS + 0.02)
        news, cursor = landing.arrivals(cursor)
        told += [file.name for file in news]
        ticks += 1
        if last_tick:
            break
    feeding.join()

    assert sorted(told) == sorted(names)
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
        (file,) = landing.files()
        data = landing.read(file.table, file.name)
        assert file.size == len(data) == 2_000_000
        assert len(set(data)) == 1
        reads += 1
    feeding.join()


def test_hidden_foreign_and_nested_names_are_not_listed(folder: LandingZone) -> None:
    folder.put("sales", "2020-01-01.csv.gz", b"")
    root = Path(folder.uri)
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

    assert [f.name for f in folder.files()] == ["2020-01-01.csv.gz"]


def test_a_rename_that_keeps_an_old_modification_time_is_an_arrival_now(folder: LandingZone) -> None:
    folder.put("sales", "2020-01-01.csv.gz", b"")
    _, cursor = settled(folder)
    hidden = Path(folder.uri, "sales", ".incoming")
    hidden.write_bytes(b"old")
    os.utime(hidden, (0, 0))
    hidden.rename(hidden.with_name("2020-01-02.csv.gz"))

    assert settled(folder, cursor)[0] == ["2020-01-02.csv.gz"]


def test_a_cursor_on_disk_is_the_time_up_to_which_arrivals_were_told(
    folder: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As every release stored it: a sensor goes on after an upgrade where it was, but for the leeway.
    folder.put("sales", "2020-01-01.csv.gz", b"")
    (file,) = folder.files()
    assert file.arrival == str(file.arrived_ns)
    monkeypatch.setattr(resources.landing_folder, "LEEWAY_NANOSECONDS", 10**6)

    assert settled(folder, str(file.arrived_ns - 1))[0] == ["2020-01-01.csv.gz"]
    names, cursor = settled(folder, str(file.arrived_ns + 10**6))
    assert names == []
    assert file.arrived_ns < int(cursor) < time.time_ns()


def test_a_cursor_on_disk_names_what_was_told_only_for_a_while(folder: LandingZone, clock: Clock) -> None:
    for n in range(100):
        folder.put("sales", f"{n}.csv.gz", b"")
    names, cursor = settled(folder)
    assert len(names) == 100
    assert len(cursor) < 1400
    clock.ahead = LEEWAY_NANOSECONDS / 1e9
    names, cursor = settled(folder, cursor)
    assert names == []
    assert cursor.isdecimal()
    assert settled(folder, cursor)[0] == []


@pytest.mark.parametrize("ahead", [3600, 600, 30])
def test_a_clock_that_is_ahead_for_one_look_hides_nothing_that_lands_after_it(
    folder: LandingZone, clock: Clock, ahead: int
) -> None:
    folder.put("sales", "2020-01-01.csv.gz", b"")
    clock.ahead = ahead
    names, cursor = settled(folder)
    assert names == ["2020-01-01.csv.gz"]

    clock.ahead = 0
    folder.put("sales", "2020-01-02.csv.gz", b"")
    names, cursor = settled(folder, cursor)
    assert "2020-01-02.csv.gz" in names
    assert int(cursor.split(" ")[0]) < time.time_ns()  # it went back with the clock
    folder.put("sales", "2020-01-03.csv.gz", b"")
    names, cursor = settled(folder, cursor)
    assert names == ["2020-01-03.csv.gz"]
    assert settled(folder, cursor)[0] == []


def test_what_an_earlier_release_passed_over_under_a_wrong_clock_is_told(folder: LandingZone) -> None:
    folder.put("sales", "2020-01-01.csv.gz", b"")
    names, cursor = settled(folder, str(time.time_ns() + 3600 * 10**9))
    assert names == ["2020-01-01.csv.gz"]
    assert settled(folder, cursor)[0] == []


def test_a_clock_that_is_set_back_by_less_than_the_time_between_two_looks_hides_nothing(
    folder: LandingZone, clock: Clock
) -> None:
    folder.put("sales", "2020-01-01.csv.gz", b"")
    clock.ahead = 0.5
    _, cursor = settled(folder)
    clock.ahead = 0
    folder.put("sales", "2020-01-02.csv.gz", b"")
    time.sleep(0.5)

    names, cursor = settled(folder, cursor)
    assert names == ["2020-01-02.csv.gz"]
    assert settled(folder, cursor)[0] == []


def test_files_of_a_volume_whose_clock_is_behind_are_told_once(folder: LandingZone, clock: Clock) -> None:
    clock.ahead = 60
    cursor = None
    for name in ("2020-01-01.csv.gz", "2020-01-02.csv.gz", "2020-01-03.csv.gz"):
        folder.put("sales", name, b"")
        names, cursor = settled(folder, cursor)
        assert names == [name]


def test_files_that_are_dated_in_the_future_are_told_at_once_and_once(folder: LandingZone, clock: Clock) -> None:
    clock.ahead = -3600
    cursor = None
    for name in ("2020-01-01.csv.gz", "2020-01-02.csv.gz"):
        folder.put("sales", name, b"")
        names, cursor = settled(folder, cursor)
        assert names == [name]
    clock.ahead = 0
    assert settled(folder, cursor)[0] == []


def test_a_landing_zone_that_vanishes_for_a_while_loses_nothing_that_lands_meanwhile(
    folder: LandingZone, tmp_path: Path
) -> None:
    folder.put("sales", "2020-01-01.csv.gz", b"")
    names, cursor = settled(folder, "1")
    assert names == ["2020-01-01.csv.gz"]

    elsewhere = Path(folder.uri).rename(tmp_path / "elsewhere")
    with pytest.raises(FileNotFoundError, match="Bring it back, or mount it again"):
        folder.arrivals(cursor)
    Path(folder.uri).mkdir()  # a mount point without its volume
    LandingZone(uri=str(elsewhere)).put("sales", "2020-01-02.csv.gz", b"")
    with pytest.raises(FileNotFoundError, match="is empty, as a mount point is without its volume"):
        folder.arrivals(cursor)

    Path(folder.uri).rmdir()
    elsewhere.rename(folder.uri)
    assert settled(folder, cursor)[0] == ["2020-01-02.csv.gz"]


def test_a_landing_zone_on_disk_that_is_gone_or_empty_is_named_with_the_next_step(folder: LandingZone) -> None:
    with pytest.raises(FileNotFoundError, match=f"{folder.uri} is gone. Bring it back, or mount it again"):
        folder.check_there()
    Path(folder.uri).mkdir()
    with pytest.raises(FileNotFoundError, match=f"{folder.uri} is empty.*make a table's folder in it"):
        folder.check_there()
    _, cursor = folder.arrivals()
    assert folder.arrivals(cursor)[0] == []  # as long as nothing was ever told
    Path(folder.uri, "sales").mkdir()
    folder.check_there()
    assert folder.arrivals("1")[0] == []


def test_a_killed_writer_leaves_only_complete_files(folder: LandingZone) -> None:
    endless = """
import sys
from resources.landing import LandingZone
landing, n = LandingZone(uri=sys.argv[1]), 0
while True:
    landing.put("sales", f"{n:06}.csv.gz", b"%06d" % n * 500_000)
    n += 1
"""
    writer = subprocess.Popen([sys.executable, "-c", endless, folder.uri])
    deadline = time.monotonic() + 60
    while len(folder.files()) < 5 and time.monotonic() < deadline:
        time.sleep(0.01)
    writer.send_signal(signal.SIGKILL)
    writer.wait()

    files = folder.files()
    assert len(files) >= 5
    for file in files:
        assert folder.read("sales", file.name) == file.name[:6].encode() * 500_000


def test_a_thousand_files_are_listed_in_far_less_than_a_second(folder: LandingZone) -> None:
    sales = Path(folder.uri, "sales")
    sales.mkdir(parents=True)
    for n in range(1000):
        (sales / f"{n}.csv.gz").touch()
    quickest = min(_seconds(folder) for _ in range(3))

    assert quickest < 0.1


def _seconds(landing: LandingZone) -> float:
    start = time.perf_counter()
    assert len(landing.files()) == 1000
    return time.perf_counter() - start


def test_a_landing_zone_on_disk_does_not_wait_for_the_libraries_of_s3(tmp_path: Path) -> None:
    used = (
        "import sys; from resources.landing import LandingZone; "
        f"LandingZone(uri={str(tmp_path)!r}).arrivals(); print('boto3' in sys.modules, 'dagster_aws' in sys.modules)"
    )
    said = subprocess.run([sys.executable, "-c", used], capture_output=True, text=True, check=True)
    assert said.stdout.split() == ["False", "False"]


def place(landing: LandingZone, path: str) -> None:
    """Put a file where `put` would refuse to."""
    if landing.uri.startswith("s3://"):
        bucket, _, prefix = landing.uri.removeprefix("s3://").partition("/")
        landing._store.client.put_object(Bucket=bucket, Key=f"{prefix}/{path}", Body=b"")  # pyright: ignore
    else:
        file = Path(landing.uri, path)
        file.parent.mkdir(parents=True, exist_ok=True)
        file.touch()


def test_files_whose_names_nobody_reads_are_told_with_the_nearest_name_that_would_be(landing: LandingZone) -> None:
    unread = {
        "sales/2020-01-01.CSV.GZ": "sales/2020-01-01.csv.gz",
        "sales/2020-01-02.csv": "sales/2020-01-02.csv.gz",
        "sales/20200102.csv.gz": "sales/2020-01-02.csv.gz",
        "sales/2020/01/02.csv.gz": "sales/2020-01-02.csv.gz",
        "sales/2020/2020-01-03.csv.gz": "sales/2020-01-03.csv.gz",
        "sales/sales_2020-01-03.csv.gz": "sales/2020-01-03.csv.gz",
        "Sales/2020-01-03.csv.gz": "sales/2020-01-03.csv.gz",
        "sales/sales.csv": None,
        "shops/shops.csv.gz": "shops/shops.csv",
        "SHOPS/Shops.csv": "shops/shops.csv",
    }
    days = ["2020-01-01", "2020-01-02", "2020-01-03"]
    for path in (
        "sales/2020-01-01.csv.gz",
        "sales/.2020-01-02.csv.gz.part",
        "sales/.tmp/2020-01-02.csv",
        "shops/shops.csv",
    ):
        place(landing, path)
    assert landing.unread("sales", days) == landing.unread("shops") == landing.unread("other") == {}
    for path in unread:
        place(landing, path)

    found = landing.unread("sales", days) | landing.unread("shops")
    assert found.keys() == unread.keys()
    assert {path: name for path, name in found.items() if unread[path]} == {p: n for p, n in unread.items() if n}
