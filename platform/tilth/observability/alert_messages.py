"""The messages of alerts: which a tick raises, where they are kept, and how those that wait are sent."""

import hashlib
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from datetime import datetime
from itertools import groupby
from typing import Protocol

from tilth.observability.incidents import ERROR, INFO, WARNING, Incident, Incidents

# So many of a kind in one tick have messages of their own; more in one, as when a database is down.
MOST_AT_ONCE = 20
# Partitions that fail while their asset's incident is open are notified as soon as that is so old.
RENEWED_AFTER_SECONDS = 3600
# A message that the webhook does not take while it takes others is tried so often.
MOST_TRIES = 3
REFUSED = "Refused: "


@dataclass(frozen=True)
class Message:
    """One row of the outbox: that an incident began, or that it is over (`recovers`). Times are in UTC.

    `ended_at` is, of one that began, when it was over; `sent_at` is null until it was delivered, after so many
    `attempts`, the last of which failed with `last_error`. One that is refused while others are taken is not tried for
    ever.
    """

    id: str
    incident: str
    kind: str
    level: str
    asset: str
    run: str
    partitions: tuple[str, ...]
    text: str
    raised_at: datetime
    recovers: bool = False
    ended_at: datetime | None = None
    sent_at: datetime | None = None
    attempts: int = 0
    last_error: str = ""

    @property
    def is_open(self) -> bool:
        """Whether it is of an incident that is not over."""
        return not self.recovers and self.ended_at is None

    @property
    def waits(self) -> bool:
        """Whether it is to be sent."""
        return self.sent_at is None and not (self.attempts >= MOST_TRIES and self.last_error.startswith(REFUSED))


class Outbox(Protocol):
    """Where messages are kept, for good."""

    def current(self) -> list[Message]:
        """Those not delivered and those of open incidents, in the order in which they were raised."""
        ...

    def keep(self, messages: Sequence[Message]) -> None:
        """Keep these in place of the current ones, all of them or none."""
        ...


def with_changes(kept: Sequence[Message], found: Incidents, at: datetime) -> list[Message]:
    """The current messages after a tick, the new ones last: first of what is over, then of what began."""
    changed, recovered, began = [], [], []
    notified = set()
    for message in kept:
        incident = found.incidents.get(message.incident)
        if not message.is_open:
            pass
        elif incident is None:
            if message.incident not in found.unclear:
                message = replace(message, ended_at=at)
                recovered.append(_recovery(message, at))
        elif _is_new(message, incident, at):
            message = replace(message, ended_at=at)
        else:
            notified.add(incident.key)
            still = tuple(name for name in message.partitions if name in set(incident.partitions))
            message = replace(message, partitions=still)
        changed.append(message)
    for incident in found.incidents.values():
        if incident.key not in notified:
            began.append(_beginning(incident, at))
    return [*changed, *recovered, *began]


def _is_new(message: Message, incident: Incident, at: datetime) -> bool:
    worse = incident.level == ERROR and message.level == WARNING
    more = set(incident.partitions) - set(message.partitions)
    return worse or (bool(more) and (at - message.raised_at).total_seconds() >= RENEWED_AFTER_SECONDS)


def _beginning(incident: Incident, at: datetime) -> Message:
    text = f"{incident.level}: {incident.text}"
    of = (incident.key, incident.kind, incident.level, incident.asset, incident.run, incident.partitions)
    return Message(_id(incident.key, at), *of, text=text, raised_at=at)


def _recovery(begun: Message, at: datetime) -> Message:
    minutes = round((at - begun.raised_at).total_seconds() / 60)
    lasted = f"{minutes // 60} h {minutes % 60} min" if minutes >= 60 else f"{minutes} min"
    headline = begun.text.splitlines()[0].partition(": ")[2]
    text = f"RECOVERED after {lasted}: {headline}"
    identity = _id(f"{begun.id} over", at)
    return replace(begun, id=identity, text=text, raised_at=at, recovers=True, ended_at=None, sent_at=None, attempts=0)


def _id(of: str, at: datetime) -> str:
    return hashlib.sha256(f"{of} {at.isoformat()}".encode()).hexdigest()[:16]


def to_send(kept: Sequence[Message]) -> Iterator[tuple[str, str, list[Message]]]:
    """Level and text of each message to send, and the rows that it is of."""
    waiting = [message for message in kept if message.waits]
    for (_, recovers), of_look in groupby(waiting, lambda message: (message.raised_at, message.recovers)):
        group = list(of_look)
        if len(group) <= MOST_AT_ONCE:
            yield from ((INFO if recovers else message.level, message.text, [message]) for message in group)
            continue
        lines = [f"• {message.text.splitlines()[0]}" for message in group[:MOST_AT_ONCE]]
        what = "incidents are over" if recovers else "incidents began at once"
        more = f"and {len(group) - MOST_AT_ONCE} more; the lake holds all of their messages"
        level = ERROR if any(message.level == ERROR for message in group) else WARNING
        yield INFO if recovers else level, "\n".join([f"{len(group)} {what}:", *lines, more]), group
