"""What fails, is late or recovers, notified once: to a webhook, or to the log where there is none.

Messages go into an outbox first, and the cursor moves on after that, so that no crash loses one. The outbox also says
which incidents are open, so that none is notified twice. A crash between a delivery and its mark sends that again.
"""

import json
import logging
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace
from datetime import UTC, datetime
from typing import Any

import dagster as dg
from pydantic import SecretStr

from tilth._dagster.connections import kept_connections
from tilth._dagster.event_log import newest_event
from tilth.observability.alert_messages import REFUSED, RENEWED_AFTER_SECONDS, Message, Outbox, to_send, with_changes
from tilth.observability.failed_ticks import Ticks, failed_ticks
from tilth.observability.incidents import Incidents, find_incidents
from tilth.observability.webhook import RefusedError, WebhookError, check, post

INTERVAL_SECONDS = 30
_FIRST_PAUSE, _LONGEST_PAUSE = 30.0, 900.0
# Dagster gives a tick 60 seconds.
_DELIVERY_SECONDS = 20.0
_SHORT = 300


@dataclass(frozen=True)
class _Cursor:
    """Numbers of the newest event at the last tick and at the one before; failed runs that are tried again; when to
    judge again though nothing came; how often the webhook failed in a row; when to deliver what is waiting; what fails
    without an event, sensors and schedules.
    """

    seen: int | None = None
    before: int | None = None
    waiting: tuple[str, ...] = ()
    look_at: float | None = None
    failures: int = 0
    send_at: float | None = None
    failing: tuple[str, ...] = ()


Send = Callable[[str, str], None]


def alert_sensor(outbox: Outbox, webhook: SecretStr) -> dg.SensorDefinition:
    """A running sensor that tells of failed checks, assets, runs and sensors, of assets that are late, and of recovery.

    Args:
        outbox: of this code location alone; it holds what is open of what the location defines.
        webhook: the address of an incoming webhook; empty for the log.

    Raises:
        ValueError: an address that is not HTTP.
    """
    # What is mounted from a file often ends in a line break.
    webhook = SecretStr(webhook.get_secret_value().strip())
    if webhook.get_secret_value():
        check(webhook)

    @dg.sensor(
        name="alerts",
        minimum_interval_seconds=INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Tells of what failed, is late or recovered: to the webhook in TILTH_ALERTS_URI, or in its log.",
    )
    def alerts(context: dg.SensorEvaluationContext) -> dg.SensorResult | dg.SkipReason:
        cursor, now = _cursor(context), time.time()
        with kept_connections(context.instance):
            newest, ticks = newest_event(context), _ticks(context)
        failing = tuple(incident.key for incident in ticks.failing)
        # Twice, because a run counts as failed only a moment after its event.
        quiet = cursor.seen == newest == cursor.before and not cursor.waiting and not _is_due(cursor.look_at, now)
        quiet = quiet and failing == cursor.failing
        if quiet and not _is_due(cursor.send_at, now):
            return dg.SkipReason("Nothing happened since the last tick.")
        kept, at = outbox.current(), datetime.fromtimestamp(now, UTC)
        if not quiet:
            with kept_connections(context.instance):
                found = _found(context, cursor, kept, now)
            found.incidents.update({incident.key: incident for incident in ticks.failing})
            found.unclear.update(ticks.unclear)
            changed = with_changes(kept, found, at)
            if changed != kept:
                outbox.keep(changed)
            kept, cursor = changed, replace(_after(cursor, newest, found, changed), failing=failing)
        waiting = [message for message in kept if message.waits]
        if waiting and (not cursor.failures or _is_due(cursor.send_at, now)):
            send = _to_webhook(webhook) if webhook.get_secret_value() else _to_log(context.log)
            cursor = _deliver(context, outbox, kept, send, cursor)
        elif not waiting:
            cursor = replace(cursor, failures=0, send_at=None)
        raised = sum(message.raised_at == at for message in kept)
        said = f"{raised} messages raised, {sum(message.is_open for message in kept)} incidents open."
        return dg.SensorResult(cursor=json.dumps(asdict(cursor)), skip_reason=dg.SkipReason(said))

    return alerts


def _found(context: dg.SensorEvaluationContext, cursor: _Cursor, kept: Sequence[Message], now: float) -> Incidents:
    repository = _repository(context)
    failed = None if cursor.before is None else [*cursor.waiting, *_failed_since(context.instance, cursor.before)]
    open_ones = {one.incident: (one.kind, one.asset, one.run) for one in kept if one.is_open}
    return find_incidents(context.instance, repository, failed, open_ones, _label(context), now)


