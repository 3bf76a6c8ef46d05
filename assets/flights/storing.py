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

from assets.flights import partitions as by
from resources.landing import LandedFile
from resources.limits import weekdays_before
from resources.warehouse import Transaction, Warehouse, condition

if TYPE_CHECKING:
    from assets.flights.intake import Intake


def raw_key(table: str) -> dg.AssetKey:
    """The asset of a raw table."""
    return dg.AssetKey(["raw", table])


class Accepted(dg.Config):
    """What a person lets pass although it breaks the table's limits.

    accept: by arrival, as the failure says it, who accepts it and why. A file that is sent again is another arrival.
    """

    accept: dict[str, str] = {}  # noqa: RUF012 (read by pydantic, which copies it)


@dataclass(frozen=True)
class Passed:
    """By partition that breaks the table's limits: how, where it was not stored; where it was, who accepted it."""

    refused: dict[str | None, list[str]]
    accepted: dict[str | None, dict[str, str]]


def store(
    warehouse: Warehouse,
    table: str,
    intake: "Intake",
    days: Sequence[str] | None,
    word_for: Callable[[str | None], str] = lambda partition: "",  # noqa: ARG005
) -> Passed:
    """Put what was read in place of these days' rows, accepted and rejected ones in one transaction.

    Days that break the table's limits keep what they had, unless a person's word for their arrival is found.
    """
    column = by.DAY_COLUMNS.get(table)
    passed = Passed({}, {})
    with warehouse.transaction() as transaction:
        for partition, how in _broken(transaction, table, intake, [None] if days is None else days).items():
            if word := word_for(partition):
                passed.accepted[partition] = {"accepted": word, "accepted_although": "; ".join(how)}
            else:
                passed.refused[partition] = how
        rows, rejected = intake.arrow, intake.rejected
        if days is None or column is None:
            if not passed.refused:
                transaction.replace(f"raw.{table}", rows)
                transaction.replace(f"raw_rejected.{table}", rejected)
            return passed
        good = [day for day in days if day not in passed.refused]
        if passed.refused:
            stored = pa.array(good, pa.string())
            rows = rows.filter(pc.field(column).cast(pa.string()).isin(stored))
            rejected = rejected.filter(pc.field("partition_day").cast(pa.string()).isin(stored))
        transaction.replace(f"raw.{table}", rows, column, good)
        transaction.replace(f"raw_rejected.{table}", rejected, "partition_day", good)
    return passed


def _broken(
    transaction: Transaction, table: str, intake: "Intake", partitions: Sequence[str | None]
) -> dict[str | None, list[str]]:
    """By partition that breaks the table's limits, how."""
    from assets.flights.schemas import LIMITS

    held, found = _held(transaction, table, partitions), {}
    for partition in sorted(partitions, key=str):
        count = intake.counts[partition]
        weekdays = [held.get(day, 0) for day in weekdays_before(partition)] if partition else []
        if how := LIMITS[table].broken(count.rows, count.rejected, held.get(partition, 0), weekdays):
            found[partition] = how
        else:
            held[partition] = count.rows  # which the next weeks of a batch are compared with
    return found


def _held(transaction: Transaction, table: str, partitions: Sequence[str | None]) -> dict[str | None, int]:
    """The rows that the table holds of these partitions and of the same weekdays before them."""
    if not transaction.exists(name := f"raw.{table}"):
        return {}
    days = {day for partition in partitions if partition for day in (partition, *weekdays_before(partition))}
    if not days:
        return {None: transaction.count(name)}
    column = by.DAY_COLUMNS[table]
    query = f"SELECT {column} AS day, count(*) AS rows FROM {name} WHERE {condition(column, [*days])} GROUP BY 1"  # noqa: S608
    counted = transaction.read(query)
    return {str(row["day"]): row["rows"] for row in counted.to_pylist()}


def words(
    context: dg.AssetExecutionContext, table: str, landed: Mapping[str | None, LandedFile], config: Accepted
) -> Callable[[str | None], str]:
    """By partition, who accepted its present arrival and why, in this run or an earlier one; empty if nobody did."""

    def word(partition: str | None) -> str:
        arrival = landed[partition].arrival
        if arrival in config.accept:
            return config.accept[arrival] or "accepted"
        asked = dg.AssetRecordsFilter(raw_key(table), asset_partitions=[partition] if partition else None)
        for record in context.instance.fetch_materializations(asked, limit=1).records:
            metadata = event.metadata if (event := record.asset_materialization) else {}
            if "accepted" in metadata and metadata["arrival"].value == arrival:
                return str(metadata["accepted"].value)
        return ""

    return word


def refusal(table: str, path: str, arrival: str, how: Sequence[str], commonest: Sequence[str]) -> str:
    """Why an arrival was not stored, and what to do."""
    config = {"ops": {"__".join(raw_key(table).path): {"config": {"accept": {arrival: "<who, and why>"}}}}}
    return "\n".join(
        [
            f"{path}: {'; '.join(how)}. The table keeps what it had.",
            *(f"  {reason}" for reason in commonest),
            "  Have the feed send it again. If it is right as it is, run this partition with the config "
            + json.dumps(config),
        ]
    )
