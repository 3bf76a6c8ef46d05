"""A small domain for tests of the library: meters that are read each hour, by day; prices by day; and the meters."""

import gzip
from collections.abc import Callable, Mapping, Sequence
from datetime import date
from functools import cached_property
from pathlib import Path

import dagster as dg
import pandas as pd

from resources.ingestion.assets import landed
from resources.ingestion.tables import LandedTable
from resources.ingestion.validation import Batch, read_files
from resources.landing import LandingZone
from resources.landing_files import file_name
from resources.warehouse import Warehouse
from tilth.automation.ranges import range_tags
from tilth.settings import Deployment

QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
DAYS = dg.DailyPartitionsDefinition("2024-01-01", end_date="2024-04-01")
DAY = "2024-02-06"

READINGS = LandedTable(
    "readings",
    "tests.meter_schemas:readings",
    "What each meter read.",
    by=DAYS,
    day="reading_date",
    dated_by=("year", "month", "day"),
)
PRICES = LandedTable("prices", "tests.meter_schemas:prices", "Prices.", by=DAYS, day="day", dated_by=("day",))
METERS = LandedTable("meters", "tests.meter_schemas:meters", "The meters.")
TABLES = [READINGS, PRICES, METERS]


def lines_of(table: LandedTable, day: str = DAY) -> list[str]:
    """Header and lines of what the table's feed sends: 48 readings of two meters, 24 prices, or 16 meters."""
    when = date.fromisoformat(day)
    hours = range(24)
    if table.name == "readings":
        header = "year,month,day,hour,meter,kilowatts,pulses,state,read_at"
        lines = [
            f"{when.year},{when.month},{when.day},{hour},M{meter:03},{'NA' if hour == 3 else hour * 1.5 + meter},"
            f"{1000 * hour + 17},{'estimated' if hour == 3 else 'measured'},{day}T{hour:02}:00:00Z"
            for meter in (1, 2)
            for hour in hours
        ]
    elif table.name == "prices":
        header, lines = "day,hour,cents", [f"{day},{hour},{20 + hour / 4}" for hour in hours]
    else:
        header = "meter,installed,capacity,place"
        places = ["Mitte", "Été & Søn", '"Wald, Wiese"', *(f"Street {number}" for number in range(13))]
        lines = [f"M{number:03},2020-01-{number + 1:02},{10 + number},{place}" for number, place in enumerate(places)]
    return [header, *lines]


def packed(lines: Sequence[str]) -> bytes:
    """The lines as a feed sends those of a day."""
    return gzip.compress("".join(f"{line}\n" for line in lines).encode("utf-8", "surrogateescape"), 1, mtime=0)


def take(table: LandedTable, data: bytes, day: str = DAY) -> Batch:
    """What one file of the table holds, of this day where it lands by day; what makes it unreadable is raised."""
    partition = day if table.by else None
    plain = data if table.by else gzip.decompress(data)
    batch = read_files(table, [(file_name(table.name, partition), partition, plain)])
    for error in batch.unreadable:
        raise error
    return batch


Change = Callable[[str, str], str]
"""From a file's header and one of its lines, that line as a test wants it."""


def with_values(**values: str) -> Change:
    """The line with other values in these columns."""

    def change(header: str, line: str) -> str:
        fields = dict(zip(header.split(","), line.split(","), strict=True))
        return ",".join((fields | values).values())

    return change


def send(
    landing: LandingZone,
    table: LandedTable,
    day: str | None = None,
    change: Callable[[list[str]], Sequence[str]] = lambda lines: lines,
) -> None:
    """Land the table's file, of a day where it lands by day; its lines as they are after `change`."""
    header, *lines = lines_of(table, day or DAY)
    data = packed([header, *change(lines)])
    landing.put(table.name, file_name(table.name, day), data if day else gzip.decompress(data))


class Meters:
    """The domain on stores of its own, and a Dagster instance that remembers its runs."""

    def __init__(self, home: Path, instance: dg.DagsterInstance, tables: Sequence[LandedTable] = tuple(TABLES)) -> None:
        self.deployment = Deployment(home=home)
        self.instance = instance
        self.landing = LandingZone.of(self.deployment)
        self.warehouse = Warehouse(self.deployment.warehouse_uri)
        self.tables = tables

    @cached_property
    def definitions(self) -> dg.Definitions:
        return dg.Definitions(
            assets=[landed(table) for table in self.tables],
            resources={"landing": self.landing, "warehouse": self.warehouse},
            executor=dg.in_process_executor,
        )

    def run(
        self,
        table: LandedTable,
        first: str | None = None,
        last: str | None = None,
        accept: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """One run of the table's asset over a range of days; the caller looks at its success."""
        config = {"__".join(table.key.path): {"config": {"accept": dict(accept or {})}}}
        return self.definitions.resolve_implicit_global_asset_job_def().execute_in_process(
            instance=self.instance,
            asset_selection=[table.key],
            tags=range_tags(first, last or first) if first else {},
            run_config={**QUIET, "ops": config},
            raise_on_error=False,
        )

    def make(self, table: LandedTable, first: str | None = None, last: str | None = None, accepted: str = "") -> None:
        """As `run`, for a run that must succeed; `accepted` says why all that has landed is."""
        arrivals = {file.arrival: accepted for file in self.landing.files(table.name)} if accepted else {}
        result = self.run(table, first, last, arrivals)
        assert result.success, errors(result)

    def rows(self, table: str) -> pd.DataFrame:
        """A warehouse table, sorted by all of its columns."""
        frame = self.warehouse.read(table).to_pandas()
        return frame.sort_values(list(frame.columns), ignore_index=True)

    def latest(self, table: LandedTable, partition: str | None = None) -> dg.AssetMaterialization | None:
        """The newest materialization of the table's asset, or of a day of it."""
        wanted = dg.AssetRecordsFilter(table.key, asset_partitions=[partition] if partition else None)
        records = self.instance.fetch_materializations(wanted, limit=1).records
        return records[0].asset_materialization if records else None


def errors(result: dg.ExecuteInProcessResult) -> str:
    """What the run's steps failed with."""
    return "\n".join(str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure)
