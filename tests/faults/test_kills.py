"""Killed at any moment, a backfill leaves whole partitions; run again, it leaves what an undisturbed one does."""

import gzip
import os
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date, timedelta
from pathlib import Path

import pytest

from assets.flights import replay
from resources.frames import by_partition
from resources.landing_files import file_name
from resources.warehouse import Warehouse, WarehouseBusyError
from tests.example import REFERENCE, Platform
from tests.faults.backfill import Stack, context, finish, kill, platform_on, start
from tests.s3 import CREDENTIALS, S3
from tilth.versioning.content import data_version

FIRST, LAST = "2013-01-01", "2013-03-01"
DAYS = [str(date.fromisoformat(FIRST) + timedelta(days=n)) for n in range(60)]
KILLS, GROUPS = int(os.environ.get("KILLS", "8")), 2

DAY_OF = {
    "raw.flights": "flight_date",
    "raw.weather": "observation_date",
    "marts.departures": "flight_date",
    "marts.daily_lateness": "flight_date",
}
FEATURES = "features/departures"


# Minutes each, so not one after the other in the same process of pytest-xdist.
STACKS = [pytest.param(name, marks=pytest.mark.xdist_group(name)) for name in ("disk and DuckDB", "S3 and PostgreSQL")]


@pytest.fixture(params=STACKS)
def stack(request: pytest.FixtureRequest, tmp_path: Path) -> Stack:
    if request.param == "disk and DuckDB":
        return Stack(str(tmp_path))
    s3: S3 = request.getfixturevalue("s3")
    return Stack(
        str(tmp_path),
        warehouse_uri=request.getfixturevalue("postgres_uri"),
        lake_uri=f"s3://{s3.bucket()}/lake",
        landing_uri=f"s3://{s3.bucket()}/landing",
        s3_endpoint_url=s3.endpoint_url,
        environment=CREDENTIALS,
    )


def land(platform: Platform, thinned: bool) -> None:
    """Land all days: as they are in the record, or without every third line."""
    landing = platform.landing
    replay.land_days(landing, date.fromisoformat(FIRST), date.fromisoformat(LAST))
    for file in [file for file in landing.files() if file.partition and thinned]:
        header, *lines = gzip.decompress(landing.read(file.table, file.name)).splitlines(keepends=True)
        kept = b"".join(line for n, line in enumerate(lines) if n % 3)
        landing.put(file.table, file_name(file.table, file.partition), gzip.compress(header + kept, 1))


def versions(platform: Platform) -> dict[str, dict[str, str]]:
    """By table and day, a hash of all of its rows; of the lake's in their order."""
    found = {}
    for table, column in DAY_OF.items():
        rows = platform.warehouse.read(table)
        parts = by_partition(rows, [column], DAYS)
        assert rows.num_rows == sum(part.num_rows for part in parts.values())
        found[table] = {day: data_version(part, ordered=False) for day, part in parts.items()}
    parts = by_partition(platform.lake.read(FEATURES), ["flight_date"], DAYS)
    found[FEATURES] = {day: data_version(part) for day, part in parts.items()}
    return found


@dataclass
class Reader:
    """Looks at all tables again and again, as anybody else would, and notes each day that is in no whole state."""

    platform: Platform
    whole: dict[str, list[dict[str, int]]]
    looks: int = 0

    def counts(self, wait_seconds: float) -> dict[str, dict[str, int]]:
        """By table and day, its rows: a partition of the lake is what its log says."""
        warehouse = Warehouse(self.platform.deployment.warehouse_uri, wait_seconds=wait_seconds)
        found = {}
        with warehouse.transaction() as transaction:
            for table, column in DAY_OF.items():
                counted = transaction.read(f"SELECT {column} AS day, count(*) AS n FROM {table} GROUP BY 1")
                found[table] = {str(row["day"]): row["n"] for row in counted.to_pylist()}
        files = self.platform.lake.files(FEATURES).group_by("partition").aggregate([("num_records", "sum")])
        found[FEATURES] = {row["partition"]: row["num_records_sum"] for row in files.to_pylist()}
        return found

    def broken(self, wait_seconds: float = 0) -> list[str]:
        """The days that hold neither of their whole states now; none where the DuckDB file is taken."""
        try:
            found = self.counts(wait_seconds)
        except WarehouseBusyError:
            return []
        self.looks += 1
        return [
            f"{table} {day}: {counts.get(day, 0)} rows"
            for table, counts in found.items()
            for day in {*counts, *DAYS}
            if counts.get(day, 0) not in [state.get(day, 0) for state in self.whole[table]]
        ]

    @contextmanager
    def watching(self) -> Iterator[list[str]]:
        """Look until the block ends; what was found broken."""
        over, broken = threading.Event(), []

        def look() -> None:
            while not over.wait(1):
                broken.extend(self.broken())

        thread = threading.Thread(target=look)
        thread.start()
        try:
            yield broken
        finally:
            over.set()
            thread.join()


def test_a_backfill_that_is_killed_at_many_moments_ends_as_one_that_is_not(stack: Stack) -> None:
    forking = context()
    with platform_on(stack) as platform:
        replay.land_reference(platform.landing)
        platform.make(REFERENCE)
        undisturbed, counts, seconds = [], [], 0.0
        reader = Reader(platform, {})
        for thinned in (False, True):
            land(platform, thinned)
            began = time.monotonic()
            finish(start(forking, stack, FIRST, LAST))
            seconds = time.monotonic() - began
            undisturbed.append(versions(platform))
            counts.append(reader.counts(10))
        for table in undisturbed[0]:
            same = [day for day in DAYS if undisturbed[0][table][day] == undisturbed[1][table][day]]
            assert same == [], f"{table}: both states must differ on every day for this test to see anything"
        reader.whole = {table: [state[table] for state in counts] for table in counts[0]}

        killed = 0
        for group in range(GROUPS):
            thinned = bool(group % 2)
            land(platform, thinned)
            with reader.watching() as broken:
                for number in range(group, KILLS, GROUPS):
                    moment = seconds * 0.95 * (number + 0.5) / KILLS
                    while not kill(start(forking, stack, FIRST, LAST), moment):
                        moment *= 0.8  # it was quicker than the undisturbed one
                    killed += 1
                finish(start(forking, stack, FIRST, LAST))
            assert broken == []
            assert reader.broken(wait_seconds=60) == []
            assert versions(platform) == undisturbed[thinned]
        assert killed == KILLS
        assert reader.looks > KILLS
