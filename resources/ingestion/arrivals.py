"""Which landed files the raw assets have not read yet, by what their materializations say that they read."""

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import dagster as dg

from resources.ingestion.tables import LandedTable
from resources.landing import LandingZone
from resources.landing_files import LandedFile
from tilth._dagster.event_log import NO_PARTITION, event_numbers
from tilth.versioning.staleness import Arrivals


def not_yet_read(instance: dg.DagsterInstance, table: LandedTable, files: Sequence[LandedFile]) -> list[LandedFile]:
    """Those of the table's files whose arrival is not the one that its latest materialization read.

    So a file that somebody loaded by hand is not loaded again, nor are all of them when the sensor starts anew or is
    notified of them again because a clock was set back.
    """
    if not files:
        return []
    known: dict[str | None, str] = {}
    partitions = sorted({file.partition for file in files if file.partition})
    records = instance.fetch_materializations(
        dg.AssetRecordsFilter(table.key, asset_partitions=partitions or None), limit=10 * len(files)
    ).records
    for record in records:  # newest first
        if event := record.asset_materialization:
            # What an earlier release stored has the time alone, which on disk is the arrival.
            arrival = event.metadata.get("arrival") or event.metadata.get("arrived_ns")
            known.setdefault(event.partition, str(arrival.value) if arrival else "")
    return [file for file in files if known.get(file.partition) != file.arrival]


def waiting(tables: Iterable[LandedTable], landing: LandingZone) -> Callable[[dg.DagsterInstance], Arrivals]:
    """What `partition_lag_checks(waiting=…)` asks for: by raw asset and partition when the file landed, in seconds
    since the epoch, that it has not read yet.
    """
    declared = list(tables)
    late: dict[str, tuple[Any, dict[str, float]]] = {}

    def arrivals(instance: dg.DagsterInstance) -> Arrivals:
        files = {table.name: landing.files(table.name) for table in declared}
        numbers = {table.name: event_numbers(instance, table.key) for table in declared}
        if any(numbers.values()) or any(of_table for _, of_table in late.values()):
            landing.check_there()  # where nothing is to be seen any more, nothing would seem to wait
        for table in declared:
            known = files[table.name], numbers[table.name]
            # To compare arrivals takes all materializations of the table; mostly nothing has come.
            if late.get(table.name, (None,))[0] != known:
                unread = not_yet_read(instance, table, files[table.name])
                late[table.name] = known, {file.partition or NO_PARTITION: file.arrived_ns / 1e9 for file in unread}
        return {table.key: late[table.name][1] for table in declared}

    return arrivals
