"""Partitions that a step leaves without rows where there were some: seldom meant, and easily overlooked."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from tilth.input_versions import LISTED, NO_PARTITION, event_numbers

ROW_COUNTS = ("dagster/partition_row_count", "dagster/row_count")


def say_emptied(
    context: dg.AssetExecutionContext | dg.OutputContext, key: dg.AssetKey, counts: Mapping[str, int]
) -> dict[str, dict[str, Any]]:
    """Warn, in the step's log, of partitions that have no rows now and had some when they were last recorded.

    Args:
        counts: by partition, `NO_PARTITION` for an asset without any, the rows that it has now.

    Returns:
        By such partition, metadata that says so.
    """
    empty = [partition for partition, count in counts.items() if not count]
    instance = context.step_context.instance if isinstance(context, dg.OutputContext) else context.instance
    numbers = event_numbers(instance, key) if empty else {}
    known = [numbers[partition] for partition in empty if partition in numbers]
    had: dict[str, int] = {}
    for start in range(0, len(known), LISTED):
        some = known[start : start + LISTED]
        records = instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=some), limit=len(some)).records
        for event in (record.asset_materialization for record in records):
            count = (
                next((event.metadata[name].value for name in ROW_COUNTS if name in event.metadata), 0) if event else 0
            )
            if event and isinstance(count, int) and count:
                had[event.partition or NO_PARTITION] = count
    for partition, rows in sorted(had.items()):
        context.log.warning(
            f"{' '.join([key.to_user_string(), partition]).strip()} is empty now and had {rows} rows. If that is not "
            "meant, look at what it was made from, and make it again."
        )
    return {partition: {"emptied_of_rows": rows} for partition, rows in had.items()}
