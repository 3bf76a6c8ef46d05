"""Dagster's event log with batches: the same records as Dagster's own, and a batch is stored whole or not at all."""

import sqlite3
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import QUIET
from tilth._dagster.sqlite import BatchedSqliteEventLogStorage

ROOT = Path(__file__).parents[3]
DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
RANGE = {"dagster/asset_partition_range_start": "2013-01-01", "dagster/asset_partition_range_end": "2013-02-28"}


@dg.asset(
    partitions_def=DAYS,
    backfill_policy=dg.BackfillPolicy.single_run(),
    check_specs=[dg.AssetCheckSpec("is_there", asset="numbers")],
)
def numbers(context: dg.AssetExecutionContext) -> Iterator[dg.AssetCheckResult | dg.MaterializeResult]:
    for day in context.partition_keys:
        context.add_asset_metadata({"day": day}, partition_key=day)
    yield dg.MaterializeResult(data_version=dg.DataVersion("one"))
    yield dg.AssetCheckResult(passed=True, check_name="is_there")


@contextmanager
def instance(home: Path, settings: str, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    home.mkdir()
    (home / "dagster.yaml").write_text(settings)
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as opened:
        yield opened


@pytest.fixture
def batched(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """An instance with the settings that `make` installs."""
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE", raising=False)
    settings = (ROOT / "platform" / "dagster.yaml").read_text()
    with instance(tmp_path / "batched", settings, monkeypatch) as opened:
        assert isinstance(opened.event_log_storage, BatchedSqliteEventLogStorage)
        yield opened


def make_all(opened: dg.DagsterInstance) -> list[tuple[object, ...]]:
    """Make two months in one run; every event of it in order, and what each partition recorded."""
    job = dg.Definitions(assets=[numbers]).resolve_implicit_global_asset_job_def()
    run = job.execute_in_process(QUIET, instance=opened, asset_selection=[numbers.key], tags=RANGE)
    assert run.success
    events = [
        (entry.dagster_event_type, entry.dagster_event.partition if entry.dagster_event else None)
        for entry in opened.all_logs(run.run_id)
    ]
    recorded = [
        (
            record.partition_key,
            record.asset_materialization and record.asset_materialization.metadata["day"].value,
            record.asset_materialization and (record.asset_materialization.tags or {})["dagster/data_version"],
        )
        for record in opened.fetch_materializations(numbers.key, limit=1000).records
    ]
    (check,) = opened.event_log_storage.get_latest_asset_check_execution_by_key(list(numbers.check_keys)).values()
    return [*events, *recorded, (check.status,), (sorted(opened.get_materialized_partitions(numbers.key)),)]


def test_a_range_leaves_the_same_records_as_with_dagsters_own_storage(
    batched: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    found = make_all(batched)
    monkeypatch.delenv("DAGSTER_EVENT_BATCH_SIZE")
    with instance(tmp_path / "stock", "telemetry: {enabled: false}", monkeypatch) as stock:
        assert found == make_all(stock)
    assert len(found) > 3 * 59


def test_a_batch_that_fails_in_the_middle_leaves_nothing_and_can_be_stored_again(
    batched: dg.DagsterInstance, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with instance(tmp_path / "other", "telemetry: {enabled: false}", monkeypatch) as other:
        make_all(other)
        (run,) = other.get_runs()
        events = [e for e in other.all_logs(run.run_id) if e.dagster_event and e.dagster_event.is_step_materialization]
    index = Path(batched.root_directory, "history", "runs", "index.db")
    with sqlite3.connect(index) as connection:
        connection.execute(
            "CREATE TRIGGER refuse BEFORE INSERT ON event_logs WHEN NEW.partition = '2013-02-03' "
            "BEGIN SELECT RAISE(ABORT, 'refused'); END"
        )

    with pytest.raises(Exception, match="refused"):
        batched.event_log_storage.store_event_batch(events)
    assert batched.get_materialized_partitions(numbers.key) == set()
    assert batched.all_logs(run.run_id) == []

    with sqlite3.connect(index) as connection:
        connection.execute("DROP TRIGGER refuse")
    batched.event_log_storage.store_event_batch(events)
    assert batched.get_materialized_partitions(numbers.key) == set(DAYS.get_partition_keys())
    assert len(batched.all_logs(run.run_id)) == len(events) == 59


def test_a_step_that_waits_for_its_pool_looks_again_soon(batched: dg.DagsterInstance) -> None:
    storage = batched.event_log_storage
    storage.set_concurrency_slots("warehouse", 1)
    first = storage.claim_concurrency_slot("warehouse", "run", "first")
    second = storage.claim_concurrency_slot("warehouse", "run", "second")
    assert (first.is_claimed, first.sleep_interval) == (True, None)
    assert not second.is_claimed
    assert second.sleep_interval is not None
    assert second.sleep_interval < 1
