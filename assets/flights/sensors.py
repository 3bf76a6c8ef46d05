"""What sets the graph off: files that land, inputs that change, and the week."""

import hashlib
from collections import defaultdict
from collections.abc import Mapping, Sequence

import dagster as dg

from assets.flights import partitions as by
from assets.flights.raw import DAILY_TABLES, REFERENCE_TABLES, raw_key
from resources.landing import LandedFile, LandingZone
from tilth.automation.followers import with_followers
from tilth.automation.ranges import range_tags, ranges
from tilth.automation.reconciler import sweep
from tilth.automation.sensor import automation_sensor


def requests_for(files: Sequence[LandedFile]) -> list[dg.RunRequest]:
    """Runs that read exactly these files: one per range of days and set of daily tables, one for reference tables.

    The run key is made of the files and their arrivals, so that the same arrival is never requested twice.
    """
    days_of: Mapping[str, set[str]] = defaultdict(set)
    for file in files:
        if file.table in DAILY_TABLES and file.partition:
            days_of[file.table].add(file.partition)
    tables_of_range: Mapping[tuple[str, str], list[str]] = defaultdict(list)
    for table in sorted(days_of):
        for days in ranges(days_of[table], by.days):
            tables_of_range[days].append(table)

    requests = []
    for (first, last), tables in sorted(tables_of_range.items()):
        read = [f for f in files if f.table in tables and f.partition and first <= f.partition <= last]
        requests.append(
            dg.RunRequest(
                run_key=arrival_key(read),
                asset_selection=[raw_key(table) for table in tables],
                partition_key=first if first == last else None,
                tags={} if first == last else range_tags(first, last),
            )
        )
    reference = [f for f in files if f.table in REFERENCE_TABLES]
    if reference:
        tables = sorted({f.table for f in reference})
        requests.append(
            dg.RunRequest(run_key=arrival_key(reference), asset_selection=[raw_key(table) for table in tables])
        )
    return requests


def arrival_key(files: Sequence[LandedFile]) -> str:
    """A short name for a set of arrivals; a file that is sent again is another arrival."""
    names = sorted(f"{f.table}/{f.name}@{f.arrival}" for f in files)
    return f"{names[0]} and {len(names) - 1} more, {hashlib.sha256(' '.join(names).encode()).hexdigest()[:16]}"


def not_yet_read(instance: dg.DagsterInstance, files: Sequence[LandedFile]) -> list[LandedFile]:
    """Those whose arrival is not the one that the table's latest materialization read.

    So a file that somebody loaded by hand is not loaded again, nor are all of them when the sensor starts anew or is
    told of them again because a clock was set back.
    """
    unread = []
    for table in sorted({f.table for f in files}):
        of_table = [f for f in files if f.table == table]
        known: dict[str | None, str] = {}
        partitions = sorted({f.partition for f in of_table if f.partition})
        records = instance.fetch_materializations(
            dg.AssetRecordsFilter(raw_key(table), asset_partitions=partitions or None), limit=10 * len(of_table)
        ).records
        for record in records:  # newest first
            if event := record.asset_materialization:
                # What an earlier release stored has the time alone, which on disk is the arrival.
                arrival = event.metadata.get("arrival") or event.metadata.get("arrived_ns")
                known.setdefault(event.partition, str(arrival.value) if arrival else "")
        unread += [f for f in of_table if known.get(f.partition) != f.arrival]
    return unread


# What is made of landed days, in their own run as far as it can be.
FOLLOWING = dg.AssetSelection.groups("staging", "marts", "features", "predictions", "reports")


@dg.sensor(
    asset_selection=dg.AssetSelection.groups("raw") | FOLLOWING,
    minimum_interval_seconds=1,  # the daemon looks every five seconds, and would often skip one for as many
    default_status=dg.DefaultSensorStatus.RUNNING,
    description="Finds files that landed or were sent again, and asks for exactly those days, with all that can be "
    "made of them in the same run.",
)
def landed_files(context: dg.SensorEvaluationContext, landing: LandingZone) -> dg.SensorResult | dg.SkipReason:
    """The cursor is the landing zone's own: what it has told of so far."""
    arrived, cursor = landing.news(context.cursor)
    known_days = set(by.days.get_partition_keys())
    files = []
    for file in arrived:
        if file.table in REFERENCE_TABLES or (file.table in DAILY_TABLES and file.partition in known_days):
            files.append(file)
        else:
            context.log.warning(
                f"{file.table}/{file.name} belongs to no table or day of the flights domain "
                f"({by.FIRST_DAY} to before {by.END_DAY}); it is left where it is."
            )
    requests = requests_for(not_yet_read(context.instance, files))
    if context.repository_def:
        requests = with_followers(requests, context.instance, context.repository_def, FOLLOWING)
    if not requests:
        return dg.SensorResult(cursor=cursor, skip_reason=dg.SkipReason("Nothing new in the landing zone."))
    return dg.SensorResult(run_requests=requests, cursor=cursor)


RAW_CHECKS = dg.AssetSelection.checks_for_assets(*map(raw_key, (*DAILY_TABLES, *REFERENCE_TABLES)))

# In runs of its own: a candidate that finds no GPU fails alone, and the champion of its month is not skipped with it.
NEURAL = dg.AssetSelection.assets(["models", "delay_neural"])

automation_sensors = [
    automation_sensor(
        "etl",
        # The raw tables' checks ask for nothing, but no second sensor of this kind shall be made for them.
        FOLLOWING | RAW_CHECKS,
        "Landed days through dbt into features and training sets; with models into predictions and their quality.",
    ),
    automation_sensor(
        "training",
        dg.AssetSelection.groups("models") - NEURAL,
        "Training sets into candidates, champions and what serves.",
    ),
    automation_sensor(
        "training_neural",
        NEURAL,
        "Training sets into neural candidates, where PyTorch is installed.",
        interval_seconds=15,  # of what takes minutes
    ),
]

# A refresh of these makes no day again; they are read as they are when a day is made.
LOOKED_UP = dg.AssetSelection.assets(["marts", "aircraft"], ["marts", "airlines"], ["marts", "airports"])
TRAINING_SETS = dg.AssetSelection.assets(["features", "training_set"])
AUTOMATED = dg.AssetSelection.groups("staging", "marts", "features", "models", "predictions", "reports")

sweeps = [
    sweep("missed", AUTOMATED - TRAINING_SETS, optional=NEURAL, reference=LOOKED_UP, patience_seconds=120),
    # Their changes are gathered for up to ten minutes.
    sweep("missed_training_sets", TRAINING_SETS, patience_seconds=900),
]

reference_tables = dg.define_asset_job(
    "reference_tables",
    selection=dg.AssetSelection.assets(*[raw_key(table) for table in REFERENCE_TABLES]),
    description="Read the reference tables' files again.",
)

weekly_reference_tables = dg.ScheduleDefinition(
    name="weekly_reference_tables",
    job=reference_tables,
    cron_schedule="0 5 * * 1",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
