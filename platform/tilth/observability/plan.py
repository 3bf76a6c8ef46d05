"""How long a backfill would take and what it would cost, by what past runs took, before anyone starts it.

`python -m tilth.observability.plan <definitions module> --select "<asset selection>" --partition-range FIRST...LAST`
prints it.
"""

import argparse
import importlib
import sys
from collections import defaultdict
from collections.abc import Collection, Hashable, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of
from tilth._dagster.event_log import NO_PARTITION
from tilth.observability.past_runs import Work, fitted, past_work


@dataclass(frozen=True)
class Op:
    """An op that makes some of the assets, the partitions that it makes of them (1 where there are none), and by `past`
    runs the seconds of wall clock and of CPU that it takes for all of them; None where no past run tells.
    """

    assets: tuple[str, ...]
    partitions: int
    past: tuple[Work, ...]
    seconds: float | None
    cpu_seconds: float | None


def plan(
    definitions: dg.Definitions, instance: dg.DagsterInstance, selection: str, partitions: tuple[str, str] | None = None
) -> list[Op]:
    """The ops of a backfill of the selection, upstream before downstream, and by past runs how long they take. It
    starts nothing.

    Args:
        selection: in Dagster's language, such as `group:raw` or `key:"raw/sales"+`.
        partitions: the first and last of the assets with partitions that the selection begins with; downstream of them
            the partitions count that read from these. None where no asset has partitions.

    Raises:
        ValueError: a selection that cannot be read, is empty or begins with different partitions; a range that is
            missing, not called for, reversed or not of the asset.
    """
    graph = graph_of(definitions)
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        targets = _targets(graph, _selected(graph, selection), partitions)
    ops: dict[Hashable, list[dg.AssetKey]] = defaultdict(list)
    for key in targets:
        ops[graph.op(key)].append(key)
    past = past_work(instance, [frozenset(keys) for keys in ops.values()])
    return [_op(graph, keys, targets, past[frozenset(keys)]) for keys in ops.values()]


def _selected(graph: AssetGraph, selection: str) -> set[dg.AssetKey]:
    try:
        found = graph.resolve(dg.AssetSelection.from_string(selection))
    except dg.DagsterError as error:
        why = str(error).rstrip(".")
        raise ValueError(
            f"The selection {selection!r} cannot be read ({why}). Write for example group:NAME, or "
            'key:"NAME"+ for an asset and all downstream of it, with "or" between.'
        ) from error
    if selected := {*found & graph.materializable}:
        return selected
    groups = sorted({graph.group(key) for key in graph.materializable})
    raise ValueError(
        f"The selection {selection!r} selects no asset that can be made. The groups are {', '.join(groups)}; "
        "`dg list defs --assets '...'` tries a selection."
    )


def _targets(
    graph: AssetGraph, selected: set[dg.AssetKey], partitions: tuple[str, str] | None
) -> dict[dg.AssetKey, Collection[str]]:
    """By asset, upstream before downstream, its partitions that are made; an asset of which none is left out."""
    cut = {key for key in selected if graph.partitions(key)}
    roots = sorted(key for key in cut if not graph.parents(key) & (cut - {key}))
    if not roots and partitions:
        named = ", ".join(sorted(key.to_user_string() for key in selected))
        raise ValueError(f"{named}: nothing that is selected has partitions; leave {partitions[0]!r} out.")
    for other in roots:
        if graph.partitions(other) != graph.partitions(roots[0]):
            raise ValueError(
                f"The selection begins with {roots[0].to_user_string()} and {other.to_user_string()}, whose partitions "
                "are not the same, so that no range is for both. Plan them, and backfill them, one after the other."
            )
    wanted = _range(roots[0].to_user_string(), graph.partitions(roots[0]), partitions) if roots else []
    made: dict[dg.AssetKey, Collection[str]] = {}
    for key in (key for key in graph.keys if key in selected):
        if key not in cut:
            made[key] = [NO_PARTITION]
        elif key in roots:
            made[key] = wanted
        elif reading := {
            p for parent in graph.parents(key) & made.keys() for p in graph.reading(key, parent, made[parent])
        }:
            made[key] = reading
    return made


