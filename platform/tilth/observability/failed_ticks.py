"""Sensors and schedules that fail: while they do, nothing that they are there for happens, and no run says so."""

from dataclasses import dataclass
from datetime import UTC, datetime

import dagster as dg

from tilth._dagster.ticks import Tick, Ticker, last_ticks
from tilth.observability.incidents import ERROR, TICK, Incident


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
        label: the repository as in `tilth.observability.incidents.find_incidents`.
        but: the name of one that is left out.
    """
    defined = {sensor.name for sensor in repository.sensor_defs} | {each.name for each in repository.schedule_defs}
    failing: dict[str, Incident] = {}
    stopped = set()
    for ticker in last_ticks(instance, defined - {but}, label, limit=2):
        key = f"{TICK} {ticker.name}"
        if not ticker.is_running:
            stopped.add(key)
        elif (last := ticker.ticks) and all(tick.failed for tick in last[: 2 if last[0].unreachable else 1]):
            failing[key] = _incident(key, ticker, last[0])
    return Ticks(tuple(failing[key] for key in sorted(failing)), frozenset(stopped - failing.keys()))


def _incident(key: str, ticker: Ticker, tick: Tick) -> Incident:
    at = datetime.fromtimestamp(tick.timestamp, UTC).strftime("%Y-%m-%d %H:%M UTC")
    lines = [
        f"The {ticker.kind} {ticker.name} fails",
        tick.error,
        f"Its tick at {at} failed; what it is there for does not happen until one succeeds. Dagster's page of the "
        f"{ticker.kind} has the traceback.",
    ]
    return Incident(key, TICK, ERROR, "\n".join(line for line in lines if line))
