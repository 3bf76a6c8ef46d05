"""Landed files into the warehouse's schema `raw`; what breaks a table's schema into `raw_rejected`.

What breaks a table's limits is not stored until a person accepts it: the table keeps what it had.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING

import dagster as dg

from assets.flights import partitions as by
from assets.flights.storing import Accepted, raw_key, refusal, store, words
from resources.frames import by_partition
from resources.landing import LandedFile, LandingZone
from resources.preview import column_schema
from resources.warehouse import Warehouse
from tilth.execution import retries
from tilth.versioning.content import data_version
from tilth.versioning.partitions import set_data_versions

if TYPE_CHECKING:
    from assets.flights.intake import Intake

DAILY_TABLES = {
    "flights": "Departures of the three airports as the airlines' feed reports them, with their outcome.",
    "weather": "Hourly observations at the three airports.",
}
REFERENCE_TABLES = {
    "planes": "Aircraft by tail number.",
    "airlines": "Carriers by their two-letter code.",
    "airports": "Airports by their FAA code.",
}


def newest_files(landing: LandingZone, table: str) -> dict[str | None, LandedFile]:
    """The table's landed files by partition (None for a reference table)."""
    return {file.partition: file for file in landing.files(table)}


def read(table: str, files: Sequence[LandedFile], landing: LandingZone) -> "Intake":
    """Everything that these landed files hold."""
    from assets.flights.intake import read_landed  # and pandera: for the processes that read files

    with ThreadPoolExecutor(8) as readers:  # one after another, hundreds of objects take long on S3
        contents = list(readers.map(lambda file: landing.read(file.table, file.name), files))
    return read_landed(table, [(f.name, f.partition, data) for f, data in zip(files, contents, strict=True)])


def daily_table(table: str, description: str) -> dg.AssetsDefinition:
    """`raw/<table>` by day: a range of days is one step, and a file that cannot be read fails its own day only."""

    @dg.asset(
        key=raw_key(table),
        partitions_def=by.days,
        backfill_policy=by.one_step,
        description=f"{description} One row per line of the landed files that keeps to the schema.",
        metadata={"partition_expr": by.DAY_COLUMNS[table]},
        pool="warehouse",
        retry_policy=retries.io,
        group_name="raw",
        owners=["team:flights"],
        kinds={"csv"},
    )
    def daily(
        context: dg.AssetExecutionContext,
        config: Accepted,
        landing: LandingZone,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.MaterializeResult:
        landed = newest_files(landing, table)
        missing = [day for day in context.partition_keys if day not in landed]
        if missing:
            landing.check_there()  # what is only not mounted may be back when the step is tried again
        present = [landed[day] for day in context.partition_keys if day in landed]
        intake = read(table, present, landing)
        readable = [day for day in context.partition_keys if day in intake.counts]
        passed = store(warehouse, table, intake, readable, words(context, table, landed, config))
        good = [day for day in readable if day not in passed.refused]

        rows_of = by_partition(intake.arrow, [by.DAY_COLUMNS[table]], good)
        versions = {day: data_version(rows) for day, rows in rows_of.items()}
        details = {
            day: {
                "dagster/partition_row_count": intake.counts[day].rows,
                "rejected_rows": intake.counts[day].rejected,
                "landed_file": landing.path_of(table, landed[day].name),
                "arrived_ns": str(landed[day].arrived_ns),
                "arrival": landed[day].arrival,
                **passed.accepted.get(day, {}),
            }
            for day in good
        }
        if rejected := sum(intake.counts[day].rejected for day in good):
            context.log.warning(f"raw/{table}: {rejected} rows were set aside in raw_rejected.{table}")

        failures = [str(error) for error in intake.unreadable]
        failures += [
            refusal(
                table, landing.path_of(table, landed[day].name), landed[day].arrival, how, intake.commonest.get(day, [])
            )
            for day, how in passed.refused.items()
        ]
        failures += [f"nothing has landed at {landing.path_of(table, f'{day}.csv.gz')}" for day in missing]
        if failures:
            # The good days are stored: say so one by one, then fail for the others, which keep what they had.
            for day in good:
                context.log_event(
                    dg.AssetMaterialization(
                        raw_key(table),
                        partition=day,
                        metadata=details[day],
                        tags={"dagster/data_version": versions[day]},
                    )
                )
            raise dg.Failure(
                f"raw/{table}: {len(failures)} of {len(context.partition_keys)} days cannot be taken; the other "
                f"{len(good)} are stored.\n" + "\n".join(failures[:20]),
                allow_retries=False,
            )
        for day in good:
            context.add_asset_metadata(details[day], partition_key=day)
        set_data_versions(context, raw_key(table), versions)
        return dg.MaterializeResult(
            metadata={
                "dagster/row_count": _count(warehouse, f"raw.{table}"),
                "dagster/column_schema": column_schema(intake.arrow.schema),
            },
        )

    return daily


def reference_table(table: str, description: str) -> dg.AssetsDefinition:
    """`raw/<table>`, replaced whole by the latest file."""

    @dg.asset(
        key=raw_key(table),
        description=f"{description} One row per line of the landed file that keeps to the schema.",
        backfill_policy=by.one_step,  # so that a backfill of days takes it along
        pool="warehouse",
        retry_policy=retries.io,
        group_name="raw",
        owners=["team:flights"],
        kinds={"csv"},
    )
    def reference(
        context: dg.AssetExecutionContext,
        config: Accepted,
        landing: LandingZone,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.MaterializeResult:
        files = newest_files(landing, table)
        landed = files.get(None)
        if landed is None:
            landing.check_there()
            raise dg.Failure(f"nothing has landed at {landing.path_of(table, f'{table}.csv')}", allow_retries=False)
        intake = read(table, [landed], landing)
        if intake.unreadable:
            raise dg.Failure(str(intake.unreadable[0]), allow_retries=False) from intake.unreadable[0]
        passed = store(warehouse, table, intake, None, words(context, table, files, config))
        path = landing.path_of(table, landed.name)
        for how in passed.refused.values():
            reasons = intake.commonest.get(None, [])
            raise dg.Failure(f"raw/{table}: {refusal(table, path, landed.arrival, how, reasons)}", allow_retries=False)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(data_version(intake.arrow)),
            metadata={
                "dagster/row_count": intake.arrow.num_rows,
                "dagster/column_schema": column_schema(intake.arrow.schema),
                "rejected_rows": intake.rejected.num_rows,
                "landed_file": path,
                "arrived_ns": str(landed.arrived_ns),
                "arrival": landed.arrival,
                **passed.accepted.get(None, {}),
            },
        )

    return reference


def _count(warehouse: Warehouse, table: str) -> int:
    return warehouse.read(f"SELECT count(*) AS rows FROM {table}")["rows"][0].as_py()  # noqa: S608


raw_tables = [daily_table(*item) for item in DAILY_TABLES.items()] + [
    reference_table(*item) for item in REFERENCE_TABLES.items()
]
