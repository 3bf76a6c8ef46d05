"""Partitions that a step leaves with nearly no rows where there were some: seldom meant, and easily overlooked."""

from collections.abc import Mapping
from typing import Any

import dagster as dg

from tilth._dagster.event_log import event_numbers, materializations
from tilth._dagster.step_events import step_of

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
    instance = step_of(context).instance
    numbers = event_numbers(instance, key)
    had: dict[str, int] = {}
    for made in materializations(instance, key, [numbers[p] for p in counts if p in numbers]):
        count = next((made.value(name) for name in ROW_COUNTS if name in made.metadata), 0)
        if isinstance(count, int) and counts[made.partition] < NEARLY_NOTHING * count:
            had[made.partition] = count
    for partition, rows in sorted(had.items()):
        name = " ".join([key.to_user_string(), partition]).strip()
        context.log.warning(
            f"{name} has {counts[partition]} rows now and had {rows}. If that is not meant, look at what it was "
            "made from, and make it again."
        )
    return {partition: {"emptied_of_rows": rows} for partition, rows in had.items()}
