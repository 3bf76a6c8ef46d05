"""The raw asset of a table that lands: its files into the warehouse, what breaks the schema set aside beside it."""

import warnings
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import dagster as dg

from resources.frames import by_partition
from resources.ingestion.storing import acceptance, refusal, store
from resources.ingestion.tables import LandedTable
from resources.landing import LandingZone
from resources.landing_files import LandedFile, file_name
from resources.preview import column_schema
from resources.warehouse import Warehouse
from tilth.execution import retries
from tilth.versioning.content import data_version
from tilth.versioning.partitions import set_data_versions

if TYPE_CHECKING:
    from resources.ingestion.validation import Batch


class Accepted(dg.Config):
    """What a person lets pass although it breaks the table's limits.

    accept: by arrival, as the failure says it, who accepts it and why. A file that is sent again is another arrival.
    """

    accept: dict[str, str] = {}  # noqa: RUF012 (read by pydantic, which copies it)


def landed(table: LandedTable, **options: Any) -> dg.AssetsDefinition:
    """The asset `<warehouse_schema>/<name>`: a range of days is one step, and a file that cannot be taken fails its own
    day only. What breaks the table's limits is not stored until a person accepts it: the table keeps what it had.

    Args:
        options: of `dg.asset`, such as owners, tags, group_name or pool.
    """

    def raw(
        context: dg.AssetExecutionContext,
        config: Accepted,
        landing: LandingZone,
        warehouse: dg.ResourceParam[Warehouse],
    ) -> dg.MaterializeResult:
        return _ingest(context, table, landing, warehouse, config)

    usual = {"group_name": "raw", "pool": "warehouse", "retry_policy": retries.io, "kinds": {"csv"}}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", dg.BetaWarning)  # of backfill policies, which are used on purpose
        return dg.asset(
            key=table.key,
            partitions_def=table.by,
            backfill_policy=dg.BackfillPolicy.single_run(),  # a backfill of days takes along what has none
            description=f"{table.description} One row per line of the landed files that keeps to the schema.",
            metadata={"partition_expr": table.day} if table.day else {},
            code_version=table.code_version(),
            **(usual | options),
        )(raw)


def newest_files(landing: LandingZone, table: str) -> dict[str | None, LandedFile]:
    """The table's landed files by partition (None for a table that lands whole)."""
    return {file.partition: file for file in landing.files(table)}


def read(table: LandedTable, files: Sequence[LandedFile], landing: LandingZone) -> "Batch":
    """Everything that these landed files hold."""
    from resources.ingestion.validation import read_files  # and pandera: for the processes that read files

    with ThreadPoolExecutor(8) as readers:  # one after another, hundreds of objects take long on S3
        contents = list(readers.map(lambda file: landing.read(file.table, file.name), files))
    return read_files(table, [(f.name, f.partition, data) for f, data in zip(files, contents, strict=True)])


def _ingest(
    context: dg.AssetExecutionContext, table: LandedTable, landing: LandingZone, warehouse: Warehouse, config: Accepted
) -> dg.MaterializeResult:
    name = table.key.to_user_string()
    wanted: list[str | None] = list(context.partition_keys) if table.by else [None]
    files = newest_files(landing, table.name)
    paths = {partition: landing.path_of(table.name, file_name(table.name, partition)) for partition in wanted}
    missing = [partition for partition in wanted if partition not in files]
    if missing:
        landing.check_there()  # what is only not mounted may be back when the step is tried again
    batch = read(table, [files[partition] for partition in wanted if partition in files], landing)
    readable = [partition for partition in wanted if partition in batch.counts]
    stored = store(warehouse, table, batch, readable, acceptance(context.instance, table, files, config.accept))
    good = [partition for partition in readable if partition not in stored.refused]
    if rejected := sum(batch.counts[partition].rejected for partition in good):
        context.log.warning(f"{name}: {rejected} rows were set aside in {table.rejected}")

    parts = by_partition(batch.arrow, [table.day], [day for day in good if day]) if table.by else {}
    versions = {day: data_version(rows) for day, rows in parts.items()}
    details = {
        partition: {
            "rejected_rows": batch.counts[partition].rejected,
            "landed_file": paths[partition],
            "arrived_ns": str(files[partition].arrived_ns),
            "arrival": files[partition].arrival,
            **({"dagster/partition_row_count": batch.counts[partition].rows} if partition else {}),
            **stored.accepted.get(partition, {}),
        }
        for partition in good
    }
    failures = [str(error) for error in batch.unreadable]
    failures += [
        refusal(table, paths[partition], files[partition].arrival, how, batch.commonest.get(partition, []))
        for partition, how in stored.refused.items()
    ]
    failures += [f"nothing has landed at {paths[partition]}" for partition in missing]
    if failures and not table.by:
        raise dg.Failure(f"{name}: {failures[0]}", allow_retries=False)
    if failures:
        # The good days are stored: say so one by one, then fail for the others, which keep what they had.
        for day, version in versions.items():
            tags = {"dagster/data_version": version}
            context.log_event(dg.AssetMaterialization(table.key, partition=day, metadata=details[day], tags=tags))
        raise dg.Failure(
            f"{name}: {len(failures)} of {len(wanted)} days cannot be taken; the other {len(good)} are stored.\n"
            + "\n".join(failures[:20]),
            allow_retries=False,
        )
    with warehouse.transaction() as transaction:
        count = transaction.count(table.accepted)
    metadata = {"dagster/row_count": count, "dagster/column_schema": column_schema(batch.arrow.schema)}
    if not table.by:
        version = dg.DataVersion(data_version(batch.arrow))
        return dg.MaterializeResult(data_version=version, metadata=metadata | details[None])
    for day in versions:
        context.add_asset_metadata(details[day], partition_key=day)
    set_data_versions(context, table.key, versions)
    return dg.MaterializeResult(metadata=metadata)
