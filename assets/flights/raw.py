"""Landed files into the warehouse's schema `raw`; what breaks a table's schema into `raw_rejected`."""

import hashlib
import time
from collections.abc import Sequence

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from assets.flights import partitions as by
from assets.flights.intake import Intake, read_landed
from assets.flights.schemas import DAY_COLUMNS
from resources.frames import column_schema, data_version
from resources.landing import LandedFile, LandingZone
from resources.warehouse import Warehouse

DAILY_TABLES = {
    "flights": "Departures of the three airports as the airlines' feed reports them, with their outcome.",
    "weather": "Hourly observations at the three airports.",
}
REFERENCE_TABLES = {
    "planes": "Aircraft by tail number.",
    "airlines": "Carriers by their two-letter code.",
    "airports": "Airports by their FAA code.",
}


def raw_key(table: str) -> dg.AssetKey:
    """The asset of a raw table."""
    return dg.AssetKey(["raw", table])


def newest_files(landing: LandingZone, table: str) -> dict[str | None, LandedFile]:
    """The table's landed files by partition (None for a reference table)."""
    files = landing.arrived(after_ns=0, until_ns=time.time_ns())
    return {file.partition: file for file in files if file.table == table}


def read(table: str, files: Sequence[LandedFile], landing: LandingZone) -> Intake:
    """Everything that these landed files hold."""
    return read_landed(table, [(f.name, f.partition, landing.read(f.table, f.name)) for f in files])


def store(warehouse: Warehouse, table: str, intake: Intake, days: Sequence[str] | None) -> None:
    """Put what was read in place of these days' rows, accepted and rejected ones in one transaction."""
    with warehouse.transaction() as transaction:
        if days is None:
            transaction.replace(f"raw.{table}", intake.arrow)
            transaction.replace(f"raw_rejected.{table}", intake.rejected)
        else:
            transaction.replace(f"raw.{table}", intake.arrow, DAY_COLUMNS[table], days)
            transaction.replace(f"raw_rejected.{table}", intake.rejected, "partition_day", days)


def daily_table(table: str, description: str) -> dg.AssetsDefinition:
    """`raw/<table>` by day: a range of days is one step, and a file that cannot be read fails its own day only."""

    @dg.asset(
        key=raw_key(table),
        partitions_def=by.days,
        backfill_policy=by.one_step,
        description=f"{description} One row per line of the landed files that keeps to the schema.",
        metadata={"partition_expr": DAY_COLUMNS[table]},
        pool="warehouse",
        group_name="raw",
        owners=["team:flights"],
        kinds={"csv"},
    )
    def daily(
        context: dg.AssetExecutionContext, landing: LandingZone, warehouse: dg.ResourceParam[Warehouse]
    ) -> dg.MaterializeResult:
        landed = newest_files(landing, table)
        missing = [day for day in context.partition_keys if day not in landed]
        present = [landed[day] for day in context.partition_keys if day in landed]
        intake = read(table, present, landing)
        good = [day for day in context.partition_keys if day in intake.counts]
        store(warehouse, table, intake, good)

        versions = _versions_by_day(intake.arrow, DAY_COLUMNS[table], good)
        details = {
            day: {
                "dagster/partition_row_count": intake.counts[day].rows,
                "rejected_rows": intake.counts[day].rejected,
                "landed_file": landing.path_of(table, landed[day].name),
                "arrived_ns": str(landed[day].arrived_ns),
            }
            for day in good
        }
        if rejected := intake.rejected.num_rows:
            context.log.warning(f"raw/{table}: {rejected} rows were set aside in raw_rejected.{table}")

        failures = [str(error) for error in intake.unreadable]
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
                f"raw/{table}: {len(failures)} of {len(context.partition_keys)} days could not be read; the other "
                f"{len(good)} are stored.\n" + "\n".join(failures[:20]),
                allow_retries=False,
            )
        for day in good:
            context.add_asset_metadata(details[day], partition_key=day)
        version = versions[good[0]] if len(good) == 1 else _combined(versions)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(version),
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
        pool="warehouse",
        group_name="raw",
        owners=["team:flights"],
        kinds={"csv"},
    )
    def reference(landing: LandingZone, warehouse: dg.ResourceParam[Warehouse]) -> dg.MaterializeResult:
        landed = newest_files(landing, table).get(None)
        if landed is None:
            raise dg.Failure(f"nothing has landed at {landing.path_of(table, f'{table}.csv')}", allow_retries=False)
        intake = read(table, [landed], landing)
        if intake.unreadable:
            raise intake.unreadable[0]
        store(warehouse, table, intake, None)
        return dg.MaterializeResult(
            data_version=dg.DataVersion(data_version(intake.arrow)),
            metadata={
                "dagster/row_count": intake.arrow.num_rows,
                "dagster/column_schema": column_schema(intake.arrow.schema),
                "rejected_rows": intake.rejected.num_rows,
                "landed_file": landing.path_of(table, landed.name),
                "arrived_ns": str(landed.arrived_ns),
            },
        )

    return reference


def _versions_by_day(rows: pa.Table, day_column: str, days: Sequence[str]) -> dict[str, str]:
    column = rows[day_column].cast(pa.string())
    return {day: data_version(rows.filter(pc.equal(column, day))) for day in days}


def _combined(versions: dict[str, str]) -> str:
    text = " ".join(f"{day}={version}" for day, version in sorted(versions.items()))
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def _count(warehouse: Warehouse, table: str) -> int:
    return warehouse.read(f"SELECT count(*) AS rows FROM {table}")["rows"][0].as_py()  # noqa: S608


raw_tables = [daily_table(*item) for item in DAILY_TABLES.items()] + [
    reference_table(*item) for item in REFERENCE_TABLES.items()
]
