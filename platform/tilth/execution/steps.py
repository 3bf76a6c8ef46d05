"""Steps on Kubernetes in two lanes: those that ask for a machine in pods of their own, the others in the run's pod.

Dagster's executors know one lane each: a process per step, or a pod per step, which takes ten times as long to start.

A step in a pod of its own is started again where that helps:

- It took more memory than it was given: with twice as much, up to the deployment's ceiling. What it then needed is
  kept; the next run begins with it, and says so.
- Its pod was evicted, preempted or deleted: up to five times, after the second on nodes that stay where such fit.

Where its image cannot be pulled, or no node takes it for a set time, it fails with what Kubernetes says. All else is
for the asset's retry policy; one that cannot be started fails alone. What here is not Dagster's public API
docs/upgrading.md names.
"""

import json
import os
from collections import Counter
from collections.abc import Generator, Iterator
from contextlib import suppress
from dataclasses import dataclass, replace
from math import ceil, log2
from typing import Any, Literal

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.plan.objects import StepFailureData, StepRetryData
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster_shared.error import SerializableErrorInfo

from tilth._dagster.database_outages import outlast_database_outages
from tilth._dagster.fork_server import fork_server
from tilth._dagster.local_steps import LightSteps
from tilth._dagster.pod_status import Ending, memory_limit, unschedulable
from tilth.execution import timeouts
from tilth.execution.compute import TAG, Request, as_quantity, leaves_spot, pool_for, quantity, request_of, step_config
from tilth.execution.concurrency_guard import partitions_of, planned_partitions, wait_for_turn
from tilth.execution.local import warm_up
from tilth.settings import Deployment

POLL_SECONDS = 0.2
HEALTH_SECONDS = 2
# Of two events that PostgreSQL stores at once the later may be seen first. A run that reads on from it never hears of
# the earlier one, Dagster's default, and where that is a step's end it waits for ever. So it looks at as many events
# before, of all runs, again.
EVENTS_LOOKED_AT_AGAIN = 256
LOSSES_ON_SPOT, LOSSES = 2, 5
# From 1Mi to 512Ti.
_DOUBLINGS = 30
_ENDED = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.STEP_SKIPPED,
}


def lanes_executor(code_location: str, *modules: str) -> dg.ExecutorDefinition:
    """The executor of a code location on Kubernetes; the arguments are those of `executor_of`.

    Steps whose asset has `op_tags=compute(...)` get a Kubernetes Job each, as many at once as the cluster takes. The
    others run in the run's pod, as many at once as it has cores, forked from a process that is warm.
    """
    warm_up(code_location, modules, ())

    def create(context: dg.InitExecutorContext) -> dg.Executor:
        outlast_database_outages()
        fork_server(context.instance, code_location)
        return _Lanes(Deployment())

    return dg.ExecutorDefinition(
        name="lanes",
        requirements=dg.multiple_process_executor_requirements(),
        executor_creation_fn=create,
        description="Steps that ask for a machine in pods of their own; the others warm in the run's pod.",
    )


@dataclass(frozen=True)
class _Problem:
    """What is to happen with a step that ended without a record: `again` at once, or by the asset's retry `policy`."""

    then: Literal["again", "policy", "fail"]
    said: str