def _range(asset: str, definition: dg.PartitionsDefinition | None, partitions: tuple[str, str] | None) -> list[str]:
    assert definition is not None  # noqa: S101 - of an asset with partitions
    there = definition.get_partition_keys()
    has = f"it has {len(there)}, {there[0]} to {there[-1]}" if there else "it has none yet"
    if partitions is None:
        raise ValueError(f"{asset} has partitions: {has}. Say which one, or the first and last of a range.")
    for partition in partitions:
        if partition not in there:
            raise ValueError(f"{asset} has no partition {partition!r}: {has}. Choose among those.")
    found = [*definition.get_partition_keys_in_range(dg.PartitionKeyRange(*partitions))]
    if not found:
        reversed_range = "...".join(partitions)
        raise ValueError(
            f"{asset}: the range {reversed_range} ends before it begins; give the earlier partition first."
        )
    return found


def _op(
    graph: AssetGraph, keys: list[dg.AssetKey], targets: Mapping[dg.AssetKey, Collection[str]], past: list[Work]
) -> Op:
    partitions = len({partition for key in keys for partition in targets[key]})
    runs, rest = divmod(partitions, graph.partitions_per_run(keys[0]) or partitions)

    def of_all(took: Sequence[tuple[int, float]]) -> float | None:
        of_one = fitted(took)
        if of_one is None:
            return None
        return runs * of_one(graph.partitions_per_run(keys[0]) or partitions) + (of_one(rest) if rest else 0.0)

    return Op(
        assets=tuple(key.to_user_string() for key in keys),
        partitions=partitions,
        past=tuple(past),
        seconds=of_all([(work.partitions, work.seconds) for work in past]),
        cpu_seconds=of_all([(work.partitions, work.cpu_seconds) for work in past if work.cpu_seconds is not None]),
    )


def _table(ops: Sequence[Op]) -> list[str]:
    """A line per op."""
    rows = [("assets", "partitions", "estimated", "from past runs, of partitions")]
    for op in ops:
        assets = op.assets[0] + (f" and {len(op.assets) - 1} more" if op.assets[1:] else "")
        took = "unknown" if op.seconds is None else _time(op.seconds)
        sizes = sorted({work.partitions for work in op.past})
        span = "" if not sizes else f", of {sizes[0]}" + (f" to {sizes[-1]}" if sizes[1:] else "")
        rows.append((assets, f"{op.partitions}", took, f"{len(op.past) or 'none'}{span}"))
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _sums(ops: Sequence[Op], price_per_hour: float | None) -> list[str]:
    known = [op.seconds for op in ops if op.seconds is not None]
    if not known:
        return ["duration  unknown: no past run made any of these assets", "Nothing was started."]
    unknown = [asset for op in ops if op.seconds is None for asset in op.assets]
    least, hours = "at least " if unknown else "", sum(known) / 3600
    lines = [f"duration  {least}{_time(sum(known))}, one step after another, and what runs take to start"]
    lines.append(f"cost      {least}{hours:.3g} machine-hours")
    if price_per_hour is not None:
        lines[-1] += f", {hours * price_per_hour:.2f} at {price_per_hour:g} an hour"
    cpu = [op.cpu_seconds for op in ops if op.cpu_seconds is not None]
    if cpu:
        lines[-1] += f"; {'' if len(cpu) == len(ops) else 'at least '}{sum(cpu) / 3600:.3g} CPU-hours"
    if unknown:
        lines.append(f"unknown   {', '.join(unknown)}: no past run made them")
    return [*lines, "Nothing was started."]


def _time(seconds: float) -> str:
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def main() -> None:
    """Print how long a backfill would take by past runs, and start nothing."""
    arguments = argparse.ArgumentParser(prog="python -m tilth.observability.plan", description=main.__doc__)
    arguments.add_argument("module", help="the module that holds the definitions, as `defs`")
    arguments.add_argument("--select", required=True, help="assets, such as 'key:\"raw/sales\"+' or group:raw")
    partitions = arguments.add_mutually_exclusive_group()
    partitions.add_argument("--partition", metavar="KEY", help="of the assets that the selection begins with")
    partitions.add_argument("--partition-range", metavar="FIRST...LAST", help="the same, both of them included")
    arguments.add_argument("--price-per-hour", type=float, help="of a machine that runs one step")
    given = arguments.parse_args()
    first, dots, last = (given.partition_range or "").partition("...")
    if given.partition_range is not None and not (first and dots and last):
        arguments.error(f"--partition-range {given.partition_range!r}: write FIRST...LAST, with three dots between.")
    wanted = (first, last) if dots else (given.partition, given.partition) if given.partition is not None else None
    definitions = importlib.import_module(given.module).defs
    with dg.DagsterInstance.get() as instance:
        try:
            planned = plan(definitions, instance, given.select, wanted)
        except ValueError as error:
            sys.exit(f"{error}")
    print("\n".join([*_table(planned), "", *_sums(planned, given.price_per_hour)]))


if __name__ == "__main__":
    main()
