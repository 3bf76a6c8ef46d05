"""What the event log says of assets and their partitions: every question that is put to its storage."""

import os
import threading

import dagster as dg

DATA_VERSION = "dagster/data_version"
NO_PARTITION = ""
"""Stands for the one partition of an asset that has none."""

_MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION
_lock = threading.Lock()
_kept: tuple[int, object, dg.DagsterInstance] | None = None
"""The process that opened it, the reference by which, and the instance."""


def newest_event(context: dg.SensorEvaluationContext) -> int:
    """The number of the newest event in the event log of the sensor's instance; 0 where there is none.

    It is what a sensor asks first, and mostly nothing else. To open Dagster's instance takes longer than this one
    question, on SQLite 15 ms of CPU, on PostgreSQL a login for each of its storages; so a process keeps the instance
    open that answers it.
    """
    return _instance_of(context).event_log_storage.get_maximum_record_id() or 0


def _instance_of(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    global _kept
    reference = context.instance_ref
    if reference is None:  # an instance of its own, as in a test
        return context.instance
    with _lock:
        if _kept is None or _kept[:2] != (os.getpid(), reference):
            _kept = os.getpid(), reference, dg.DagsterInstance.from_ref(reference)
        return _kept[2]


def event_numbers(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, int]:
    """By partition, the number of its latest materialization in the event log."""
    found = instance.event_log_storage.get_latest_storage_id_by_partition(key, _MATERIALIZATION)
    if found:
        return dict(found)
    records = instance.fetch_materializations(key, limit=1).records
    return {record.partition_key or NO_PARTITION: record.storage_id for record in records}


def present_versions(instance: dg.DagsterInstance, key: dg.AssetKey, until: int | None = None) -> dict[str, str]:
    """By partition, the data version of its latest materialization, if need be of those up to this event's number."""
    before = None if until is None else until + 1
    found = instance.event_log_storage.get_latest_tags_by_partition(
        key, _MATERIALIZATION, [DATA_VERSION], before_cursor=before
    )
    if found:
        return {partition: tags[DATA_VERSION] for partition, tags in found.items()}
    records = instance.fetch_materializations(dg.AssetRecordsFilter(key, before_storage_id=before), limit=1).records
    events = [event for record in records if (event := record.asset_materialization)]
    return {event.partition or NO_PARTITION: (event.tags or {}).get(DATA_VERSION, "") for event in events}