class _Lanes(StepDelegatingExecutor):
    def __init__(self, deployment: Deployment) -> None:
        os.environ.setdefault("DAGSTER_EXECUTOR_POP_EVENTS_OFFSET", str(EVENTS_LOOKED_AT_AGAIN))
        self._lanes = _Steps(deployment)
        super().__init__(
            self._lanes,
            retries=RetryMode.ENABLED,
            sleep_seconds=POLL_SECONDS,
            check_step_health_interval_seconds=HEALTH_SECONDS,
        )

    def execute(self, plan_context: Any, execution_plan: Any) -> Generator[dg.DagsterEvent]:
        self._lanes.end_parent(plan_context)
        wait_for_turn(plan_context.instance, plan_context.run_id)
        for event in super().execute(plan_context, execution_plan):
            if event.is_step_success:
                self._lanes.remember(plan_context.instance, plan_context.dagster_run, event.step_key or "")
            yield event

    def log_failure_or_retry_event_after_error(
        self, step_context: Any, err_info: Any, known_state: Any
    ) -> dg.DagsterEvent:
        problem = self._lanes.problems.pop(step_context.step.key, None)
        known_state = self._lanes.without_begun_again(step_context.step.key, known_state)
        if problem is None:
            return super().log_failure_or_retry_event_after_error(step_context, err_info, known_state)
        error = SerializableErrorInfo(message=problem.said + "\n", stack=[], cls_name="StepEnded")
        if problem.then == "again":
            return dg.DagsterEvent.step_retry_event(step_context, StepRetryData(error=error))
        if problem.then == "fail":
            return dg.DagsterEvent.step_failure_event(
                step_context, StepFailureData(error=error, user_failure_data=None)
            )
        return super().log_failure_or_retry_event_after_error(step_context, error, known_state)


