"""Partitions that a step leaves with nearly no rows where there were some: seldom meant, and easily overlooked."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from tilth._dagster.event_log import NO_PARTITION, event_numbers
from tilth.versioning.inputs import LISTED

NEARLY_NOTHING = 0.1
ROW_COUNTS = ("dagster/partition_row_count", "dagster/row_count")


def say_emptied(
    context: dg.AssetExecutionContext | dg.OutputContext, key: dg.AssetKey, counts: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Warn, in the step's log, of partitions with less than a tenth of the rows that they had when last recorded.

    Args:
        counts: by partition, `NO_PARTITION` for an asset without any, the rows that it has now.

    Returns:
        By such partition, metadata that says so.
    """
    instance = context.step_context.instance if isinstance(context, dg.OutputContext) else context.instance
    numbers = event_numbers(instance, key)
    known = [numbers[partition] for partition in counts if partition in numbers]
    had: dict[str, int] = {}
    for start in range(0, len(known), LISTED):
        some = known[start : start + LISTED]
        records = instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=some), limit=len(some)).records
        for event in (record.asset_materialization for record in records):
            count = (
                next((event.metadata[name].value for name in ROW_COUNTS if name in event.metadata), 0) if event else 0
            )
            partition = event.partition or NO_PARTITION if event else ""
            if isinstance(count, int) and counts[partition] < NEARLY_NOTHING * count:
                had[partition] = count
    for partition, rows in sorted(had.items()):
        name = " ".join([key.to_user_string(), partition]).strip()
        context.log.warning(
            f"{name} has {counts[partition]} rows now and had {rows}. If that is not meant, look at what it was "
            "made from, and make it again."
        )
    return {partition: {"emptied_of_rows": rows} for partition, rows in had.items()}
