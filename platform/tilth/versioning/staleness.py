"""Which partitions of an asset are late: since when something has been there that it does not hold yet, and for which
upstream it waits.

The event log says which partitions are there, and which versions of their inputs they were made from
(`tilth.versioning.inputs`). A partition is late

- of an asset without inputs: since its arrival, when the domain says that one waits;
- of any other: when a partition that it reads is late, when it was made from other versions than those there now, or
  when it was never made though all that it reads is there or late. While something that it reads is neither, it waits
  for data and is not late: a month is not, whose days have not all come.

Its lag counts from the oldest arrival that it does not hold; of one never made, from when the last came of what it
needs. An arrival is followed through what has been made of it already, back to the materialization that first read it,
so that a step forward does not start the lag anew. Content that is made again and is the same makes nothing late.

The reconciler answers another question, which partitions a run would make anew now, from their direct inputs and what
changed since its last tick, while here each is followed to the arrival that it waits for, whoever fails to make it.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph
from tilth.versioning.recorded import Memory, Pair, Recorded

Arrivals = Mapping[dg.AssetKey, Mapping[str, float]]
"""By asset and partition, since when (seconds of the epoch) something is there that the asset does not hold yet."""


@dataclass(frozen=True)
class Late:
    """Since when (seconds of the epoch) a partition is late, and for which one it waits: itself, or one upstream."""

    since: float
    cause: Pair


LatePartitions = dict[dg.AssetKey, dict[str, Late]]


def late_partitions(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    assets: Sequence[dg.AssetKey],
    arrivals: Arrivals,
    ignored: dg.AssetSelection | None = None,
    memory: Memory | None = None,
) -> LatePartitions:
    """By asset, its late partitions; arguments as of `partition_lag_checks`.

    Raises:
        ValueError: an asset that the graph does not have.
    """
    if unknown := [key.to_user_string() for key in assets if key not in graph]:
        raise ValueError(f"Partition lag of {', '.join(unknown)}: the definitions hold no such asset; correct its key.")
    above, left = set(assets), list(assets)
    while left:
        new = graph.parents(left.pop()) - above
        above |= new
        left += new
    keys = [key for key in graph.keys if key in above]
    left_out = graph.resolve(ignored, allow_missing=True) if ignored else set()
    late: LatePartitions = {}
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        log = Recorded(instance, graph, keys, left_out, memory or Memory())
        for key in keys:
            if graph.parents(key) <= {key}:
                late[key] = {partition: Late(at, (key, partition)) for partition, at in arrivals.get(key, {}).items()}
            else:
                late[key] = _late_of(log, key, late)
    return {key: late[key] for key in assets}


def _late_of(log: Recorded, key: dg.AssetKey, late: LatePartitions) -> dict[str, Late]:
    """The late partitions of an asset with inputs, when those of its inputs are known."""
    optional, lookups = log.optional(key), log.lookups(key)
    made, recorded = log.numbers[key], log.recorded(key)
    # By partition, what is late above it; and what it does not hold: sets of partitions, each complete with its newest.
    behind: dict[str, list[Late]] = {}
    lacking: dict[str, list[list[Pair]]] = {}
    for partition, read in log.reads(key).items():
        pairs = [(parent, p) for parent, parts in read.items() for p in parts]
        there = {pair for pair in pairs if pair[1] in log.numbers[pair[0]]}
        # What may be absent and is only looked up keeps nobody waiting.
        awaited = [pair for pair in pairs if pair[0] not in optional or pair[0] not in lookups]
        coming = {pair: late[pair[0]][pair[1]] for pair in awaited if pair[1] in late[pair[0]]}
        needed = [pair for pair in pairs if pair[0] not in optional]
        if not (there or coming) or any(pair not in there and pair not in coming for pair in needed):
            continue
        if partition in made:
            behind[partition] = [one for pair, one in coming.items() if pair[0] not in lookups]
            lacking[partition] = log.changed(read, recorded.get(partition, {}), lookups)
        else:
            behind[partition] = [one for pair, one in coming.items() if pair not in there or pair[0] not in lookups]
            lacking[partition] = [needed] if needed else [[pair] for pair in {*there, *coming}]
    first = log.times((pair for p, sets in lacking.items() if p not in made for s in sets for pair in s), first=True)
    came = log.times((pair for p, sets in lacking.items() if p in made for s in sets for pair in s), first=False)

    found: dict[str, Late] = {}
    for partition, sets in lacking.items():
        above = min(behind[partition], key=lambda one: one.since, default=None)
        if partition in made:
            since = [max(came[pair] for pair in s) for s in sets] + ([above.since] if above else [])
        else:
            # A partition that is not there yet has no time of its own.
            since = [max(first.get(pair) or late[pair[0]][pair[1]].since for pair in s) for s in sets]
        if since:
            found[partition] = Late(min(since), above.cause if above else (key, partition))
    return found
