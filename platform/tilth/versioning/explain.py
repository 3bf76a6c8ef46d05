"""What triggered a partition: all upstream that came or changed since it was last made, back to where it came from.

It is read from the `inputs` that each materialization carries (`tilth.versioning.inputs`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from typing import Any

import dagster as dg

from tilth._dagster.event_log import Materialization, newest_materializations
from tilth._dagster.step_events import step_of
from tilth.versioning.inputs import ALL, Inputs, inputs_in, step_inputs

# Materializations of one partition that are looked through for the one that was read before.
_HISTORY = 20


def triggers(
    context: dg.AssetExecutionContext, partitions: Sequence[str], origin: Sequence[str] = ()
) -> dict[str, dg.JsonMetadataValue]:
    """By partition of the step's asset, what came or changed upstream since it was last made; of one that was never
    made, all of it.

    Args:
        origin: the metadata by which an asset without inputs says where its content came from, such as a file's name.

    Returns:
        JSON of asset → partition → `{"version": …}`, the data version that it has now; of what has no inputs with the
        `origin` metadata beside it. An asset without partitions has the partition "".
    """
    step, key = step_of(context), context.asset_key
    history = _History(context.instance)
    before = history.of(key, partitions)
    found = {}
    for partition, inputs in step_inputs(step, key, partitions, own={}).items():
        last = inputs_in(before[partition][0]) if before[partition] else {}
        found[partition] = dg.MetadataValue.json(_causes(history, inputs, last, origin))
    return found


def _causes(history: "_History", inputs: Inputs, before: Inputs, origin: Sequence[str]) -> dict[str, dict[str, Any]]:
    causes: dict[str, dict[str, Any]] = defaultdict(dict)
    # One asset's partitions together, so that each level of the graph is a few queries.
    level = {asset: _changed(now, before.get(asset, {})) for asset, now in inputs.items()}
    while level:
        beyond: dict[str, dict[str, str | None]] = defaultdict(dict)
        for asset, changed in level.items():
            histories = history.of(dg.AssetKey.from_user_string(asset), [p for p in changed if p != ALL])
            for partition, read_before in changed.items():
                made = histories.get(partition)
                if not made:
                    causes[asset][partition] = {"version": inputs.get(asset, {}).get(partition, "")}
                    continue
                earlier = next((inputs_in(m) for m in made if read_before is not None and m.version == read_before), {})
                came_from = {name: made[0].value(name) for name in origin if name in made[0].metadata}
                causes[asset][partition] = {"version": made[0].version, **came_from}
                for parent, now in inputs_in(made[0]).items():
                    beyond[parent].update(_changed(now, earlier.get(parent, {})))
        level = {
            asset: {p: v for p, v in changed.items() if p not in causes.get(asset, {})}
            for asset, changed in beyond.items()
        }
        level = {asset: changed for asset, changed in level.items() if changed}
    return {asset: dict(sorted(causes[asset].items())) for asset in sorted(causes) if causes[asset]}


def _changed(now: Mapping[str, str], before: Mapping[str, str]) -> dict[str, str | None]:
    """The partitions that came or changed, with the version that they had before."""
    return {partition: before.get(partition) for partition, version in now.items() if before.get(partition) != version}


class _History:
    """Materializations by asset and partition, newest first, each asset's asked for once."""

    def __init__(self, instance: dg.DagsterInstance) -> None:
        self._instance = instance
        self._known: dict[tuple[dg.AssetKey, str], list[Materialization]] = {}

    def of(self, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, list[Materialization]]:
        unknown = [partition for partition in partitions if (key, partition) not in self._known]
        self._known |= {(key, partition): [] for partition in unknown}
        if unknown:
            for made in newest_materializations(self._instance, key, unknown, limit=_HISTORY * len(unknown)):
                self._known.setdefault((key, made.partition), []).append(made)
        return {partition: self._known[key, partition] for partition in partitions}
