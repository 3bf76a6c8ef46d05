"""What a feed may lose or have turned away before somebody has to look at it."""

from dataclasses import dataclass
from datetime import date, timedelta
from statistics import median

# So many of the same weekday before a day are looked at; one that is odd does not decide what is usual.
WEEKS = 4


@dataclass(frozen=True)
class Limits:
    """Of one partition of a table (or of a table without partitions), how much is no cause to ask a person.

    Shares are of 1; None is no limit.

    rejected_share: of the lines that came, those that were turned away.
    rejected_rows: the number of those.
    drop_from_last: of the rows that the table holds, those that are fewer now.
    drop_from_weekday: of the rows that the same weekday usually has (the median of the four before it that had any).
    """

    rejected_share: float | None = 0.05
    rejected_rows: int | None = 1000
    drop_from_last: float | None = 0.5
    drop_from_weekday: float | None = 0.5

    def broken(self, rows: int, rejected: int, last: int, weekdays: list[int]) -> list[str]:
        """How what came breaks them, each in words; none where it does not.

        Args:
            rows: those that keep to the schema.
            rejected: the lines that do not.
            last: the rows that the table holds of the partition now.
            weekdays: the rows of the same weekday in the weeks before.
        """
        found, lines = [], rows + rejected
        if self.rejected_share is not None and rejected > self.rejected_share * lines:
            found.append(f"{rejected} of {lines} lines were turned away, more than {_percent(self.rejected_share)}")
        elif self.rejected_rows is not None and rejected > self.rejected_rows:
            found.append(f"{rejected} of {lines} lines were turned away, more than {self.rejected_rows}")
        if self.drop_from_last is not None and rows < (1 - self.drop_from_last) * last:
            found.append(f"{rows} rows would replace {last}, a drop by more than {_percent(self.drop_from_last)}")
        usual = median(had) if (had := [count for count in weekdays if count]) else 0
        if self.drop_from_weekday is not None and rows < (1 - self.drop_from_weekday) * usual:
            found.append(
                f"{rows} rows came where this weekday has {usual:.0f}, a drop by more than "
                f"{_percent(self.drop_from_weekday)}"
            )
        return found


def _percent(share: float) -> str:
    return f"{100 * share:.3g} %"


def weekdays_before(day: str) -> list[str]:
    """The same weekday in each of the weeks before, the latest first; days are as 2013-01-31."""
    return [str(date.fromisoformat(day) - timedelta(weeks=week)) for week in range(1, WEEKS + 1)]
