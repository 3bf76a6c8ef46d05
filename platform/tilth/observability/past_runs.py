"""What past runs say of how long a step takes: the seconds and CPU seconds of an op by how many partitions it made.

How the event log keeps past runs is not Dagster's public API: docs/upgrading.md names this file.
"""

import statistics
from collections import Counter, defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import dagster as dg

# A past run's steps are read whole, so only of so many runs; they are found among this many materializations.
_RUNS, _MATERIALIZATIONS = 20, 2000
# So many times the smallest must the largest past run be for a start to be told from what each partition takes.
_SPREAD = 4

Op = frozenset[dg.AssetKey]
"""An op, by the assets of it that are looked at."""


@dataclass(frozen=True)
class Work:
    """What an op did in one past run: partitions made (1 where there are none), seconds of wall clock and of CPU.

    CPU seconds are those that its materializations carry (tilth.observability.usage, tilth.execution.partitions); None
    where not all do.
    """

    partitions: int
    seconds: float
    cpu_seconds: float | None


def past_work(instance: dg.DagsterInstance, ops: Iterable[Op]) -> tuple[dict[Op, list[Work]], float]:
    """Of each op its work in the newest runs that made an asset of it, and in the one that made the most partitions.

    Returns:
        The work, of steps that succeeded; and the seconds that runs took beside their steps, from the start of the
        run's process on: the median of those that succeeded whole, 0 where there is none.
    """
    runs_of = {op: set[str]().union(*(_runs(instance, key) for key in op)) for op in ops}
    runs = set[str]().union(*runs_of.values())
    steps_of = {run: instance.get_run_step_stats(run) for run in runs}
    beside = []
    for run, steps in steps_of.items():
        stats: Any = instance.get_run_stats(run)
        began = stats.launch_time or stats.start_time
        if began and stats.end_time and all(_succeeded(step) for step in steps):
            # Steps side by side may add up to more than the run took.
            beside.append(max(0.0, stats.end_time - began - sum(_seconds(step) for step in steps)))
    work = {op: [found for run in runs_of[op] if (found := _work(op, steps_of[run])) is not None] for op in runs_of}
    return work, statistics.median(beside) if beside else 0.0


def fitted(past: Sequence[tuple[int, float]]) -> Callable[[int], float] | None:
    """How much an op takes for so many partitions, by what it took for others; None where nothing is past.

    A start and so much per partition: the median slope between any two sizes (Theil and Sen), which one slow run does
    not move, and the median of what is then left.
    """
    if not past:
        return None
    sizes = [size for size, _ in past]
    largest = max(sizes)
    if largest < _SPREAD * min(sizes):
        # Runs of much the same size do not tell the start from the partitions. A plan had better say too much than too
        # little: fewer partitions take as long, more of them take longer in proportion.
        middle = statistics.median(took for _, took in past)
        return lambda partitions: middle * max(1.0, partitions / largest)
    slopes = [(b[1] - a[1]) / (b[0] - a[0]) for a, b in combinations(past, 2) if a[0] != b[0]]
    slope = max(0.0, statistics.median(slopes))
    start = max(0.0, statistics.median(took - slope * size for size, took in past))
    return lambda partitions: start + slope * partitions


def _runs(instance: dg.DagsterInstance, key: dg.AssetKey) -> list[str]:
    made = instance.get_asset_event_summary_records(
        dg.DagsterEventType.ASSET_MATERIALIZATION, asset_key=key, limit=_MATERIALIZATIONS
    )
    sizes = Counter(event.run_id for event in made if event.run_id)
    # A day's runs say little of what a year takes, and would soon be the only ones looked at.
    return [run for run, _ in [*[*sizes.items()][:_RUNS], *sizes.most_common(1)]]


def _succeeded(step: Any) -> bool:
    return step.status is not None and step.status.value == "SUCCESS" and bool(step.start_time and step.end_time)


def _seconds(step: Any) -> float:
    return step.end_time - step.start_time


def _work(op: Collection[dg.AssetKey], steps: Sequence[Any]) -> Work | None:
    made: dict[dg.AssetKey, list[dg.AssetMaterialization]] = defaultdict(list)
    nodes = set()
    for step in filter(_succeeded, steps):
        for event in step.materialization_events:
            materialization = event.asset_materialization
            if materialization and materialization.asset_key in op:
                made[materialization.asset_key].append(materialization)
                nodes.add(_node(step))
    if not made:
        return None
    cpu = [_cpu_seconds(of_asset) for of_asset in made.values()]
    return Work(
        partitions=max(len({one.partition for one in of_asset}) for of_asset in made.values()),
        seconds=sum(_seconds(step) for step in steps if _node(step) in nodes and _succeeded(step)),
        # Each asset of a multi-asset carries what the whole step had used when it was stored: the last one the most.
        cpu_seconds=None if None in cpu else max(seconds for seconds in cpu if seconds is not None),
    )


def _node(step: Any) -> str:
    return step.step_key.partition(".")[0]  # of an asset made by a graph, several steps


def _cpu_seconds(made: Sequence[dg.AssetMaterialization]) -> float | None:
    """Each partition of a step carries the whole step's seconds and its partitions; a batch's carry each its own."""
    total = 0.0
    for materialization in made:
        seconds, partitions = (
            value.value if (value := materialization.metadata.get(f"step/{name}")) else None
            for name in ("cpu_seconds", "partitions")
        )
        if not isinstance(seconds, int | float) or not isinstance(partitions, int) or partitions < 1:
            return None
        total += seconds / partitions
    return total
