"""What set a partition off: all upstream that came or changed since it was last made, back to where it came from.

It is read from the `inputs` that each materialization carries (`tilth.versioning.inputs`).
"""

from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import dagster as dg

from tilth._dagster.event_log import DATA_VERSION, NO_PARTITION
from tilth.versioning.inputs import ALL, INPUTS, Inputs, step_inputs

# Materializations of one partition that are looked through for the one that was read before.
_HISTORY = 20


@dataclass(frozen=True)
class _Made:
    version: str
    inputs: Inputs
    origin: Mapping[str, Any]


def set_off_by(
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
    step, key = context.get_step_execution_context(), context.asset_key
    history = _History(context.instance, [INPUTS, *origin])
    before = history.of(key, partitions)
    found = {}
    for partition, inputs in step_inputs(step, key, partitions, own={}).items():
        last = before[partition][0].inputs if before[partition] else {}
        found[partition] = dg.MetadataValue.json(_causes(history, inputs, last))
    return found


def _causes(history: "_History", inputs: Inputs, before: Inputs) -> dict[str, dict[str, Any]]:
    causes: dict[str, dict[str, Any]] = defaultdict(dict)
    # One asset's partitions together, so that each level of the graph is a few queries.
    level = {asset: _changed(now, before.get(asset, {})) for asset, now in inputs.items()}
    while level:
        beyond: dict[str, dict[str, str | None]] = defaultdict(dict)
        for asset, changed in level.items():
            made_of = history.of(dg.AssetKey.from_user_string(asset), [p for p in changed if p != ALL])
            for partition, read_before in changed.items():
                made = made_of.get(partition) or [_Made(inputs.get(asset, {}).get(partition, ""), {}, {})]
                latest = made[0]
                earlier = next((m.inputs for m in made if read_before is not None and m.version == read_before), {})
                causes[asset][partition] = {"version": latest.version, **latest.origin}
                for parent, now in latest.inputs.items():
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

    def __init__(self, instance: dg.DagsterInstance, wanted: Sequence[str]) -> None:
        self._instance, self._wanted = instance, wanted
        self._known: dict[tuple[dg.AssetKey, str], list[_Made]] = {}

    def of(self, key: dg.AssetKey, partitions: Sequence[str]) -> dict[str, list[_Made]]:
        unknown = [partition for partition in partitions if (key, partition) not in self._known]
        for partition in unknown:
            self._known[key, partition] = []
        if unknown:
            keyed = [partition for partition in unknown if partition != NO_PARTITION]
            records = self._instance.fetch_materializations(
                dg.AssetRecordsFilter(key, asset_partitions=keyed or None), limit=_HISTORY * len(unknown)
            ).records
            for record in records:
                if event := record.asset_materialization:
                    known = self._known.setdefault((key, event.partition or NO_PARTITION), [])
                    values: dict[str, Any] = {n: event.metadata[n].value for n in self._wanted if n in event.metadata}
                    inputs = values.pop(INPUTS, {})
                    known.append(_Made((event.tags or {}).get(DATA_VERSION, ""), inputs, values))
        return {partition: self._known[key, partition] for partition in partitions}
