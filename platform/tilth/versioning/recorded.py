"""What the event log says of assets at one time: what is there, of what it was made, and since when.

What holds by the number of an event is remembered, so that a tick after one new day reads one day.
"""

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace

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
    inputs_in,
    inputs_of,
    optional_inputs,
    recorded_inputs,
    reference_inputs,
)

Pair = tuple[dg.AssetKey, str]
"""An asset and one of its partitions."""

# Materializations of a partition, on average, that are looked through for the one that brought its present content, and
# of a single one that has more.
_HISTORY = 20
_LONG_HISTORY = 1000


@dataclass
class Memory:
    """What this process has read before of latest materializations, beside the numbers by which it holds."""

    newest: int = 0
    reads: dict[dg.AssetKey, tuple[list[Sequence[str]], dict[str, Reads]]] = field(default_factory=dict)
    versions: dict[dg.AssetKey, tuple[dict[str, int], dict[str, str]]] = field(default_factory=dict)
    inputs: dict[Pair, tuple[int, Inputs]] = field(default_factory=dict)
    histories: dict[Pair, tuple[int, list[Materialization]]] = field(default_factory=dict)


class Recorded:
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
        now, before = inputs_in(made[began]), inputs_in(made[began + 1]) if began + 1 < len(made) else None
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


def _began(made: Sequence[Materialization]) -> int:
    """Of materializations, newest first, the place of the oldest of those with the same content as the newest."""
    return next((n for n in range(1, len(made)) if made[n].version != made[0].version), len(made)) - 1