class _Steps(StepHandler):
    """Starts each step in its lane, looks how it does, and keeps for its next attempt what was learnt from this one."""

    def __init__(self, deployment: Deployment) -> None:
        self._deployment = deployment
        from joblib import cpu_count  # by the pod's limit; 0.2 s to import, which definitions need not pay

        self._light = LightSteps(cpu_count())
        self._heavy: Any = None
        self._partitions: dict[dg.AssetKey, set[str]] | None = None
        # By step: what it asks for, what it is given, how often its pod was lost, and how often it began again.
        self._asked: dict[str, Request] = {}
        self._given: dict[str, Request] = {}
        self._losses: Counter[str] = Counter()
        self._begun_again: Counter[str] = Counter()
        self._unstarted: dict[str, _Problem] = {}
        self._told: set[str] = set()
        self.problems: dict[str, _Problem] = {}

    @property
    def name(self) -> str:
        return "lanes"

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        context, step = step_handler_context, _step(step_handler_context)
        self._unstarted.pop(step.key, None)
        try:
            yield from self._launch(context, step)
        except Exception as problem:  # noqa: BLE001 (of a size that somebody's function gives, or of the cluster)
            # Dagster's executor would end all other steps of the run.
            said = f"{_what(context, step)} could not be started: {_cause(problem)}"
            self._unstarted[step.key] = _Problem("policy", said)

    def _launch(self, context: StepHandlerContext, step: Any) -> Iterator[dg.DagsterEvent]:
        request = request_of(step.tags)
        if request is None:
            log = context.get_step_context(step.key)
            yield dg.DagsterEvent.step_worker_starting(log, f"Executing {step.key} in the run's pod.", metadata={})
            limit = timeouts.seconds(step.tags[timeouts.TAG]) if timeouts.TAG in step.tags else None
            self._light.start(step.key, context.execute_step_args.get_command_args()[-1], limit)
            return
        if step.key not in self._given:
            if self._partitions is None:
                self._partitions = planned_partitions(context.instance, context.dagster_run.run_id)
            self._asked[step.key] = request.of(partitions_of(step, self._partitions))
            self._given[step.key] = self._first_request(context, step)
        given = self._given[step.key]
        on_demand = self._losses[step.key] >= LOSSES_ON_SPOT
        pools = self._deployment.node_pools
        shown = {"given": str(given), "node pool": pool_for(given, pools, on_demand=on_demand) or "default"}
        yield _told(context, step, f"{_what(context, step)} is given {given}.", **shown)
        self._told.discard(step.key)
        yield from self._pods(context).launch(context, step_config(given, pools, on_demand=on_demand))

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        context, step = step_handler_context, _step(step_handler_context)
        look = self._heavy_problem if TAG in step.tags else self._light_problem
        problem = self._unstarted.get(step.key) or look(context, step)
        if problem is None or _has_ended(context, step.key):
            return CheckStepHealthResult.healthy()
        self.problems[step.key] = problem
        self._begun_again[step.key] += problem.then == "again"
        return CheckStepHealthResult.unhealthy(problem.said)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        step = _step(step_handler_context)
        if step.key in self._unstarted:
            return
        if TAG not in step.tags:
            self._light.stop(step.key)
            return
        yield from self._pods(step_handler_context).terminate_step(step_handler_context)

    def end_parent(self, plan_context: Any) -> None:
        """Where this run tries another one again, whose pod died: its steps end before they are done once more."""
        parent = plan_context.dagster_run.parent_run_id
        if parent is not None and any(TAG in step.tags for step in plan_context.execution_plan.steps):
            self._heavy_of(plan_context.instance).end_steps_of(parent)

    def without_begun_again(self, step_key: str, known_state: Any) -> Any:
        """The state with the attempts that the asset's retry policy counts: a lost pod is no failure of the asset.

        An exception within the step's process Dagster counts there, as one more than all attempts.
        """
        attempts = dict(known_state.previous_retry_attempts)
        attempts[step_key] = max(0, attempts.get(step_key, 0) - self._begun_again[step_key])
        return known_state._replace(previous_retry_attempts=attempts)

    def remember(self, instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str) -> None:
        """Keep how much memory the step needed, if that was more than what one that asks for as much begins with."""
        asked, given = self._asked.get(step_key), self._given.get(step_key)
        if asked and given and given.memory not in (None, asked.memory):
            place = _places(run, step_key, asked.memory)[_doublings(asked.memory, given.memory)]
            instance.daemon_cursor_storage.set_cursor_values({place: given.memory})

    def _first_request(self, context: StepHandlerContext, step: Any) -> Request:
        """What the first attempt is given: what is asked for, or what was needed when it last asked for as much."""
        asked = self._asked[step.key]
        needed = _needed(context.instance, context.dagster_run, step.key, asked.memory)
        if needed is None:
            return asked
        needed = min(needed, self._deployment.memory_ceiling, key=quantity)
        if asked.memory is not None and quantity(needed) <= quantity(asked.memory):
            return asked
        _told(
            context, step,
            f"{_what(context, step)} needed {needed} of memory before, and begins with it. Ask for it: "
            f'op_tags=compute(memory="{needed}", ...).',
        )  # fmt: skip
        return replace(asked, memory=needed)

    def _light_problem(self, context: StepHandlerContext, step: Any) -> _Problem | None:
        if self._light.overdue(step.key):
            self._light.stop(step.key, ask=False)
            tags = context.dagster_run.tags
            return _Problem("policy", timeouts.explanation(_names(step), tags, step.tags[timeouts.TAG]).strip())
        if not (death := self._light.death(step.key)):
            return None
        return _Problem(
            "policy",
            f"The process of {_what(context, step)} {death}, in the run's pod. If it needed more memory than is left "
            'there, give it a pod of its own: op_tags=compute(memory="4Gi") on the asset.',
        )

    def _heavy_problem(self, context: StepHandlerContext, step: Any) -> _Problem | None:
        heavy, what = self._pods(context), _what(context, step)
        ending: Ending | None = heavy.ending(context)
        pod = heavy.pod(context)
        if ending is None:
            if pod is not None and step.key not in self._told and (said := unschedulable(pod)):
                self._told.add(step.key)
                _told(context, step, f"{what} waits for a node: {said}")
            return None
        if ending.how == "memory":
            return self._more_memory(what, step, memory_limit(pod))
        if ending.how == "ended":
            return _Problem("policy", f"{what}: {ending.said}.")
        if ending.how == "late":
            tags = context.dagster_run.tags
            return _Problem(
                "policy", timeouts.explanation(_names(step), tags, self._given[step.key].timeout or "").strip()
            )
        # Its Job would wait on, or make another pod.
        list(heavy.terminate_step(context))
        if ending.how == "image":
            return _Problem("fail", f"{what}: its image cannot be used. {ending.said}")
        if ending.how == "unschedulable":
            after = self._deployment.unschedulable_after
            return _Problem("fail", f"{what} ({self._given[step.key]}) found no node within {after}: {ending.said}")
        self._losses[step.key] += 1
        if self._losses[step.key] > LOSSES:
            return _Problem("policy", f"{what} lost its pod {LOSSES + 1} times, now because {ending.said}.")
        moved = self._losses[step.key] == LOSSES_ON_SPOT and leaves_spot(
            self._given[step.key], self._deployment.node_pools
        )
        return _Problem("again", f"{what}: {ending.said}. It begins again{', on nodes that stay' if moved else ''}.")

    def _more_memory(self, what: str, step: Any, limit_bytes: int | None) -> _Problem:
        most = quantity(self._deployment.memory_ceiling)
        had = as_quantity(limit_bytes) if limit_bytes else "its node has"
        if not limit_bytes or limit_bytes >= most:
            return _Problem(
                "policy",
                f"{what} needed more than {had} of memory, and more is not given "
                f"(TILTH_MEMORY_CEILING is {self._deployment.memory_ceiling}). Run fewer partitions at once, or raise "
                "it.",
            )
        more = as_quantity(min(2 * limit_bytes, most))
        self._given[step.key] = replace(self._given[step.key], memory=more)
        return _Problem("again", f"{what} needed more than {had} of memory. It begins again with {more}.")

    def _pods(self, context: StepHandlerContext) -> Any:
        return self._heavy_of(context.instance)

    def _heavy_of(self, instance: dg.DagsterInstance) -> Any:
        if self._heavy is None:
            from tilth._dagster.kubernetes import HeavySteps  # dagster_k8s is for the runs that have such steps

            launcher: Any = instance.run_launcher
            self._heavy = HeavySteps(launcher, timeouts.seconds(self._deployment.unschedulable_after))
        return self._heavy


