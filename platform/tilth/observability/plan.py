"""What a backfill would be, before anyone starts it: runs, steps, pods, and by past runs how long and how much.

`python -m tilth.observability.plan <definitions module> --select "<asset selection>" --partition-range FIRST...LAST`
prints it.
"""

import argparse
import importlib
import sys
from collections import defaultdict
from dataclasses import dataclass
from typing import Any

import dagster as dg

from tilth.observability.backfill_runs import Group, backfill_runs
from tilth.observability.past_runs import Work, fitted, past_work


@dataclass(frozen=True)
class Op:
    """An op of a group's runs: in each run its steps and those of them with a pod of their own on Kubernetes, and by
    `past` runs the seconds of wall clock and of CPU, one figure per run of the group; None where no past run tells.
    """

    group: Group
    assets: tuple[str, ...]
    steps: int
    pods: int
    past: tuple[Work, ...]
    seconds: tuple[float, ...] | None
    cpu_seconds: tuple[float, ...] | None


@dataclass(frozen=True)
class Plan:
    """A backfill's runs and what they do; sums leave out what no past run tells.

    `run_seconds` is what a run takes beside its steps, `at_once` how many runs the instance lets run together (None
    without a limit), `left_out` by asset how many partitions Dagster's backfill leaves though they read from what
    it makes; 0 where it makes none of the asset.
    """

    groups: tuple[Group, ...]
    ops: tuple[Op, ...]
    run_seconds: float
    at_once: int | None
    left_out: dict[str, int]

    @property
    def runs(self) -> int:
        return sum(len(group.runs) for group in self.groups)

    @property
    def steps(self) -> int:
        return sum(len(op.group.runs) * op.steps for op in self.ops)

    @property
    def step_pods(self) -> int:
        """Pods on Kubernetes beside the one of each run."""
        return sum(len(op.group.runs) * op.pods for op in self.ops)

    @property
    def unknown(self) -> tuple[str, ...]:
        """Assets that no past run made."""
        return tuple(asset for op in self.ops if op.seconds is None for asset in op.assets)

    @property
    def step_seconds(self) -> float:
        return sum(sum(op.seconds or ()) for op in self.ops)

    @property
    def cpu_seconds(self) -> float | None:
        """None where no past materialization says how much CPU it took."""
        known = [sum(op.cpu_seconds) for op in self.ops if op.cpu_seconds is not None]
        return sum(known) if known else None

    def seconds(self, at_once: int = 1) -> float:
        """How long it takes with so many runs at once and the steps of a run one after another. With several this is
        the least: each stage's runs shared out evenly, but never less than its longest run.
        """
        stages: dict[int, list[float]] = defaultdict(list)
        for group in self.groups:
            ops = [op.seconds for op in self.ops if op.group is group and op.seconds is not None]
            stages[group.stage] += [
                self.run_seconds + sum(seconds[run] for seconds in ops) for run in range(len(group.runs))
            ]
        return sum(max(max(runs), sum(runs) / at_once) for runs in stages.values())


def plan(
    definitions: dg.Definitions, instance: dg.DagsterInstance, selection: str, partitions: tuple[str, str] | None = None
) -> Plan:
    """The runs that a backfill of the selection would be, and by past runs how long they take. It starts nothing.

    Args:
        selection: in Dagster's language, such as `group:raw` or `key:"raw/flights"+`.
        partitions: the first and last of the assets with partitions that the selection begins with; downstream of them
            the partitions that read from these are made, as by Dagster. None where no asset has partitions.

    Raises:
        ValueError: a selection that cannot be read, is empty or begins with different partitions; a range that is
            missing, not called for, reversed or not of the asset.
    """
    graph = definitions.resolve_asset_graph()
    selected = _selected(graph, selection)
    groups, left_out = backfill_runs(graph, instance, selected, partitions)
    ops = [(group, keys) for group in groups for keys in _ops(graph, group)]
    past, run_seconds = past_work(instance, [frozenset(keys) for _, keys in ops])
    queue = instance.get_concurrency_config().run_queue_config
    nothing_made = selected.difference(*(group.assets for group in groups))
    return Plan(
        groups=tuple(groups),
        ops=tuple(_op(graph, group, keys, past[frozenset(keys)]) for group, keys in ops),
        run_seconds=run_seconds,
        at_once=queue.max_concurrent_runs if queue and queue.max_concurrent_runs > 0 else None,
        left_out={key.to_user_string(): left_out.get(key, 0) for key in sorted({*left_out, *nothing_made})},
    )


def _selected(graph: Any, selection: str) -> set[dg.AssetKey]:
    try:
        found = dg.AssetSelection.from_string(selection).resolve(graph)
    except dg.DagsterError as error:
        why = str(error).rstrip(".")
        raise ValueError(
            f"The selection {selection!r} cannot be read ({why}). Write for example group:NAME, or "
            'key:"NAME"+ for an asset and all downstream of it, with "or" between.'
        ) from error
    if selected := {key for key in found if graph.get(key).is_materializable}:
        return selected
    groups = sorted({graph.get(key).group_name for key in graph.materializable_asset_keys})
    raise ValueError(
        f"The selection {selection!r} selects no asset that can be made. The groups are {', '.join(groups)}; "
        "`dg list defs --assets '...'` tries a selection."
    )


