"""What past runs say of how long a step takes: the seconds and CPU seconds of an op by how many partitions it made."""

import statistics
from collections import defaultdict
from collections.abc import Callable, Collection, Iterable, Sequence
from dataclasses import dataclass
from itertools import combinations

import dagster as dg

from tilth._dagster.run_stats import StepStats, runs_that_made, step_stats

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


def past_work(instance: dg.DagsterInstance, ops: Iterable[Op]) -> dict[Op, list[Work]]:
    """Of each op its work in the newest runs that made an asset of it, and in the one that made the most partitions;
    of steps that succeeded.
    """
    runs_of = {op: set[str]().union(*(_runs(instance, key) for key in op)) for op in ops}
    steps_of = {run: step_stats(instance, run) for run in set[str]().union(*runs_of.values())}
    return {op: [found for run in runs if (found := _work(op, steps_of[run]))] for op, runs in runs_of.items()}


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
    sizes = runs_that_made(instance, key, limit=_MATERIALIZATIONS)
    # A day's runs say little of what a year takes, and would soon be the only ones looked at.
    return [run for run, _ in [*[*sizes.items()][:_RUNS], *sizes.most_common(1)]]


def _work(op: Collection[dg.AssetKey], steps: Sequence[StepStats]) -> Work | None:
    made: dict[dg.AssetKey, list[dg.AssetMaterialization]] = defaultdict(list)
    nodes = set()
    for step in (step for step in steps if step.seconds is not None):
        for materialization in step.materializations:
            if materialization.asset_key in op:
                made[materialization.asset_key].append(materialization)
                nodes.add(_node(step))
    if not made:
        return None
    cpu = [_cpu_seconds(of_asset) for of_asset in made.values()]
    return Work(
        partitions=max(len({one.partition for one in of_asset}) for of_asset in made.values()),
        seconds=sum(step.seconds or 0.0 for step in steps if _node(step) in nodes),
        # Each asset of a multi-asset carries what the whole step had used when it was stored: the last one the most.
        cpu_seconds=None if None in cpu else max(seconds for seconds in cpu if seconds is not None),
    )


def _node(step: StepStats) -> str:
    return step.key.partition(".")[0]  # of an asset made by a graph, several steps


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
