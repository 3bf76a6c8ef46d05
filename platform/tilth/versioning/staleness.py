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

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from typing import cast

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, Reads
from tilth._dagster.event_log import (
    Materialization,
    event_numbers,
    newest_materializations,
    newest_number,
    present_versions,
)
from tilth.versioning.inputs import (
    ALL,
    INPUTS,
    Inputs,
    inputs_of,
    optional_inputs,
    recorded_inputs,
    reference_inputs,
)

Arrivals = Mapping[dg.AssetKey, Mapping[str, float]]
"""By asset and partition, since when (seconds of the epoch) something is there that the asset does not hold yet."""

Pair = tuple[dg.AssetKey, str]
"""An asset and one of its partitions."""

# Materializations of a partition, on average, that are looked through for the one that brought its present content, and
# of a single one that has more.
_HISTORY = 20
_LONG_HISTORY = 1000


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
    memory: "Memory | None" = None,
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
        log = _Log(instance, graph, keys, left_out, memory or Memory())
        for key in keys:
            if graph.parents(key) <= {key}:
                late[key] = {partition: Late(at, (key, partition)) for partition, at in arrivals.get(key, {}).items()}
            else:
                late[key] = _late_of(log, key, late)
    return {key: late[key] for key in assets}


def _late_of(log: "_Log", key: dg.AssetKey, late: LatePartitions) -> dict[str, Late]:
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


@dataclass
class Memory:
    """What this process has read before of latest materializations, beside the numbers by which it holds."""

    newest: int = 0
    reads: dict[dg.AssetKey, tuple[list[Sequence[str]], dict[str, Reads]]] = field(default_factory=dict)
    versions: dict[dg.AssetKey, tuple[dict[str, int], dict[str, str]]] = field(default_factory=dict)
    inputs: dict[Pair, tuple[int, Inputs]] = field(default_factory=dict)
    histories: dict[Pair, tuple[int, list[Materialization]]] = field(default_factory=dict)