def _ops(graph: Any, group: Group) -> list[list[dg.AssetKey]]:
    """The group's assets by the op that makes them."""
    ops: dict[int, list[dg.AssetKey]] = defaultdict(list)
    for key in group.assets:
        ops[id(graph.get(key).assets_def)].append(key)
    return [*ops.values()]


def _op(graph: Any, group: Group, keys: list[dg.AssetKey], past: list[Work]) -> Op:
    inner = [*graph.get(keys[0]).assets_def.node_def.iterate_op_defs()]  # several, where a graph makes the asset
    seconds = fitted([(work.partitions, work.seconds) for work in past])
    cpu = fitted([(work.partitions, work.cpu_seconds) for work in past if work.cpu_seconds is not None])
    return Op(
        group=group,
        assets=tuple(key.to_user_string() for key in keys),
        steps=len(inner),
        pods=sum("dagster-k8s/config" in op.tags for op in inner),
        past=tuple(past),
        seconds=tuple(seconds(len(run)) for run in group.runs) if seconds else None,
        cpu_seconds=tuple(cpu(len(run)) for run in group.runs) if cpu else None,
    )


def _table(plan: Plan) -> list[str]:
    """A line per op."""
    rows = [("stage", "runs", "assets", "partitions", "steps", "estimated", "from past runs, of partitions")]
    for group in plan.groups:
        runs = f"{len(group.runs)}{' or more' if group.or_more else ''}"
        made = f"{sum(len(run) for run in group.runs)}"
        stage = f"{group.stage}"
        for op in (op for op in plan.ops if op.group is group):
            assets = op.assets[0] + (f" and {len(op.assets) - 1} more" if op.assets[1:] else "")
            took = "unknown" if op.seconds is None else _time(sum(op.seconds))
            sizes = sorted({work.partitions for work in op.past})
            span = "" if not sizes else f", of {sizes[0]}" + (f" to {sizes[-1]}" if sizes[1:] else "")
            rows.append(
                (stage, runs, assets, made, f"{len(group.runs) * op.steps}", took, f"{len(op.past) or 'none'}{span}")
            )
            stage = runs = ""
    widths = [max(len(cell) for cell in column) for column in zip(*rows, strict=True)]
    return ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]


def _sums(plan: Plan, price_per_hour: float | None) -> list[str]:
    more = "at least " if any(group.or_more for group in plan.groups) else ""
    least = "at least " if more or plan.unknown else ""
    pods = f"{plan.runs + plan.step_pods} ({plan.runs} of runs, {plan.step_pods} of steps)"
    lines = [f"runs      {more}{plan.runs}", f"steps     {more}{plan.steps}", f"pods on Kubernetes  {more}{pods}"]
    if not any(op.past for op in plan.ops):
        lines.append("duration  unknown: no past run made any of these assets")
    else:
        lines.append(f"duration  {least}{_time(plan.seconds())}, one run and one step after another")
        if plan.at_once and plan.at_once > 1:
            lines[-1] += f"; at least {_time(plan.seconds(plan.at_once))} with {plan.at_once} runs at once"
        hours = plan.step_seconds / 3600
        lines.append(f"cost      {least}{hours:.3g} machine-hours")
        if price_per_hour is not None:
            lines[-1] += f", {hours * price_per_hour:.2f} at {price_per_hour:g} an hour"
        if plan.cpu_seconds is not None:
            whole = all(op.cpu_seconds is not None for op in plan.ops)
            lines[-1] += f"; {'' if whole else 'at least '}{plan.cpu_seconds / 3600:.3g} CPU-hours"
        if plan.unknown:
            lines.append(f"unknown   {', '.join(plan.unknown)}: no past run made them")
    for asset, partitions in plan.left_out.items():
        which = (
            f"{partitions} partitions that read from what is made" if partitions else "reads nothing of what is made"
        )
        lines.append(f"left out  {asset}: {which}")
    return [*lines, "Nothing was started."]


def _time(seconds: float) -> str:
    if seconds < 59.5:
        return f"{seconds:.1f} s" if seconds < 10 else f"{seconds:.0f} s"
    minutes, rest = divmod(round(seconds), 60)
    return f"{minutes} min {rest:02} s" if minutes < 60 else f"{minutes // 60} h {minutes % 60:02} min"


def main() -> None:
    """Print what a backfill would be, and start nothing."""
    arguments = argparse.ArgumentParser(prog="python -m tilth.observability.plan", description=main.__doc__)
    arguments.add_argument("module", help="the module that holds the definitions, as `defs`")
    arguments.add_argument("--select", required=True, help="assets, such as 'key:\"raw/flights\"+' or group:raw")
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
