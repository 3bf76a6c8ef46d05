"""What was read of landed files into its tables, unless it breaks their limits: then they keep what they had.

A person may accept an arrival as it is; that is recorded, and holds until the file is sent again.
"""

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc

from resources.ingestion.limits import weekdays_before
from resources.ingestion.tables import LandedTable
from resources.landing_files import LandedFile
from resources.warehouse import Transaction, Warehouse, condition
from resources.warehouse_types import quoted

if TYPE_CHECKING:
    from resources.ingestion.validation import Batch


@dataclass(frozen=True)
class Stored:
    """By partition that breaks the table's limits: how, where it was refused; where it was stored, who accepted it."""

    refused: dict[str | None, list[str]]
    accepted: dict[str | None, dict[str, str]]


def store(
    warehouse: Warehouse,
    table: LandedTable,
    batch: "Batch",
    partitions: Sequence[str | None],
    accepted_by: Callable[[str | None], str] = lambda partition: "",  # noqa: ARG005
) -> Stored:
    """Put what was read in place of these partitions' rows, accepted and rejected ones in one transaction.

    Partitions that break the table's limits keep what they had, unless `accepted_by` says who accepts their arrival.
    """
    stored = Stored({}, {})
    if not partitions:
        return stored
    with warehouse.transaction() as transaction:
        for partition, how in _broken(transaction, table, batch, partitions).items():
            if word := accepted_by(partition):
                stored.accepted[partition] = {"accepted": word, "accepted_although": "; ".join(how)}
            else:
                stored.refused[partition] = how
        rows, rejected = batch.arrow, batch.rejected
        if table.by is None:
            if not stored.refused:
                transaction.replace(table.accepted, rows)
                transaction.replace(table.rejected, rejected)
            return stored
        good = [day for day in partitions if day and day not in stored.refused]
        if stored.refused:
            kept = pa.array(good, pa.string())
            rows = rows.filter(pc.field(table.day).cast(pa.string()).isin(kept))
            rejected = rejected.filter(pc.field("partition_day").cast(pa.string()).isin(kept))
        transaction.replace(table.accepted, rows, table.day, good)
        transaction.replace(table.rejected, rejected, "partition_day", good)
    return stored


def _broken(
    transaction: Transaction, table: LandedTable, batch: "Batch", partitions: Sequence[str | None]
) -> dict[str | None, list[str]]:
    """By partition that breaks the table's limits, how."""
    held, found = _held(transaction, table, partitions), {}
    for partition in sorted(partitions, key=str):
        count = batch.counts[partition]
        weekdays = [held.get(day, 0) for day in weekdays_before(partition)] if partition else []
        if how := table.limits.broken(count.rows, count.rejected, held.get(partition, 0), weekdays):
            found[partition] = how
        else:
            held[partition] = count.rows  # which the next weeks of a batch are compared with
    return found


def _held(transaction: Transaction, table: LandedTable, partitions: Sequence[str | None]) -> dict[str | None, int]:
    """The rows that the table holds of these partitions and of the same weekdays before them."""
    if not transaction.exists(table.accepted):
        return {}
    if table.by is None:
        return {None: transaction.count(table.accepted)}
    days = {day for partition in partitions if partition for day in (partition, *weekdays_before(partition))}
    column, rows_of = quoted(table.day), ".".join(map(quoted, table.key.path))
    where = condition(table.day, [*days])
    query = f"SELECT {column} AS day, count(*) AS rows FROM {rows_of} WHERE {where} GROUP BY 1"  # noqa: S608
    counted = transaction.read(query)
    return {str(row["day"]): row["rows"] for row in counted.to_pylist()}


def acceptance(
    instance: dg.DagsterInstance,
    table: LandedTable,
    landed: Mapping[str | None, LandedFile],
    accept: Mapping[str, str],
) -> Callable[[str | None], str]:
    """By partition, who accepted its present arrival and why, in this run or an earlier one; empty if nobody did."""

    def accepted_by(partition: str | None) -> str:
        arrival = landed[partition].arrival
        if arrival in accept:
            return accept[arrival] or "accepted"
        latest = dg.AssetRecordsFilter(table.key, asset_partitions=[partition] if partition else None)
        for record in instance.fetch_materializations(latest, limit=1).records:
            metadata = event.metadata if (event := record.asset_materialization) else {}
            if "accepted" in metadata and metadata["arrival"].value == arrival:
                return str(metadata["accepted"].value)
        return ""

    return accepted_by


def refusal(table: LandedTable, path: str, arrival: str, how: Sequence[str], commonest: Sequence[str]) -> str:
    """Why an arrival was not stored, and what to do."""
    config = {"ops": {"__".join(table.key.path): {"config": {"accept": {arrival: "<who, and why>"}}}}}
    return "\n".join(
        [
            f"{path}: {'; '.join(how)}. The table keeps what it had.",
            *(f"  {reason}" for reason in commonest),
            "  Have the feed send it again. If it is right as it is, run this partition with the config "
            + json.dumps(config),
        ]
    )
