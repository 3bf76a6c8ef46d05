"""The sensor that asks for the raw assets of exactly the files that landed, with all that can be made of them."""

import hashlib
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence

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
        """The cursor is the landing zone's own: what it has notified of so far."""
        arrived, cursor = landing.news(context.cursor)
        requests = requests_for(
            {
                table: not_yet_read(context.instance, table, _of_known_partitions(table, arrived, context))
                for table in declared
            }
        )
        if context.repository_def:
            requests = with_followers(requests, context.instance, context.repository_def, following)
        skipped = None if requests else dg.SkipReason("Nothing new in the landing zone.")
        return dg.SensorResult(run_requests=requests, cursor=cursor, skip_reason=skipped)

    return landed_files


def _of_known_partitions(
    table: LandedTable, arrived: Sequence[LandedFile], context: dg.SensorEvaluationContext
) -> list[LandedFile]:
    files, partitions = [], table.partitions
    for file in arrived:
        if file.table == table.name and file.partition in partitions:
            files.append(file)
        elif file.table == table.name:
            days = sorted(day for day in partitions if day)
            where = f"its days are {days[0]} to {days[-1]}" if days else f"it lands as {table.name}.csv"
            context.log.warning(
                f"{file.table}/{file.name} is of no partition of {table.key.to_user_string()}: {where}. It is left "
                "where it is."
            )
    return files


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