class _Log:
    """What the event log says of these assets now."""

    def __init__(
        self,
        instance: dg.DagsterInstance,
        graph: AssetGraph,
        keys: Sequence[dg.AssetKey],
        ignored: AbstractSet[dg.AssetKey],
        memory: Memory,
    ) -> None:
        self._instance, self._graph, self._ignored, self._memory = instance, graph, ignored, memory
        newest = newest_number(instance)
        if newest < memory.newest:  # of another log, whose numbers say nothing here
            for known in (memory.reads, memory.versions, memory.inputs, memory.histories):
                known.clear()
        memory.newest = newest
        self.numbers = {key: event_numbers(instance, key) for key in keys}
        self._versions = {key: self._present(key) for key in keys}
        self._times: dict[bool, dict[Pair, float]] = {True: {}, False: {}}

    def _present(self, key: dg.AssetKey) -> dict[str, str]:
        numbers, versions = self._memory.versions.get(key, ({}, {}))
        if numbers != self.numbers[key]:
            found = present_versions(self._instance, key)
            versions = {p: version for p, version in found.items() if p in self.numbers[key]}
            self._memory.versions[key] = self.numbers[key], versions
        return versions

    def optional(self, key: dg.AssetKey) -> AbstractSet[dg.AssetKey]:
        """The inputs whose absent partitions hold nothing back."""
        return optional_inputs(self._graph, key) | self._ignored

    def lookups(self, key: dg.AssetKey) -> AbstractSet[dg.AssetKey]:
        """The inputs whose new content makes nothing late."""
        return reference_inputs(self._graph, key) | self._ignored

    def reads(self, key: dg.AssetKey) -> dict[str, Reads]:
        """By partition, what it reads of other assets."""
        cut = [self._graph.partition_keys(k) for k in (key, *sorted(self._graph.parents(key)))]
        known, reads = self._memory.reads.get(key, ([], {}))
        if known != cut:
            reads = self._graph.reads(key, cut[0])
            for read in reads.values():
                read.pop(key, None)
            self._memory.reads[key] = cut, reads
        return reads

    def recorded(self, key: dg.AssetKey) -> dict[str, Inputs]:
        """By partition, what its latest materialization was made from."""
        known, numbers = self._memory.inputs, self.numbers[key]
        new = [p for p, number in numbers.items() if known.get((key, p), (0,))[0] != number]
        found = recorded_inputs(self._instance, key, [numbers[p] for p in new])
        known.update({(key, p): (numbers[p], found.get(p, {})) for p in new})
        return {p: known[key, p][1] for p in numbers}

    def changed(
        self, read: Mapping[dg.AssetKey, Sequence[str]], recorded: Inputs, lookups: AbstractSet[dg.AssetKey]
    ) -> list[list[Pair]]:
        """What is there in another version than the recorded one, each by itself; all of it where one hash is kept."""
        sets: list[list[Pair]] = []
        judged = {parent: parts for parent, parts in read.items() if parent not in lookups}
        for parent, present in zip(judged, inputs_of(judged, self._versions).values(), strict=True):
            before = recorded.get(parent.to_user_string())
            if before is None or before == present:
                continue
            if ALL in present or ALL in before:
                sets.append([(parent, p) for p in judged[parent] if p in self._versions[parent]])
            else:
                sets += [[(parent, p)] for p, version in present.items() if before.get(p) != version]
        return [pairs for pairs in sets if pairs]

    def times(self, pairs: Iterable[Pair], *, first: bool) -> Mapping[Pair, float]:
        """Since when each has its present content, or when it `first` had any: when what it was made from came.

        What is not there is left out.
        """
        known, unknown = self._times[first], defaultdict(set)
        for key, partition in pairs:
            if (key, partition) not in known and partition in self.numbers.get(key, {}):
                unknown[key].add(partition)
        for key, partitions in unknown.items():
            histories = self._histories(key, sorted(partitions))
            events = {p: made[-1 if first else _began(made)] for p, made in histories.items()}
            known.update({(key, p): event.timestamp for p, event in events.items()})
            lookups = self.lookups(key)
            causes = {p: self._brought_by(made, first, lookups) for p, made in histories.items()}
            brought = {p: [pair for pair in pairs if pair[0] != key] for p, pairs in causes.items()}
            self.times((pair for pairs in brought.values() for pair in pairs), first=first)
            for p, pairs in brought.items():
                newest = max((known.get(pair, math.inf) for pair in pairs), default=math.inf)
                known[key, p] = min(events[p].timestamp, newest)
        return known

    def _brought_by(
        self, made: Sequence[Materialization], first: bool, lookups: AbstractSet[dg.AssetKey]
    ) -> list[Pair]:
        """The inputs that came or changed with the present content; none where something else did, such as code."""
        began = len(made) - 1 if first else _began(made)
        now, before = _inputs(made[began]), _inputs(made[began + 1]) if began + 1 < len(made) else None
        changed = [
            (dg.AssetKey.from_user_string(name), p)
            for name, versions in now.items()
            for p, version in versions.items()
            if before is None or (name in before and before[name].get(p) != version)
        ]
        if any(p == ALL for _, p in changed):
            return []
        return changed if first else [pair for pair in changed if pair[0] not in lookups]

    def _histories(self, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, list[Materialization]]:
        """Of each partition, its materializations, newest first."""
        known, numbers = self._memory.histories, self.numbers[key]
        new = [p for p in partitions if known.get((key, p), (0,))[0] != numbers[p]]
        limit = _HISTORY * len(new)
        if new and self._read(key, new, limit) == limit:
            for p in new:  # those of one may have crowded out those of another
                self._read(key, [p], _LONG_HISTORY)
        return {p: known[key, p][1] for p in partitions if known[key, p][1]}

    def _read(self, key: dg.AssetKey, partitions: Sequence[str], limit: int) -> int:
        read: dict[str, list[Materialization]] = {p: [] for p in partitions}
        found = newest_materializations(self._instance, key, partitions, limit=limit)
        for made in found:
            if made.partition in read:
                # No more than is asked of it: it is remembered as long as the process lives.
                inputs = {INPUTS: made.metadata[INPUTS]} if INPUTS in made.metadata else {}
                read[made.partition].append(replace(made, metadata=inputs))
        self._memory.histories.update({(key, p): (self.numbers[key][p], made) for p, made in read.items()})
        return len(found)


def _inputs(made: Materialization) -> Inputs:
    return cast(Inputs, made.value(INPUTS) or {})


def _began(made: Sequence[Materialization]) -> int:
    """Of materializations, newest first, the place of the oldest of those with the same content as the newest."""
    return next((n for n in range(1, len(made)) if made[n].version != made[0].version), len(made)) - 1