def _step(context: StepHandlerContext) -> Any:
    keys: Any = context.execute_step_args.step_keys_to_execute
    return context.get_step_context(keys[0]).step


def _names(step: Any) -> str:
    return timeouts.assets_of(step) or step.key


def _what(context: StepHandlerContext, step: Any) -> str:
    """The step by its assets and the run's partitions."""
    tags = context.dagster_run.tags
    ends = [tags.get(f"dagster/asset_partition_range_{end}") for end in ("start", "end")]
    return f"{_names(step)} {tags.get('dagster/partition') or (f'{ends[0]} to {ends[1]}' if ends[0] else '')}".strip()


def _places(run: dg.DagsterRun, step_key: str, asked: str | None) -> list[str]:
    """Where it is kept what a step of this code location needed that asked for so much memory: a place for each
    doubling, so that of two runs at once neither undoes what the other has learnt.
    """
    location = run.tags.get(".dagster/repository", "")
    return [f"tilth/memory/{location}/{step_key}/{asked or ''}/{doublings}" for doublings in range(_DOUBLINGS)]


def _doublings(asked: str | None, given: str) -> int:
    return min(_DOUBLINGS - 1, max(0, ceil(log2(quantity(given) / (quantity(asked) if asked else 2**20)))))


def _needed(instance: dg.DagsterInstance, run: dg.DagsterRun, step_key: str, asked: str | None) -> str | None:
    """The most memory that the step needed of all times it asked for so much; None where that was enough."""
    found = instance.daemon_cursor_storage.get_cursor_values({*_places(run, step_key, asked)})
    return max(found.values(), key=quantity, default=None)


def _cause(problem: Exception) -> str:
    """What Kubernetes says, where it was that which refused; else the error."""
    answer: Any = getattr(problem, "k8s_api_exception", problem)
    with suppress(AttributeError, KeyError, TypeError, ValueError):
        return json.loads(answer.body)["message"]
    return f"{type(answer).__name__}: {answer}"


def _told(context: StepHandlerContext, step: Any, message: str, **metadata: str) -> dg.DagsterEvent:
    log: Any = context.get_step_context(step.key)
    return dg.DagsterEvent.engine_event(log, message, EngineEventData(metadata))


def _has_ended(context: StepHandlerContext, key: str) -> bool:
    """Whether the present attempt's end is in the log, and only has not been read yet."""
    known = context.execute_step_args.known_state
    attempts = known.get_retry_state().get_attempt_count(key) if known else 0
    entries = context.instance.all_logs(context.dagster_run.run_id, of_type=_ENDED)
    return sum(entry.step_key == key for entry in entries) > attempts
