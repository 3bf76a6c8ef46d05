"""Sensors and schedules that fail: while they do, nothing that they are there for happens, and no run says so.

What Dagster keeps of their ticks is no public API: docs/upgrading.md names this file.
"""

from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from dagster._core.scheduler.instigation import TickStatus

from tilth.observability.incidents import ERROR, TICK, Incident

_ENDED = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]
# Dagster's errors that are around the one that says why.
_WRAPPERS = {"SensorExecutionError", "ScheduleExecutionError"}
_UNREACHABLE = "DagsterUserCodeUnreachableError"
_LINE_LENGTH = 500


@dataclass(frozen=True)
class Ticks:
    """Incidents of those whose last tick failed, and keys of incidents of those that are stopped: it cannot be told."""

    failing: tuple[Incident, ...] = ()
    unclear: frozenset[str] = frozenset()


def failed_ticks(
    instance: dg.DagsterInstance, repository: dg.RepositoryDefinition, label: str | None, but: str = ""
) -> Ticks:
    """The sensors and schedules of `repository` whose last tick that ended failed or took too long.

    Where it failed because the code server could not be reached, as while that is replaced, the one before must have
    failed too.

    Args:
        label: the repository as in `tilth.observability.incidents.look`.
        but: the name of one that is not looked at.
    """
    if instance.schedule_storage is None:
        return Ticks()
    defined = {sensor.name for sensor in repository.sensor_defs} | {each.name for each in repository.schedule_defs}
    failing: dict[str, Incident] = {}
    stopped = set()
    for state in instance.all_instigator_state():
        if state.name not in defined - {but} or label not in (None, state.origin.repository_origin.get_label()):
            continue
        key = f"{TICK} {state.name}"
        if not state.is_running:
            stopped.add(key)
            continue
        last = instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=2, statuses=_ENDED)
        if last and all(
            tick.status == TickStatus.FAILURE for tick in last[: 2 if _is_unreachable(last[0].error) else 1]
        ):
            failing[key] = _incident(key, state, last[0])
    return Ticks(tuple(failing[key] for key in sorted(failing)), frozenset(stopped - failing.keys()))


def _incident(key: str, state: Any, tick: Any) -> Incident:
    kind = "schedule" if state.instigator_type.value == "SCHEDULE" else "sensor"
    at = datetime.fromtimestamp(tick.timestamp, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"The {kind} {state.name} fails",
        _why(tick.error),
        f"Its tick at {at} failed; what it is there for does not happen until one succeeds. Dagster's page of the "
        f"{kind} has the traceback.",
    ]
    return Incident(key, TICK, ERROR, "\n".join(line for line in lines if line))


def _is_unreachable(error: Any) -> bool:
    return getattr(error, "cls_name", "") == _UNREACHABLE and "timed out" not in _why(error)


def _why(error: Any) -> str:
    """The first line of the error of the sensor itself, or of what Dagster waited for too long."""
    cause = getattr(error, "cause", None)
    while cause and (error.cls_name in _WRAPPERS or error.cls_name == cause.cls_name == _UNREACHABLE):
        error, cause = cause, cause.cause
    message = getattr(error, "message", "")
    line = next((line.strip() for line in message.splitlines() if line.strip()), "")
    return line if len(line) <= _LINE_LENGTH else line[: _LINE_LENGTH - 1] + "…"
