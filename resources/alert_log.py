"""The alerts' messages in the lake: the outbox of `observability.alerts`, and then the record of what was wrong."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass
from typing import Any

import dagster as dg
import pyarrow as pa

from resources.lake import Lake
from tilth.observability.alert_messages import Message

_TIME = pa.timestamp("us", "UTC")
_PERIOD, _CURRENT = "period", "current"
_SCHEMA = pa.schema(
    [
        pa.field("id", pa.string()),
        pa.field("incident", pa.string()),
        pa.field("kind", pa.string()),
        pa.field("level", pa.string()),
        pa.field("asset", pa.string()),
        pa.field("run", pa.string()),
        pa.field("partitions", pa.list_(pa.string())),
        pa.field("text", pa.string()),
        pa.field("raised_at", _TIME),
        pa.field("recovers", pa.bool_()),
        pa.field("ended_at", _TIME),
        pa.field("sent_at", _TIME),
        pa.field("attempts", pa.int64()),
        pa.field("last_error", pa.string()),
        pa.field(_PERIOD, pa.string()),
    ]
)


@dataclass(frozen=True)
class AlertLog:
    """The table `alerts/<location>` of the lake, one row per message, of one code location.

    `period` is `current` for what is not delivered or not over, and the UTC day on which it was raised for the rest:
    a look reads a few rows, however many there have been.
    """

    lake: Lake
    location: str

    @property
    def table(self) -> dg.AssetKey:
        """Where in the lake."""
        return dg.AssetKey(["alerts", self.location])

    def current(self) -> list[Message]:
        """Those not delivered and those of open incidents, in the order in which they were raised.

        Raises:
            LakeError: the lake cannot be read.
        """
        return [Message(**{**row, "partitions": tuple(row["partitions"])}) for row in self._rows([_CURRENT])]

    def keep(self, messages: Sequence[Message]) -> None:
        """Keep these in place of the current ones, in one commit.

        Raises:
            LakeError: the lake took none of them.
        """
        rows = [{**asdict(message), _PERIOD: _period(message)} for message in messages]
        days = sorted({row[_PERIOD] for row in rows} - {_CURRENT})
        earlier = [{**row, _PERIOD: day} for day in days for row in self._rows([day])]
        table = pa.Table.from_pylist([*earlier, *rows], _SCHEMA)
        self.lake.replace(self.table, table, [_CURRENT, *days], [_PERIOD])

    def _rows(self, periods: Sequence[str]) -> list[dict[str, Any]]:
        if not self.lake.holds(self.table):
            return []
        return self.lake.read(self.table, periods).drop_columns(_PERIOD).to_pylist()


def _period(message: Message) -> str:
    return _CURRENT if message.waits or message.is_open else message.raised_at.date().isoformat()
