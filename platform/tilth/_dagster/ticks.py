"""What Dagster keeps of the ticks of sensors and schedules."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass

import dagster as dg
from dagster._core.scheduler.instigation import InstigatorTick, TickStatus

from tilth._dagster.errors import UNREACHABLE, reason

_ENDED = [TickStatus.SUCCESS, TickStatus.SKIPPED, TickStatus.FAILURE]


@dataclass(frozen=True)
class Tick:
    """One that ended: when, in seconds of the epoch, and whether it failed.

    `error` is the first line of the sensor's or schedule's own error, or of what Dagster waited for too long;
    `unreachable` says that there was no code server to ask.
    """

    timestamp: float
    failed: bool
    error: str
    unreachable: bool


@dataclass(frozen=True)
class Ticker:
    """A sensor or a schedule (`kind`), whether it runs, and its last ticks that ended, the newest first."""

    name: str
    kind: str
    is_running: bool
    ticks: tuple[Tick, ...]


def last_ticks(
    instance: dg.DagsterInstance, names: Collection[str], label: str | None, *, limit: int
) -> Iterator[Ticker]:
    """Of the sensors and schedules of these names that the instance knows, the last ticks of those that run.

    Args:
        label: the repository as in `tilth.observability.incidents.find_incidents`.
    """
    if instance.schedule_storage is None:
        return
    for state in instance.all_instigator_state():
        if state.name not in names or label not in (None, state.origin.repository_origin.get_label()):
            continue
        ticks = (
            instance.get_ticks(state.instigator_origin_id, state.selector_id, limit=limit, statuses=_ENDED)
            if state.is_running
            else ()
        )
        kind = "schedule" if state.instigator_type.value == "SCHEDULE" else "sensor"
        yield Ticker(state.name, kind, state.is_running, tuple(map(_tick, ticks)))


def _tick(tick: InstigatorTick) -> Tick:
    why = reason(tick.error)
    unreachable = tick.error is not None and tick.error.cls_name == UNREACHABLE and "timed out" not in why
    return Tick(tick.timestamp, tick.status is TickStatus.FAILURE, why, unreachable)
