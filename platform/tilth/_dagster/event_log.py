"""What the event log says of assets, their partitions and checks: every question that is put to its storage."""

import os
import threading
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass

import dagster as dg
from dagster._core.storage.asset_check_execution_record import (
    AssetCheckExecutionRecord,
    AssetCheckExecutionRecordStatus,
)

DATA_VERSION = "dagster/data_version"
NO_PARTITION = ""
"""Stands for the one partition of an asset that has none."""

_MATERIALIZATION = dg.DagsterEventType.ASSET_MATERIALIZATION
# Numbers of events that one query asks for.
_ASKED = 400
_lock = threading.Lock()
_kept: tuple[int, object, dg.DagsterInstance] | None = None
"""The process that opened it, the reference by which, and the instance."""


@dataclass(frozen=True)
class Materialization:
    """One that was recorded. `number` is its event's, `timestamp` in seconds of the epoch; `partition` is
    `NO_PARTITION` where the asset has none, `version` is its data version, "" where it has none.
    """

    number: int
    run_id: str
    timestamp: float
    partition: str
    version: str
    metadata: Mapping[str, dg.MetadataValue]

    def value(self, name: str) -> object:
        """What its metadata says under this name; None where it says nothing."""
        return self.metadata[name].value if name in self.metadata else None


@dataclass(frozen=True)
class Attempt:
    """A run that was to make a partition and has not, and the number of the event that says it was to."""

    run_id: str
    number: int


Attempts = Mapping[str, Attempt]
"""By partition that a run tries or tried to make since it was last made, the latest such attempt."""


@dataclass(frozen=True)
class CheckRun:
    """The latest of a check: the run, and what it evaluated to; None where it has not yet."""

    run_id: str
    evaluation: dg.AssetCheckEvaluation | None


def newest_event(context: dg.SensorEvaluationContext) -> int:
    """The number of the newest event in the event log of the sensor's instance; 0 where there is none.

    It is what a sensor asks first, and mostly nothing else. To open Dagster's instance takes longer than this one
    question, on SQLite 15 ms of CPU, on PostgreSQL a login for each of its storages; so a process keeps the instance
    open that answers it.
    """
    return newest_number(_instance_of(context))


def _instance_of(context: dg.SensorEvaluationContext) -> dg.DagsterInstance:
    global _kept
    reference = context.instance_ref
    if reference is None:  # an instance of its own, as in a test
        return context.instance
    with _lock:
        if _kept is None or _kept[:2] != (os.getpid(), reference):
            _kept = os.getpid(), reference, dg.DagsterInstance.from_ref(reference)
        return _kept[2]


def newest_number(instance: dg.DagsterInstance) -> int:
    """The number of the newest event; 0 where there is none."""
    return instance.event_log_storage.get_maximum_record_id() or 0


def event_numbers(instance: dg.DagsterInstance, key: dg.AssetKey) -> dict[str, int]:
    """By partition, the number of its latest materialization in the event log."""
    found = instance.event_log_storage.get_latest_storage_id_by_partition(key, _MATERIALIZATION)
    if found:
        return dict(found)
    return {found.partition: found.number for found in newest_materializations(instance, key, None, limit=1)}


def present_versions(instance: dg.DagsterInstance, key: dg.AssetKey, until: int | None = None) -> dict[str, str]:
    """By partition, the data version of its latest materialization, if need be of those up to this event's number."""
    before = None if until is None else until + 1
    found = instance.event_log_storage.get_latest_tags_by_partition(
        key, _MATERIALIZATION, [DATA_VERSION], before_cursor=before
    )
    if found:
        return {partition: tags[DATA_VERSION] for partition, tags in found.items()}
    records = instance.fetch_materializations(dg.AssetRecordsFilter(key, before_storage_id=before), limit=1).records
    return {made.partition: made.version for made in _materializations(records)}


def materializations(
    instance: dg.DagsterInstance, key: dg.AssetKey, numbers: Sequence[int]
) -> Iterator[Materialization]:
    """The asset's materializations of these numbers, in no order."""
    for start in range(0, len(numbers), _ASKED):
        some = list(numbers[start : start + _ASKED])
        records = instance.fetch_materializations(dg.AssetRecordsFilter(key, storage_ids=some), limit=len(some)).records
        yield from _materializations(records)


