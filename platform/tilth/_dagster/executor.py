"""Runs and their steps as policies see them, and what may be said of a step that ended without a record.

docs/upgrading.md names what here is not Dagster's public API.
"""

import os
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
from dagster._core.execution.plan.objects import StepFailureData, StepRetryData
from dagster._core.execution.plan.step import IExecutionStep
from dagster._utils.interrupts import raise_interrupts_as
from dagster_shared.error import SerializableErrorInfo

from tilth._dagster.kept_values import keep_value, kept_values


def planned_partitions(instance: dg.DagsterInstance, run_id: str) -> dict[dg.AssetKey, set[str]]:
    """By asset, the partitions that the run was made for; of an asset without any, "" stands for it."""
    planned: dict[dg.AssetKey, set[str]] = {}
    for entry in instance.all_logs(run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED):
        event = entry.dagster_event
        if event and event.asset_key:
            subset = event.partitions_subset
            keys = [event.partition or ""] if subset is None else subset.get_partition_keys()
            planned.setdefault(event.asset_key, set()).update(keys)
    return planned


def report(instance: dg.DagsterInstance, run_id: str, message: str) -> None:
    """Write a message into the run's log, with this process' number, which is what the run launcher looks for."""
    instance.report_engine_event(message, instance.get_run_by_id(run_id), EngineEventData.in_process(os.getpid()))


def wait_while(
    instance: dg.DagsterInstance, run_id: str, holds: Callable[[dg.DagsterRun], bool], seconds: float
) -> None:
    """Return when it holds of the run no more, which is looked for at this interval.

    Raises:
        DagsterExecutionInterruptedError: the run that waits was cancelled meanwhile.
    """
    with raise_interrupts_as(dg.DagsterExecutionInterruptedError):
        while (now := instance.get_run_by_id(run_id)) and holds(now):
            time.sleep(seconds)


@dataclass(frozen=True)
class Run:
    """A run that is being executed; `parent_id` is the one that it goes on from or tries again."""

    instance: dg.DagsterInstance
    id: str
    tags: Mapping[str, str]
    parent_id: str | None
    log: dg.DagsterLogManager

    @cached_property
    def planned(self) -> Mapping[dg.AssetKey, set[str]]:
        """As `planned_partitions`."""
        return planned_partitions(self.instance, self.id)

    def kept(self, names: Sequence[str]) -> Mapping[str, str]:
        """What earlier runs have kept in the instance under these names."""
        return kept_values(self.instance, names)

    def keep(self, name: str, value: str) -> None:
        """Keep a value for later runs."""
        keep_value(self.instance, name, value)


@dataclass(frozen=True)
class Step:
    """A step of a run, with its op tags and the assets that it makes, sorted."""

    key: str
    tags: Mapping[str, str]
    assets: Sequence[dg.AssetKey]
    run: Run

    @property
    def partitions(self) -> list[str]:
        """The keys that it makes, of all its assets; none where they have no partitions."""
        return sorted({key for asset in self.assets for key in self.run.planned.get(asset, ()) if key})

    @property
    def name(self) -> str:
        """Its assets and the run's partitions: "marts/a, marts/b 2013-01-01 to 2013-01-31"."""
        tags = self.run.tags
        first, last = (tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end"))
        partitions = tags.get("dagster/partition") or (f"{first} to {last}" if first else "")
        return f"{', '.join(key.to_user_string() for key in self.assets) or self.key} {partitions}".strip()


def run_of(context: PlanOrchestrationContext) -> Run:
    """The run that is about to be executed."""
    run = context.dagster_run
    return Run(context.instance, run.run_id, run.tags, run.parent_run_id, context.log)


def step_of(step: IExecutionStep, run: Run) -> Step:
    """A step of the run's plan."""
    assets = {output.asset_key for output in step.step_outputs if output.asset_key}
    return Step(step.key, step.tags or {}, sorted(assets), run)


@dataclass(frozen=True)
class Problem:
    """Why a step ended without a record, and what happens to it: `again` at once, `fail`, or the asset's `policy`.

    `policy` is its retry policy.
    """

    then: Literal["again", "fail", "policy"]
    message: str

    @property
    def error(self) -> SerializableErrorInfo:
        """As Dagster records it."""
        return SerializableErrorInfo(message=self.message + "\n", stack=[], cls_name="StepEnded")

    def event(self, context: IStepContext) -> dg.DagsterEvent:
        """The record of it, where the asset's policy is not asked."""
        if self.then == "again":
            return dg.DagsterEvent.step_retry_event(context, StepRetryData(error=self.error))
        return dg.DagsterEvent.step_failure_event(context, StepFailureData(error=self.error, user_failure_data=None))
