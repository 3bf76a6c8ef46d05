"""The sensor that asks for the raw assets of exactly the files that landed, with all that can be made of them."""

import hashlib
import json
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Self

import dagster as dg

from resources.ingestion.arrivals import not_yet_read
from resources.ingestion.tables import LandedTable
from resources.landing import LandingZone
from resources.landing_files import LandedFile
from tilth.automation.followers import with_followers
from tilth.automation.ranges import range_tags, ranges


def landing_sensor(
    tables: Iterable[LandedTable], following: dg.AssetSelection, name: str = "landed_files"
) -> dg.SensorDefinition:
    """A running sensor that finds files of these tables that landed or were sent again, and asks for just those days.

    It needs the resource `landing`. Files of other tables are another code location's, and not its business.

    Args:
        following: what is made of landed days, in their own run as far as it can be.
    """
    declared = sorted(tables, key=lambda table: table.name)

    @dg.sensor(
        name=name,
        asset_selection=dg.AssetSelection.assets(*(table.key for table in declared)) | following,
        minimum_interval_seconds=1,  # the daemon looks every five seconds, and would often skip one for as many
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Finds files that landed or were sent again, and asks for exactly those days, with all that can be "
        "made of them in the same run.",
    )
    def landed_files(context: dg.SensorEvaluationContext, landing: LandingZone) -> dg.SensorResult:
        """The cursor keeps the landing zone's own, and of each table the last partition that it had then."""
        seen = _Cursor.of(context.cursor)
        arrived, place = landing.arrivals(seen.place)
        now = _Cursor(place, {table.name: _last(table) for table in declared})
        requests = requests_for(
            {
                table: not_yet_read(
                    context.instance,
                    table,
                    _of_known_partitions(table, [*arrived, *seen.late(table, landing)], context),
                )
                for table in declared
            }
        )
        if context.repository_def:
            requests = with_followers(requests, context.instance, context.repository_def, following)
        skipped = None if requests else dg.SkipReason("Nothing new in the landing zone.")
        return dg.SensorResult(run_requests=requests, cursor=now.text(), skip_reason=skipped)

    return landed_files


@dataclass(frozen=True)
class _Cursor:
    """The landing zone's place, and by table the last partition that it had at that tick."""

    place: str | None
    last: Mapping[str, str]

    @classmethod
    def of(cls, text: str | None) -> Self:
        """The one that was stored; an earlier release's is the landing zone's place alone."""
        try:
            stored = json.loads(text or "")
            return cls(stored["place"], stored["last"])
        except (ValueError, TypeError, KeyError):
            return cls(text, {})

    def text(self) -> str:
        return json.dumps({"place": self.place, "last": self.last})

    def late(self, table: LandedTable, landing: LandingZone) -> list[LandedFile]:
        """Files that landed before their table was declared, or before the day began that they are of."""
        last = self.last.get(table.name)
        if self.place is None or last == _last(table):
            return []
        return [file for file in landing.files(table.name) if last is None or (file.partition or "") > last]


def _last(table: LandedTable) -> str:
    return (table.by.get_last_partition_key() if table.by else None) or ""


def _of_known_partitions(
    table: LandedTable, arrived: Sequence[LandedFile], context: dg.SensorEvaluationContext
) -> list[LandedFile]:
    own = [file for file in arrived if file.table == table.name]
    partitions = table.partitions if own else ()
    for file in own:
        if file.partition not in partitions:
            days = f"has {table.by.get_first_partition_key()} to {_last(table)}" if table.by else "lands as one file"
            context.log.warning(
                f"{file.table}/{file.name} is of no partition of {table.key.to_user_string()}, which {days}; it is "
                "left where it is."
            )
    return [*{file.partition: file for file in own if file.partition in partitions}.values()]


def requests_for(files: Mapping[LandedTable, Sequence[LandedFile]]) -> list[dg.RunRequest]:
    """Runs that read exactly these files: one per range of days and set of tables by day, one for tables without days.

    The run key is made of the files and their arrivals, so that the same arrival is never requested twice.
    """
    of_range: defaultdict[tuple[str, str, dg.PartitionsDefinition], list[LandedTable]] = defaultdict(list)
    for table, of_table in files.items():
        if table.by and of_table:
            for first, last in ranges({file.partition for file in of_table if file.partition}, table.by):
                of_range[first, last, table.by].append(table)
    requests = []
    for (first, last, _), tables in sorted(of_range.items(), key=lambda item: item[0][:2]):
        read = [file for table in tables for file in files[table] if first <= str(file.partition) <= last]
        requests.append(
            dg.RunRequest(
                run_key=arrival_key(read),
                asset_selection=[table.key for table in tables],
                partition_key=first if first == last else None,
                tags={} if first == last else range_tags(first, last),
            )
        )
    if whole := [table for table in files if not table.by and files[table]]:
        read = [file for table in whole for file in files[table]]
        requests.append(dg.RunRequest(run_key=arrival_key(read), asset_selection=[table.key for table in whole]))
    return requests


def arrival_key(files: Sequence[LandedFile]) -> str:
    """A short name for a set of arrivals; a file that is sent again is another arrival."""
    names = sorted(f"{f.table}/{f.name}@{f.arrival}" for f in files)
    return f"{names[0]} and {len(names) - 1} more, {hashlib.sha256(' '.join(names).encode()).hexdigest()[:16]}"
