"""Runs and their steps as policies see them, and Dagster's executor for one machine, which is handed such a policy.

docs/upgrading.md names what here is not Dagster's public API.
"""

import os
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Literal, Protocol

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
from dagster._core.execution.plan.objects import StepFailureData, StepRetryData
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.plan.step import IExecutionStep
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.multiprocess import MultiprocessExecutor
from dagster._utils.interrupts import raise_interrupts_as
from dagster_shared.error import SerializableErrorInfo

from tilth._dagster.kept_values import keep_value, kept_values

ENDED = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.STEP_SKIPPED,
}
"""The events of which each attempt at a step ends with one."""


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

    `policy` is its retry policy. `kind` is what the error is called.
    """

    then: Literal["again", "fail", "policy"]
    message: str
    kind: str = "StepEnded"

    @property
    def error(self) -> SerializableErrorInfo:
        """As Dagster records it."""
        return SerializableErrorInfo(message=self.message + "\n", stack=[], cls_name=self.kind)

    def event(self, context: IStepContext) -> dg.DagsterEvent:
        """The record of it, where the asset's policy is not asked."""
        if self.then == "again":
            return dg.DagsterEvent.step_retry_event(context, StepRetryData(error=self.error))
        return dg.DagsterEvent.step_failure_event(context, StepFailureData(error=self.error, user_failure_data=None))


class Watch(Protocol):
    """What a `ProcessExecutor` tells of its run."""

    def begin(self, run: Run, steps: Sequence[Step]) -> None:
        """These are its steps, of which none has begun yet."""

    def started(self, step: Step, pid: int) -> None:
        """An attempt at the step is at work in this process."""

    def ended(self, step: Step) -> None:
        """The end of the attempt is recorded."""

    def reason(self, step: Step) -> str:
        """Why the step's process died; empty where Dagster's own explanation is all there is."""
        ...

    def end(self) -> None:
        """The run is over."""


class ProcessExecutor(MultiprocessExecutor):
    """Dagster's multiprocess executor on a fork server.

    Args:
        modules: what Python's own fork server imports, where that is what forks.
        max_concurrent: steps at once; None is as many as there are cores.
    """

    def __init__(self, modules: Sequence[str], max_concurrent: int | None, watch: Watch) -> None:
        super().__init__(
            RetryMode.ENABLED, max_concurrent, start_method="forkserver", explicit_forkserver_preload=modules
        )
        self._watch = watch
        self._steps: Mapping[str, Step] = {}

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Iterator[dg.DagsterEvent]:
        run = run_of(plan_context)
        self._steps = {step.key: step_of(step, run) for step in execution_plan.steps}
        self._watch.begin(run, [*self._steps.values()])
        try:
            for event in super().execute(plan_context, execution_plan):
                step = self._steps.get(event.step_key or "")
                if step and event.event_type is dg.DagsterEventType.STEP_WORKER_STARTED and event.pid:
                    self._watch.started(step, event.pid)
                elif step and event.event_type in ENDED:
                    self._watch.ended(step)
                yield event
        finally:
            self._watch.end()

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> dg.DagsterEvent:
        # Dagster records that a process died as one death among others; only here can the failure say why.
        step = self._steps.get(step_context.step.key)
        if step and (reason := self._watch.reason(step)):
            err_info = Problem("policy", reason, "StepTimedOut").error
        return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
