"""Runs as alerts see them: which failed for good, at which step and why."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

import dagster as dg

from tilth._dagster.errors import first_line, reason
from tilth._dagster.event_log import attempts, earlier_attempts, event_numbers

Target = dg.AssetKey | dg.AssetCheckKey

# A failed run whose retry was not launched for so long is taken to be the last try.
RETRY_PATIENCE_SECONDS = 600
_LISTED = 500
_OF_A_JOB = 10
_EARLIER = 1000
_LABEL = ".dagster/repository"


class Ended(Enum):
    """How a run ended."""

    FAILED = "failed"
    OTHERWISE = "it succeeded, or is not known any more"
    NOT_BY_ITSELF = "it goes on, was cancelled, or failed and is tried again"


@dataclass(frozen=True)
class Failure:
    """Why a run failed: by step the first line of its error; by what the run was to make, the steps that make it."""

    errors: Mapping[str, str]
    steps: Mapping[Target, set[str]]
    reason: str

    def of(self, made: Target) -> str | None:
        """The error of the steps that make this; None if none of them failed."""
        return next((self.errors[step] for step in sorted(self.steps.get(made, ())) if step in self.errors), None)

    @property
    def of_the_run(self) -> str | None:
        """Why it failed otherwise than at a step that makes something: it died, or a step between failed."""
        makers = set().union(*self.steps.values())
        between = [error for step, error in self.errors.items() if step not in makers]
        return self.reason if not self.errors else between[0] if between else None


@dataclass
class Runs:
    """Runs as they are at one time, each read once; `waiting` are those found to wait for their retry."""

    instance: dg.DagsterInstance
    label: str | None
    now: float
    waiting: set[str] = field(default_factory=set)
    _records: dict[str, dg.RunRecord | None] = field(default_factory=dict)
    _failures: dict[str, Failure] = field(default_factory=dict)

    def ended(self, run_ids: Iterable[str]) -> dict[str, Ended]:
        """How each of these runs ended."""
        wanted = list(dict.fromkeys(run_ids))
        unknown = [run_id for run_id in wanted if run_id not in self._records]
        self._records |= dict.fromkeys(unknown)
        for start in range(0, len(unknown), _LISTED):
            self._keep(self.instance.get_run_records(dg.RunsFilter(run_ids=unknown[start : start + _LISTED])))
        return {run_id: self._ended(self._records[run_id]) for run_id in wanted}

    def is_over(self, run_id: str) -> bool:
        """Whether this run, that `ended` knows, does not go on; one that is not known any more does not."""
        record = self._records[run_id]
        return record is None or record.dagster_run.is_finished

    def known(self, run_ids: Iterable[str]) -> list[str]:
        """Those of these runs that are stored, and of this repository."""
        return [run_id for run_id in self.ended(run_ids) if self._is_ours(self._records[run_id])]

    def latest(self, job: str) -> str | None:
        """The job's latest run that ended by itself, if it failed."""
        statuses = [dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE]
        tags = {_LABEL: self.label} if self.label else None
        records = self.instance.get_run_records(
            dg.RunsFilter(job_name=job, statuses=statuses, tags=tags), limit=_OF_A_JOB
        )
        self._keep(records)
        ended = self.ended(record.dagster_run.run_id for record in records)
        latest = next((run for run, how in ended.items() if how is not Ended.NOT_BY_ITSELF), None)
        return latest if latest and ended[latest] is Ended.FAILED else None

    def job(self, run_id: str) -> str:
        """The name of the run's job; Dagster's own begin with two underscores."""
        return self._record(run_id).dagster_run.job_name

    def end_of(self, run_id: str) -> float:
        """When the run ended, in seconds of Unix time."""
        record = self._record(run_id)
        return record.end_time or record.update_timestamp.timestamp()

    def failure(self, run_id: str) -> Failure:
        """Why a run failed."""
        if run_id not in self._failures:
            self._failures[run_id] = self._look_up(self._record(run_id).dagster_run)
        return self._failures[run_id]

    def _record(self, run_id: str) -> dg.RunRecord:
        found = self._records[run_id]
        assert found is not None  # noqa: S101 - only stored runs are read
        return found

    def _keep(self, records: Iterable[dg.RunRecord]) -> None:
        self._records |= {record.dagster_run.run_id: record for record in records}

    def _is_ours(self, record: dg.RunRecord | None) -> bool:
        # A run that was started without a workspace is tagged with no repository.
        return record is not None and self.label in (None, record.dagster_run.tags.get(_LABEL, self.label))

    def _ended(self, record: dg.RunRecord | None) -> Ended:
        if record is None or record.dagster_run.status is dg.DagsterRunStatus.SUCCESS:
            return Ended.OTHERWISE
        if record.dagster_run.status is not dg.DagsterRunStatus.FAILURE:
            return Ended.NOT_BY_ITSELF
        tags, run_id = record.dagster_run.tags, record.dagster_run.run_id
        if "dagster/auto_retry_run_id" in tags:
            return Ended.NOT_BY_ITSELF
        # The tag comes a moment after the failure, true or false, and only where retries are enabled.
        undecided = "true" if self.instance.run_retries_enabled else "false"
        to_retry = tags.get("dagster/will_retry", undecided).lower() == "true"
        if to_retry and self.now - self.end_of(run_id) < RETRY_PATIENCE_SECONDS:
            self.waiting.add(run_id)
            return Ended.NOT_BY_ITSELF
        return Ended.FAILED

    def _look_up(self, run: dg.DagsterRun) -> Failure:
        errors, why = {}, "It ended without saying why; its log may tell."
        wanted = {dg.DagsterEventType.STEP_FAILURE, dg.DagsterEventType.RUN_FAILURE}
        for record in self.instance.get_records_for_run(run.run_id, of_type=wanted).records:
            event = record.event_log_entry.get_dagster_event()
            if event.is_step_failure:
                failed, step = event.step_failure_data, str(event.step_key).partition("[")[0]
                described = failed.user_failure_data.description if failed.user_failure_data else None
                errors[step] = (described and first_line(described)) or reason(failed.error) or "it says no error"
            else:
                why = (
                    reason(getattr(event.event_specific_data, "error", None)) or first_line(event.message or "") or why
                )
        steps: dict[Target, set[str]] = {}
        if run.execution_plan_snapshot_id:
            plan = self.instance.get_execution_plan_snapshot(run.execution_plan_snapshot_id)
            for step in plan.steps:
                made = [output.entity_key for output in step.outputs if output.entity_key]
                if step.key in plan.step_keys_to_execute:
                    for key in made:
                        steps.setdefault(key, set()).add(step.key.partition("[")[0])
        return Failure(errors, steps or {key: set() for key in run.asset_selection or ()}, why)


def failed_partitions(
    instance: dg.DagsterInstance, definition: dg.PartitionsDefinition | None, key: dg.AssetKey, runs: Runs
) -> dict[str, str]:
    """By partition of the asset, the run of its latest attempt that ended by itself, where that failed."""
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        latest = {
            name: attempt.run_id
            for name, attempt in attempts(instance, key, definition).items()
            if definition is None or definition.has_partition_key(name)
        }
    ended = runs.ended(latest.values())
    failed = {name: run for name, run in latest.items() if ended[run] is Ended.FAILED}
    if open_ones := {name for name, run in latest.items() if ended[run] is Ended.NOT_BY_ITSELF}:
        made = event_numbers(instance, key)
        earlier = earlier_attempts(instance, key, open_ones, limit=_EARLIER)
        ended |= runs.ended(attempt.run_id for _, attempt in earlier)
        for name, attempt in earlier:
            if name in open_ones and ended[attempt.run_id] is not Ended.NOT_BY_ITSELF:
                open_ones.remove(name)
                if ended[attempt.run_id] is Ended.FAILED and attempt.number > made.get(name, 0):
                    failed[name] = attempt.run_id
    return failed
