"""Partitions as ranges, which Dagster runs as one run each."""

from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence

import dagster as dg

from tilth.partition_keys import joined, parts

RANGE_START, RANGE_END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"
PARTITION = "dagster/partition"


def range_tags(first: str, last: str) -> dict[str, str]:
    """The run tags by which Dagster runs a range of partitions in one run."""
    return {RANGE_START: first, RANGE_END: last}


def partitions_in(tags: Mapping[str, str], definition: dg.PartitionsDefinition | None) -> Collection[str]:
    """The partitions that a run with these tags makes of an asset; "" stands for the one of an asset without any.

    To be called in a `dg.partition_loading_context` of the instance, which keeps the keys of dynamic partitions; so is
    `ranges`.
    """
    if definition is None:
        return [""]
    first, last = (tags.get(tag) or tags.get(PARTITION, "") for tag in (RANGE_START, RANGE_END))
    if not definition.has_partition_key(first) or not definition.has_partition_key(last):
        return []
    return definition.get_partition_keys_in_range(dg.PartitionKeyRange(first, last))


def ranges(
    partitions: Iterable[str], definition: dg.PartitionsDefinition | None, most: int | None = None
) -> list[tuple[str, str]]:
    """The fewest ranges, first and last key, of at most `most` partitions that cover exactly these.

    Of two dimensions, a range is the product of a range of each: Dagster's reading of one.
    """
    wanted = set(partitions)
    if isinstance(definition, dg.MultiPartitionsDefinition):
        return _boxes(wanted, definition, most or len(wanted))
    return _runs(wanted, definition.get_partition_keys() if definition else sorted(wanted), most or len(wanted))


def _runs(wanted: set[str], order: Sequence[str], most: int) -> list[tuple[str, str]]:
    found: list[list[str]] = []
    extends = False
    for key in order:
        if key not in wanted:
            extends = False
        elif extends and len(found[-1]) < most:
            found[-1].append(key)
        else:
            found.append([key])
            extends = True
    return [(keys[0], keys[-1]) for keys in found]


def _boxes(wanted: set[str], definition: dg.MultiPartitionsDefinition, most: int) -> list[tuple[str, str]]:
    first, second = (dimension.partitions_def.get_partition_keys() for dimension in definition.partitions_defs)
    seconds_of: dict[str, list[str]] = defaultdict(list)
    for key in sorted(wanted):
        one, other = parts(key)
        seconds_of[one].append(other)
    firsts_of: dict[tuple[tuple[str, str], ...], list[str]] = defaultdict(list)
    width: dict[tuple[tuple[str, str], ...], int] = {}
    for one, others in seconds_of.items():
        spans = tuple(_runs(set(others), second, most))
        firsts_of[spans].append(one)
        width[spans] = max(second.index(end) - second.index(start) + 1 for start, end in spans)
    return [
        (joined(low, start), joined(high, end))
        for spans, firsts in firsts_of.items()
        for low, high in _runs(set(firsts), first, max(1, most // width[spans]))
        for start, end in spans
    ]
