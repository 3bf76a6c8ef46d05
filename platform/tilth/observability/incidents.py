"""What is wrong now, read from what Dagster stores: checks, freshness, partitions that failed, runs that failed.

Nothing is remembered from tick to tick: an incident is a state that is found, under the same key as long as it lasts.
"""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of
from tilth._dagster.event_log import (
    NO_PARTITION,
    failed_check_partitions,
    freshness_states,
    latest_checks,
    latest_evaluation,
)
from tilth._dagster.runs import Ended, Runs, Target, failed_partitions

ERROR, WARNING, INFO = "ERROR", "WARNING", "INFO"
CHECK, FRESHNESS, MATERIALIZATION, RUN, TICK = "check", "freshness", "materialization", "run", "tick"

_NAMED = 5
# Of an asset, so many failed runs are read, the newest first: each costs two queries.
_LOOKED_INTO = 50
_LINE_LENGTH = 500


@dataclass(frozen=True)
class Incident:
    """Something that is wrong. `text` is a sentence, and lines that say more; `asset` is what it is about, if one."""

    key: str
    kind: str
    level: str
    text: str
    asset: str = ""
    run: str = ""
    partitions: tuple[str, ...] = ()


@dataclass
class Incidents:
    """What is found at one time: incidents by key, keys of which it is not known, failed runs that are tried again."""

    incidents: dict[str, Incident] = field(default_factory=dict)
    unclear: set[str] = field(default_factory=set)
    waiting: set[str] = field(default_factory=set)

    def found(self, incident: Incident) -> None:
        self.incidents[incident.key] = incident


def find_incidents(
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    failed: Iterable[str] | None,
    open_ones: Mapping[str, tuple[str, str, str]],
    label: str | None,
    now: float,
) -> Incidents:
    """All that is wrong with what `repository` defines.

    Args:
        failed: runs of which there may be something new to say; None for everything that ever ran.
        open_ones: by key, kind, asset and run of the incidents that may be over.
        label: the repository as Dagster's runs are tagged with it; None for the runs of any.
        now: the time, in seconds of Unix time.
    """
    graph, runs, found = graph_of(repository), Runs(instance, label, now), Incidents()
    ours, jobs = graph.materializable, {name for name in repository.job_names if not name.startswith("__")}
    if failed is not None:
        candidates = runs.known([*failed, *(run for kind, _, run in open_ones.values() if kind == RUN)])
        made = {key for run in candidates for key in runs.failure(run).steps if isinstance(key, dg.AssetKey)}
        made |= {dg.AssetKey.from_user_string(name) for kind, name, _ in open_ones.values() if kind == MATERIALIZATION}
        ours, jobs = ours & made, jobs & {runs.job(run) for run in candidates}
    died: dict[str, list[Target]] = defaultdict(list)
    _freshness(instance, graph, found)
    _checks(instance, graph, runs, found, died)
    for key in sorted(ours):
        _materializations(instance, graph, key, runs, found, died)
    for run_id, unmade in sorted(died.items(), key=lambda item: runs.end_of(item[0])):
        found.found(_died(graph, runs, run_id, unmade))
    for job in sorted(jobs):
        _job(job, runs, found)
    found.waiting = runs.waiting
    return found


def _freshness(instance: dg.DagsterInstance, graph: AssetGraph, found: Incidents) -> None:
    policies = {key: policy for key in graph.keys if (policy := graph.freshness_policy(key))}
    for key, state in freshness_states(instance, policies).items():
        name = key.to_user_string()
        incident = f"{FRESHNESS} {name}"
        if state == "UNKNOWN":
            found.unclear.add(incident)
        if state not in ("WARN", "FAIL"):
            continue
        latest = instance.get_latest_materialization_event(key)
        lines = [
            f"{name} is late",
            f"Its freshness policy: {_policy(policies[key], state)}. "
            + (f"It was last made at {_time(latest.timestamp)}." if latest else "It was never made."),
            _owners(graph, [key]),
        ]
        level = ERROR if state == "FAIL" else WARNING
        found.found(Incident(incident, FRESHNESS, level, _text(lines), name))


def _policy(policy: dg.FreshnessPolicy, state: str) -> str:
    if window := getattr(policy, f"{state.lower()}_window", None):
        hours = window.to_timedelta().total_seconds() / 3600
        return f"made again within {hours:.3g} hours"
    if cron := getattr(policy, "deadline_cron", None):
        return f"made by the deadline {cron} ({getattr(policy, 'timezone', 'UTC')})"
    return type(policy).__name__


