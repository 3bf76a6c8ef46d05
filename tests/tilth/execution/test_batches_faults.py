"""A step that is killed or cancelled keeps what it recorded, and leaves no process and no file behind."""

import multiprocessing
import os
import signal
import tempfile
import time
from collections.abc import Iterator
from functools import partial
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest

from tilth._dagster.sqlite import BatchedSqliteEventLogStorage
from tilth.execution.partitions import for_each_partition
from tilth.execution.shared_frames import Sliced

QUICK, STUCK = ["a", "b", "c", "d"], ["y", "z"]
LETTERS = dg.StaticPartitionsDefinition([*QUICK, *STUCK])
QUIET = {"loggers": {"console": {"config": {"log_level": "CRITICAL"}}}}
PATIENCE_SECONDS = 120
INSTANCE = """
telemetry: {enabled: false}
event_log_storage: {module: tilth._dagster.sqlite, class: BatchedSqliteEventLogStorage}
"""


def make(key: str, rows: pd.DataFrame, *, home: Path) -> dg.MaterializeResult[Any]:
    """Two of the partitions never end: each leaves its process' number."""
    if key in STUCK:
        Path(home, f"{key}.process").write_text(str(os.getpid()))
        time.sleep(3600)
    Path(home, f"{key}.stored").write_text(key)
    return dg.MaterializeResult(metadata={"letter": key, "rows": len(rows)}, data_version=dg.DataVersion(key))


def run_all(home: Path, scratch: str) -> None:
    """One step over all partitions, in two processes."""

    @dg.asset(partitions_def=LETTERS, backfill_policy=dg.BackfillPolicy.single_run())
    def things(context: dg.AssetExecutionContext) -> dg.MaterializeResult[Any]:
        rows = pd.DataFrame({"letter": LETTERS.get_partition_keys()})
        return for_each_partition(context, partial(make, home=home), workers=2, rows=Sliced(rows, ["letter"]))

    tempfile.tempdir = scratch
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "z"}
    with instance_of(home) as instance:
        dg.materialize([things], instance=instance, tags=tags, run_config=QUIET)


def instance_of(home: Path) -> dg.DagsterInstance:
    os.environ["DAGSTER_HOME"] = str(home)
    Path(home, "dagster.yaml").write_text(INSTANCE)
    return dg.DagsterInstance.from_config(str(home))


def eventually(condition: Any) -> bool:
    ends = time.monotonic() + PATIENCE_SECONDS
    while not condition() and time.monotonic() < ends:
        time.sleep(0.05)
    return bool(condition())


def is_alive(process: int) -> bool:
    status = Path(f"/proc/{process}/stat")
    try:
        return status.read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


@pytest.fixture
def scratch() -> Iterator[Path]:
    """A folder for temporary files with a name short enough for a socket's address."""
    with tempfile.TemporaryDirectory() as folder:
        yield Path(folder)


@pytest.fixture
def step(tmp_path: Path, scratch: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[BaseProcess]:
    """A step in a process of its own, whose two workers do not end by themselves; all else is made."""
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    process = multiprocessing.get_context("spawn").Process(target=run_all, args=(tmp_path, str(scratch)))
    process.start()

    def is_stuck() -> bool:
        return all((tmp_path / f"{key}.process").exists() for key in STUCK)

    try:
        assert eventually(lambda: is_stuck() or not process.is_alive())
        with instance_of(tmp_path) as instance:
            assert isinstance(instance.event_log_storage, BatchedSqliteEventLogStorage)
            made = partial(instance.get_materialized_partitions, dg.AssetKey("things"))
            assert eventually(lambda: len(made()) == len(QUICK) or not process.is_alive())
        yield process
    finally:
        process.kill()
        process.join()


@pytest.mark.skipif(not Path("/proc").exists(), reason="processes are looked up in /proc")
@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
def test_a_step_that_is_killed_or_cancelled_leaves_what_it_recorded_and_nothing_else(
    step: BaseProcess, scratch: Path, tmp_path: Path, how: signal.Signals
) -> None:
    workers = [int((tmp_path / f"{key}.process").read_text()) for key in STUCK]
    assert all(is_alive(worker) for worker in workers)
    assert len([*scratch.glob("tilth-*/rows.arrow")]) == 1

    os.kill(step.pid or 0, how)
    step.join(PATIENCE_SECONDS)
    assert step.exitcode not in (None, 0)
    assert eventually(lambda: not any(is_alive(worker) for worker in workers))
    assert eventually(lambda: not [*scratch.glob("tilth-*")])

    with instance_of(tmp_path) as instance:
        records = instance.fetch_materializations(dg.AssetKey("things"), limit=100).records
        events = [record.asset_materialization for record in records if record.asset_materialization]
        assert sorted(str(event.partition) for event in events) == QUICK
        for event in events:
            assert (event.metadata["letter"].value, event.metadata["rows"].value) == (event.partition, 1)
            assert (event.tags or {})["dagster/data_version"] == event.partition
    assert sorted(path.stem for path in tmp_path.glob("*.stored")) == QUICK