def _ticks(context: dg.SensorEvaluationContext) -> Ticks:
    # This one's own last tick says nothing of this one, which is under way.
    return failed_ticks(context.instance, _repository(context), _label(context), but="alerts")


def _repository(context: dg.SensorEvaluationContext) -> dg.RepositoryDefinition:
    assert context.repository_def is not None  # noqa: S101 - Dagster gives every sensor its own
    return context.repository_def


def _label(context: dg.SensorEvaluationContext) -> str | None:
    origin = context.code_location_origin
    return f"{_repository(context).name}@{origin.location_name}" if origin else None


def _failed_since(instance: dg.DagsterInstance, number: int) -> Iterator[str]:
    wanted = dg.RunStatusChangeRecordsFilter(dg.DagsterEventType.RUN_FAILURE, after_storage_id=number)
    cursor = None
    while True:
        result = instance.fetch_run_status_changes(wanted, limit=1000, cursor=cursor, ascending=True)
        yield from (record.run_id for record in result.records)
        if not result.has_more:
            return
        cursor = result.cursor


def _after(cursor: _Cursor, newest: int, found: Incidents, kept: Sequence[Message]) -> _Cursor:
    of_more = [
        message.raised_at.timestamp() + RENEWED_AFTER_SECONDS
        for message in kept
        if message.is_open
        and (incident := found.incidents.get(message.incident))
        and set(incident.partitions) - set(message.partitions)
    ]
    waiting = tuple(sorted(found.waiting))
    return replace(cursor, seen=newest, before=cursor.seen, waiting=waiting, look_at=min(of_more, default=None))


def _deliver(
    context: dg.SensorEvaluationContext, outbox: Outbox, kept: Sequence[Message], send: Send, cursor: _Cursor
) -> _Cursor:
    """Send what is waiting, in its order, until none is taken; the outbox has it afterwards.

    One that is refused itself is tried shortened, and then holds back no other.
    """
    began, now = time.monotonic(), time.time()
    tried: dict[str, Message] = {}
    failed: WebhookError | None = None
    left = sum(message.waits for message in kept)
    try:
        for level, text, group in to_send(kept):
            if time.monotonic() - began > _DELIVERY_SECONDS:
                break
            sent: dict[str, Any] = {"sent_at": datetime.now(UTC), "last_error": ""}
            try:
                _send(send, level, text)
            except RefusedError as error:
                sent = {"last_error": f"{REFUSED}{error}"}
                context.log.warning(f"{error}, which is kept: {text.splitlines()[0]}")
            except WebhookError as error:
                failed, sent = error, {"last_error": str(error)}
            tried |= {message.id: replace(message, attempts=message.attempts + 1, **sent) for message in group}
            if failed:
                break
            left -= len(group)
    finally:
        if tried:
            outbox.keep([tried.get(message.id, message) for message in kept])
    if not failed:
        again = [message.attempts for message in tried.values() if message.waits]
        later = now + _FIRST_PAUSE * 2 ** min(again) if again else None
        return replace(cursor, failures=0, send_at=now if left else later)
    failures = cursor.failures + 1
    pause = max(min(_FIRST_PAUSE * 2 ** min(failures - 1, 10), _LONGEST_PAUSE), failed.retry_after)
    context.log.warning(f"{failed}. {left} alerts wait and are kept; the next try is in {pause:.0f} s.")
    return replace(cursor, failures=failures, send_at=time.time() + pause)


def _send(send: Send, level: str, text: str) -> None:
    try:
        send(level, text)
    except RefusedError:
        send(level, f"{text.splitlines()[0][:_SHORT]}\n(Shortened: the whole was refused. The lake holds it.)")


def _to_webhook(address: SecretStr) -> Send:
    return lambda _, text: post(address, text)


def _to_log(log: logging.Logger) -> Send:
    return lambda level, text: log.log(logging.getLevelName(level), text)


def _is_due(at: float | None, now: float) -> bool:
    # A clock that was set back would make it wait for that long.
    return at is not None and (now >= at or at - now > 2 * RENEWED_AFTER_SECONDS)


def _cursor(context: dg.SensorEvaluationContext) -> _Cursor:
    if context.cursor is None:
        return _Cursor()
    try:
        stored: Any = json.loads(context.cursor)
        lists = {name: tuple(str(one) for one in stored.get(name, ())) for name in ("waiting", "failing")}
        cursor = _Cursor(**{**stored, **lists})
        numbers = (cursor.seen, cursor.before, cursor.look_at, cursor.failures, cursor.send_at)
        if all(number is None or isinstance(number, int | float) for number in numbers):
            return cursor
    except (ValueError, TypeError, KeyError, AttributeError):
        pass
    context.log.warning(f"The cursor {context.cursor[:100]!r} is of another release; everything is judged anew.")
    return _Cursor()
