"""Dagster's executor of steps that run anywhere, which is handed how they are started, watched and ended.

docs/upgrading.md names what here is not Dagster's public API.
"""

import os
from collections import Counter
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from typing import Protocol

import dagster as dg
from dagster._core.events import EngineEventData
from dagster._core.execution.context.system import IStepContext, PlanOrchestrationContext
from dagster._core.execution.plan.plan import ExecutionPlan
from dagster._core.execution.plan.state import KnownExecutionState
from dagster._core.execution.retries import RetryMode
from dagster._core.executor.step_delegating import (
    CheckStepHealthResult,
    StepDelegatingExecutor,
    StepHandler,
    StepHandlerContext,
)
from dagster._core.storage.event_log import SqliteEventLogStorage
from dagster_shared.error import SerializableErrorInfo

from tilth._dagster.executor import Problem, Run, Step, run_of, step_of

# Of two events that PostgreSQL stores at once the later may be seen first. A run that reads on from it never hears of
# the earlier one, Dagster's default, and where that is a step's end it waits for ever. So it reads as many events
# before, of all runs, again.
EVENTS_READ_AGAIN = 256
_ENDED = {
    dg.DagsterEventType.STEP_SUCCESS,
    dg.DagsterEventType.STEP_FAILURE,
    dg.DagsterEventType.STEP_UP_FOR_RETRY,
    dg.DagsterEventType.STEP_SKIPPED,
}


@dataclass(frozen=True)
class Attempt:
    """An attempt at a step, which is to begin or has begun."""

    step: Step
    context: StepHandlerContext

    @property
    def arguments(self) -> str:
        """What stands behind `dagster api execute_step --compressed-input-json`."""
        return self.context.execute_step_args.get_command_args()[-1]

    def report_start(self, message: str) -> None:
        """Write into the step's log that its process is being started."""
        dg.DagsterEvent.step_worker_starting(self._log, message, metadata={})

    def report(self, message: str, **metadata: str) -> None:
        """Write a message into the step's log."""
        dg.DagsterEvent.engine_event(self._log, message, EngineEventData(metadata))

    @property
    def has_ended(self) -> bool:
        """Whether its end is in the run's log, where it may not have been read yet."""
        known, run = self.context.execute_step_args.known_state, self.step.run
        before = known.get_retry_state().get_attempt_count(self.step.key) if known else 0
        entries = run.instance.all_logs(run.id, of_type=_ENDED)
        return sum(entry.step_key == self.step.key for entry in entries) > before

    @property
    def _log(self) -> IStepContext:
        return self.context.get_step_context(self.step.key)


class Delegate(Protocol):
    """To whom a `DelegatingExecutor` leaves the steps of its run."""

    def begin(self, run: Run, steps: Sequence[Step]) -> None:
        """These are its steps, of which none has begun yet."""

    def launch(self, attempt: Attempt) -> None:
        """Start it. What this raises ends the run, with the steps beside it."""

    def problem(self, attempt: Attempt) -> Problem | None:
        """Why it ended without a record; None while it may still do its work."""

    def stop(self, attempt: Attempt) -> None:
        """End it: the run was cancelled."""

    def succeeded(self, step: Step) -> None:
        """The success of the step is recorded."""

    def end(self) -> None:
        """End what ends with the run's process, and return when it has: the run was cancelled, or cannot go on."""


class DelegatingExecutor(StepDelegatingExecutor):
    """Its steps' events are read from the run's log; what a `Problem` says is done.

    Args:
        poll_seconds: how often the log is read.
        health_seconds: how often the delegate is asked for problems.
        max_concurrent: steps at once; any number when left out. A step takes its pool's slot as it is launched, so
            where the delegate lets steps wait, they keep the slot from other runs.
    """

    def __init__(
        self,
        name: str,
        delegate: Delegate,
        *,
        poll_seconds: float,
        health_seconds: int,
        max_concurrent: int | None = None,
    ) -> None:
        self._delegate, self._handler = delegate, _Handler(name, delegate)
        super().__init__(
            self._handler,
            retries=RetryMode.ENABLED,
            sleep_seconds=poll_seconds,
            check_step_health_interval_seconds=health_seconds,
            max_concurrent=max_concurrent,
        )

    def _get_pop_events_offset(self, instance: dg.DagsterInstance) -> int:
        # SQLite numbers an event as it stores it.
        again = 0 if isinstance(instance.event_log_storage, SqliteEventLogStorage) else EVENTS_READ_AGAIN
        return int(os.environ.get("DAGSTER_EXECUTOR_POP_EVENTS_OFFSET", again))

    def execute(
        self, plan_context: PlanOrchestrationContext, execution_plan: ExecutionPlan
    ) -> Generator[dg.DagsterEvent]:
        self._handler.run = run = run_of(plan_context)
        self._delegate.begin(run, [step_of(step, run) for step in execution_plan.steps])
        try:
            for event in super().execute(plan_context, execution_plan):
                if event.is_step_success and (step := self._handler.launched.get(event.step_key or "")):
                    self._delegate.succeeded(step)
                yield event
        except BaseException:
            # Without the database Dagster stops no step. Else nothing is left but processes that store their logs.
            self._delegate.end()
            raise

    def log_failure_or_retry_event_after_error(
        self, step_context: IStepContext, err_info: SerializableErrorInfo, known_state: KnownExecutionState
    ) -> dg.DagsterEvent:
        key = step_context.step.key
        problem = self._handler.problems.pop(key, None)
        if problem is not None and problem.then != "policy":
            return problem.event(step_context)
        # What began again at once was no failure of the asset, and uses up none of its policy. An exception within the
        # step's process Dagster counts there, as one more than all attempts.
        attempts = dict(known_state.previous_retry_attempts)
        attempts[key] = max(0, attempts.get(key, 0) - self._handler.begun_again[key])
        counted = known_state._replace(previous_retry_attempts=attempts)
        error = problem.error if problem else err_info
        return super().log_failure_or_retry_event_after_error(step_context, error, counted)


class _Handler(StepHandler):
    """Hands the delegate what Dagster asks of a step handler."""

    run: Run  # once it is executed

    def __init__(self, name: str, delegate: Delegate) -> None:
        self._name, self._delegate = name, delegate
        self.launched: dict[str, Step] = {}
        self.problems: dict[str, Problem] = {}
        self.begun_again: Counter[str] = Counter()

    @property
    def name(self) -> str:
        return self._name

    def launch_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        attempt = self._attempt(step_handler_context)
        self.launched[attempt.step.key] = attempt.step
        self._delegate.launch(attempt)
        return iter(())  # it wrote its events itself

    def check_step_health(self, step_handler_context: StepHandlerContext) -> CheckStepHealthResult:
        attempt = self._attempt(step_handler_context)
        problem = self._delegate.problem(attempt)
        if problem is None or attempt.has_ended:
            return CheckStepHealthResult.healthy()
        self.problems[attempt.step.key] = problem
        self.begun_again[attempt.step.key] += problem.then == "again"
        return CheckStepHealthResult.unhealthy(problem.message)

    def terminate_step(self, step_handler_context: StepHandlerContext) -> Iterator[dg.DagsterEvent]:
        self._delegate.stop(self._attempt(step_handler_context))
        return iter(())

    def _attempt(self, context: StepHandlerContext) -> Attempt:
        (key,) = context.execute_step_args.step_keys_to_execute or [""]  # Dagster makes a context for each step
        return Attempt(step_of(context.get_step_context(key).step, self.run), context)