def _checks(
    instance: dg.DagsterInstance, graph: AssetGraph, runs: Runs, found: Incidents, died: Mapping[str, list[Target]]
) -> None:
    latest = latest_checks(instance, graph.checks)
    ended = runs.ended(run.run_id for run in latest.values() if run.evaluation is None)
    for key, run in latest.items():
        partitions: list[str] = []
        if graph.partitions(key):
            partitions, planned = failed_check_partitions(instance, key)
            if planned:
                found.unclear.add(_check_name(key))
            evaluated = latest_evaluation(instance, key, failed=True) if partitions else None
        elif run.evaluation is None:
            found.unclear.add(_check_name(key))
            if ended[run.run_id] is Ended.FAILED:
                failure, name = runs.failure(run.run_id), key.asset_key.to_user_string()
                made_with_asset = failure.steps.get(key, set()) & failure.steps.get(key.asset_key, set())
                if (error := failure.of(key)) and not made_with_asset:
                    lines = [f"{name}: the check {key.name} could not be evaluated", error, _run(runs, run.run_id)]
                    found.found(_check(graph, key, ERROR, lines, run.run_id))
                    continue
                if not error and failure.of_the_run:
                    died[run.run_id].append(key)
            evaluated = latest_evaluation(instance, key, failed=False)
        else:
            evaluated = run
        if evaluated and (said := evaluated.evaluation) and not said.passed:
            named = f" for {_names(partitions)}" if partitions else ""
            lines = [f"{key.asset_key.to_user_string()}: the check {key.name} failed{named}", said.description or ""]
            if runs.known([evaluated.run_id]):
                lines.append(_run(runs, evaluated.run_id))
            level = WARNING if said.severity is dg.AssetCheckSeverity.WARN else ERROR
            found.found(_check(graph, key, level, lines, evaluated.run_id, partitions))


def _check_name(key: dg.AssetCheckKey) -> str:
    return f"{CHECK} {key.asset_key.to_user_string()} {key.name}"


def _check(
    graph: AssetGraph, key: dg.AssetCheckKey, level: str, lines: list[str], run: str, partitions: Sequence[str] = ()
) -> Incident:
    text, asset = _text([*lines, _owners(graph, [key.asset_key])]), key.asset_key.to_user_string()
    return Incident(_check_name(key), CHECK, level, text, asset, run or "", tuple(partitions))


def _materializations(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    key: dg.AssetKey,
    runs: Runs,
    found: Incidents,
    died: Mapping[str, list[Target]],
) -> None:
    failed = failed_partitions(instance, graph.partitions(key), key, runs)
    newest = sorted(set(failed.values()), key=runs.end_of, reverse=True)[:_LOOKED_INTO]
    failures = {run: runs.failure(run) for run in newest}
    for run, failure in failures.items():
        if not failure.of(key) and failure.of_the_run:
            died[run].append(key)
    # Where an upstream step failed, that one is what is wrong.
    own = next((run for run, failure in failures.items() if failure.of(key)), None)
    if own is not None:
        name, partitions = key.to_user_string(), sorted(partition for partition in failed if partition != NO_PARTITION)
        first = [f"{name} failed" + (f" for {_names(partitions)}" if partitions else ""), failures[own].of(key) or ""]
        text = _text([*first, _run(runs, own), _owners(graph, [key])])
        found.found(Incident(f"{MATERIALIZATION} {name}", MATERIALIZATION, ERROR, text, name, own, tuple(partitions)))


def _died(graph: AssetGraph, runs: Runs, run_id: str, unmade: Sequence[Target]) -> Incident:
    job, failure = runs.job(run_id), runs.failure(run_id)
    assets = sorted({key.asset_key if isinstance(key, dg.AssetCheckKey) else key for key in unmade})
    selected = sorted(str(key.to_user_string()) for key in failure.steps)
    key = hashlib.sha256(" ".join(selected).encode()).hexdigest()[:12] if job.startswith("__") else job
    lines = [
        f"A run failed before it had made {_names([asset.to_user_string() for asset in assets])}",
        failure.of_the_run or "",
        _run(runs, run_id),
        _owners(graph, assets),
    ]
    asset = assets[0].to_user_string() if len(assets) == 1 else ""
    return Incident(f"{RUN} {key}", RUN, ERROR, _text(lines), asset, run_id)


def _job(job: str, runs: Runs, found: Incidents) -> None:
    latest = runs.latest(job)
    if latest and not (failure := runs.failure(latest)).steps:
        lines = [f"The job {job} failed", failure.of_the_run or "", _run(runs, latest)]
        found.found(Incident(f"{RUN} {job}", RUN, ERROR, _text(lines), run=latest))


def _names(names: Sequence[str]) -> str:
    return ", ".join(names[:_NAMED]) + (f" and {len(names) - _NAMED} more" if len(names) > _NAMED else "")


def _run(runs: Runs, run_id: str) -> str:
    return f"Run {run_id}" + ("" if (job := runs.job(run_id)).startswith("__") else f" of {job}") + "."


def _owners(graph: AssetGraph, keys: Iterable[dg.AssetKey]) -> str:
    owners = sorted({owner for key in keys if key in graph for owner in graph.owners(key)})
    return f"Owners: {', '.join(owners)}." if owners else ""


def _time(timestamp: float) -> str:
    return datetime.fromtimestamp(timestamp, UTC).strftime("%Y-%m-%d %H:%M UTC")


def _text(lines: Iterable[str]) -> str:
    kept = (line if len(line) <= _LINE_LENGTH else line[: _LINE_LENGTH - 1] + "…" for line in lines if line)
    return "\n".join(kept)
