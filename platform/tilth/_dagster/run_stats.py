"""What the event log says of the time that past runs and their steps took."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.execution.stats import RunStepKeyStatsSnapshot


@dataclass(frozen=True)
class StepStats:
    """A step: its key; when it began, in seconds of the epoch; how long it took, None unless it succeeded; and what it
    recorded of assets.
    """

    key: str
    began: float | None
    seconds: float | None
    materializations: tuple[dg.AssetMaterialization, ...]


def step_stats(instance: dg.DagsterInstance, run_id: str, keys: Sequence[str] | None = None) -> list[StepStats]:
    """The steps of a run that began, of all keys or of these."""
    return [
        StepStats(
            step.step_key,
            step.start_time,
            step.end_time - step.start_time if _succeeded(step) and step.start_time and step.end_time else None,
            tuple(made for event in step.materialization_events if (made := event.asset_materialization)),
        )
        for step in instance.get_run_step_stats(run_id, keys)
    ]


def _succeeded(step: RunStepKeyStatsSnapshot) -> bool:
    return step.status is not None and step.status.value == "SUCCESS"


def runs_that_made(instance: dg.DagsterInstance, key: dg.AssetKey, *, limit: int) -> Counter[str]:
    """By run, the newest first, how many of the asset's newest materializations it recorded; `limit` are looked at."""
    made = instance.get_asset_event_summary_records(
        dg.DagsterEventType.ASSET_MATERIALIZATION, asset_key=key, limit=limit
    )
    return Counter(event.run_id for event in made if event.run_id)