def newest_materializations(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Iterable[str] | None, *, limit: int
) -> list[Materialization]:
    """The asset's newest materializations, of these partitions or of all, newest first."""
    keyed = [partition for partition in partitions or () if partition != NO_PARTITION] or None
    wanted = dg.AssetRecordsFilter(key, asset_partitions=keyed)
    return [*_materializations(instance.fetch_materializations(wanted, limit=limit).records)]


def _materializations(records: Iterable[dg.EventLogRecord]) -> Iterator[Materialization]:
    for record in records:
        if event := record.asset_materialization:
            partition, version = event.partition or NO_PARTITION, (event.tags or {}).get(DATA_VERSION, "")
            yield Materialization(
                record.storage_id, record.run_id, record.timestamp, partition, version, event.metadata
            )


def attempts(instance: dg.DagsterInstance, key: dg.AssetKey, partitions: dg.PartitionsDefinition | None) -> Attempts:
    """The latest attempts at the asset, which is cut into these partitions; those at partitions that it no longer has
    among them.
    """
    storage = instance.event_log_storage
    if partitions is not None:
        found = storage.get_latest_asset_partition_materialization_attempts_without_materializations(key)
        return {partition: Attempt(*attempt) for partition, attempt in found.items()}
    planned = storage.get_latest_planned_materialization_info(key)
    if planned is None or planned.storage_id <= max(event_numbers(instance, key).values(), default=0):
        return {}
    return {NO_PARTITION: Attempt(planned.run_id, planned.storage_id)}


def earlier_attempts(
    instance: dg.DagsterInstance, key: dg.AssetKey, partitions: Iterable[str], *, limit: int
) -> list[tuple[str, Attempt]]:
    """Partitions of the asset that runs were to make, with the attempts, newest first; made or not."""
    keyed = sorted(partition for partition in partitions if partition != NO_PARTITION)
    wanted = dg.EventRecordsFilter(
        dg.DagsterEventType.ASSET_MATERIALIZATION_PLANNED, asset_key=key, asset_partitions=keyed or None
    )
    records = instance.event_log_storage.get_event_records(wanted, limit=limit)
    return [(record.partition_key or NO_PARTITION, Attempt(record.run_id, record.storage_id)) for record in records]


def latest_checks(instance: dg.DagsterInstance, keys: Iterable[dg.AssetCheckKey]) -> dict[dg.AssetCheckKey, CheckRun]:
    """Of those of these checks that a run evaluated, or was to evaluate, the latest."""
    latest = instance.event_log_storage.get_latest_asset_check_execution_by_key(sorted(keys))
    return {key: _check_run(record) for key, record in latest.items()}


def latest_evaluation(instance: dg.DagsterInstance, key: dg.AssetCheckKey, *, failed: bool) -> CheckRun | None:
    """The check's latest evaluation, or its latest that `failed`."""
    wanted = {AssetCheckExecutionRecordStatus.FAILED}
    if not failed:
        wanted.add(AssetCheckExecutionRecordStatus.SUCCEEDED)
    found = instance.event_log_storage.get_asset_check_execution_history(key, limit=1, status=wanted)
    return next(map(_check_run, found), None)


def failed_check_partitions(instance: dg.DagsterInstance, key: dg.AssetCheckKey) -> tuple[list[str], bool]:
    """The partitions that the check failed for when it was last evaluated; and whether a run is to evaluate any."""
    infos = instance.event_log_storage.get_asset_check_partition_info([key])
    statuses = {str(info.partition_key): info.latest_execution_status for info in infos}
    failed = sorted(p for p, status in statuses.items() if status is AssetCheckExecutionRecordStatus.FAILED)
    return failed, AssetCheckExecutionRecordStatus.PLANNED in statuses.values()


def _check_run(record: AssetCheckExecutionRecord) -> CheckRun:
    evaluated = record.status is not AssetCheckExecutionRecordStatus.PLANNED
    return CheckRun(record.run_id, record.evaluation if evaluated else None)


def freshness_states(instance: dg.DagsterInstance, keys: Iterable[dg.AssetKey]) -> dict[dg.AssetKey, str]:
    """By asset with a freshness policy, PASS, WARN, FAIL or UNKNOWN."""
    records = instance.get_freshness_state_records(sorted(keys))
    return {key: record.freshness_state.value for key, record in records.items()}


def set_pool_limit(instance: dg.DagsterInstance, pool: str, limit: int) -> None:
    """Let so many steps of the pool run at once."""
    instance.event_log_storage.set_concurrency_slots(pool, limit)
