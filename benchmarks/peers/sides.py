"""One measured action of one side, in a process of its own: `python sides.py <side> <action> <folder>`.

Prints a line of JSON: seconds; megabytes, by which the process' peak during the action exceeds what it held before the
frame was there. It runs in Metaflow's environment as well as in this project's, so it imports neither before it must.
"""

import ctypes
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq

MONTHS = [f"2013-{month:02}" for month in range(1, 13)]
TWO_COLUMNS = ["float_0", "airport"]


def frame(folder: Path) -> pd.DataFrame:
    """The common frame in memory, and nothing beside it."""
    rows = pq.read_table(folder / "frame.parquet").to_pandas(self_destruct=True, split_blocks=True)
    pa.default_memory_pool().release_unused()
    if sys.platform == "linux":
        ctypes.CDLL("libc.so.6").malloc_trim(0)
    return rows


def by_month(rows: pd.DataFrame) -> list[pd.DataFrame]:
    """Twelve parts of equal size."""
    size = len(rows) // len(MONTHS)
    return [rows.iloc[n * size : (n + 1) * size].reset_index(drop=True) for n in range(len(MONTHS))]


def lake(folder: Path) -> Any:
    """This project's lake."""
    from resources.lake import Lake

    return Lake(str(folder / "lake"))


def lake_write(folder: Path, rows: pd.DataFrame) -> None:
    from tilth.conversion import to_arrow

    lake(folder).replace("bench/frame", to_arrow(rows))


def lake_write_versioned(folder: Path, rows: pd.DataFrame) -> None:
    from tilth.conversion import to_arrow
    from tilth.versioning.content import data_version

    table = to_arrow(rows)
    lake(folder).replace("bench/frame", table)
    data_version(table)


def lake_read(folder: Path, _: None) -> pd.DataFrame:
    from tilth.conversion import to_pandas

    return to_pandas(lake(folder).read("bench/frame"))


def lake_write_months(folder: Path, rows: pd.DataFrame) -> None:
    from tilth.conversion import to_arrow

    parts = [part.assign(month=month) for part, month in zip(by_month(rows), MONTHS, strict=True)]
    lake(folder).replace("bench/months", to_arrow(pd.concat(parts)), MONTHS, ["month"])


def lake_read_month(folder: Path, context: Any) -> pd.DataFrame:
    from resources.lake_io import LakeIOManager

    return LakeIOManager(lake(folder)).load_input(context)


def lake_scan(folder: Path, _: None) -> int:
    """A table of some 4 GB, batch by batch."""
    return sum(batch.num_rows for batch in lake(folder).dataset("bench/large").to_batches())


def parquet_write(folder: Path, rows: pd.DataFrame) -> None:
    pq.write_table(pa.Table.from_pandas(rows, preserve_index=False), folder / "copy.parquet", compression="zstd")


def parquet_read(folder: Path, _: None) -> pd.DataFrame:
    return pq.read_table(folder / "copy.parquet").to_pandas()


def pickle_manager(folder: Path) -> Any:
    """Dagster's file system IO manager."""
    import dagster as dg

    manager = dg.FilesystemIOManager(base_dir=str(folder / "pickle"))
    return manager.create_io_manager(dg.build_init_resource_context())


def pickle_write(folder: Path, rows: pd.DataFrame) -> None:
    import dagster as dg

    pickle_manager(folder).handle_output(dg.build_output_context(asset_key=dg.AssetKey("frame")), rows)


def pickle_read_frame(folder: Path, context: Any) -> pd.DataFrame:
    """Two columns and one month of the frame stored whole: a pickle has no other way in."""
    rows = pickle_manager(folder).load_input(context)
    size = len(rows) // len(MONTHS)
    return rows.loc[4 * size : 5 * size - 1, TWO_COLUMNS].copy()


def pickle_write_months(folder: Path, rows: pd.DataFrame) -> None:
    import dagster as dg

    definition = dg.StaticPartitionsDefinition(MONTHS)
    for month, part in zip(MONTHS, by_month(rows), strict=True):
        key = dg.AssetKey(["bench", "months"])
        context = dg.build_output_context(asset_key=key, partition_key=month, asset_partitions_def=definition)
        pickle_manager(folder).handle_output(context, part)


def pickle_read_month(folder: Path, context: Any) -> pd.DataFrame:
    """Two columns of a month that was stored as a partition, a file of its own."""
    return pickle_manager(folder).load_input(context)[TWO_COLUMNS].copy()


def asking_for(action: str, month: str) -> Any:
    """What Dagster hands an IO manager that shall load the frame, or this month of it."""
    import dagster as dg

    if action == "read_frame":
        key = dg.AssetKey("frame")
        return dg.build_input_context(asset_key=key, upstream_output=dg.build_output_context(asset_key=key))
    key, definition = dg.AssetKey(["bench", "months"]), dg.StaticPartitionsDefinition(MONTHS)
    return dg.build_input_context(
        asset_key=key,
        asset_partitions_def=definition,
        partition_key=month,
        asset_partition_key_range=dg.PartitionKeyRange(month, month),
        definition_metadata={"columns": TWO_COLUMNS},
        dagster_type=dg.DagsterType(lambda _context, _rows: True, name="frame", typing_type=pd.DataFrame),
        upstream_output=dg.build_output_context(
            asset_key=key,
            asset_partitions_def=definition,
            partition_key=month,
            definition_metadata={"partition_expr": "month"},
        ),
    ).__enter__()


def metaflow_store(folder: Path, mode: str) -> Any:
    """Metaflow's task datastore on local disk, for the one task of a run."""
    from metaflow.datastore import FlowDataStore
    from metaflow.plugins.datastores.local_storage import LocalStorage

    flow = FlowDataStore("Bench", storage_impl=LocalStorage, ds_root=str(folder / "metaflow"))
    return flow.get_task_datastore("1", "start", "1", attempt=0, mode=mode)


def metaflow_write(folder: Path, rows: pd.DataFrame) -> None:
    task = metaflow_store(folder, "w")
    task.init_task()
    task.save_artifacts([("frame", rows)])
    task.done()


def metaflow_read(folder: Path, _: None) -> pd.DataFrame:
    return dict(metaflow_store(folder, "r").load_artifacts(["frame"]))["frame"]


def resident_megabytes() -> float:
    """What the process holds now."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * 4096 / 1e6


def peak_megabytes() -> float:
    """The most it held since `forget_peak`."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM"))
    return int(line.split()[1]) * 1024 / 1e6


def forget_peak() -> None:
    """Let the kernel measure the peak anew."""
    Path("/proc/self/clear_refs").write_text("5")


def main(side: str, action: str, folder: Path) -> None:
    """Run the action and print what it took."""
    act: Callable[[Path, Any], Any] = globals()[f"{side}_{action}"]
    # Both sides with their packages imported and Arrow's threads running.
    pa.table({"warm": ["up"]}).to_pandas()
    if side == "lake":
        import resources.frames
        import resources.lake_io  # noqa: F401
    elif side == "pickle":
        pickle_manager(folder)
    elif side == "metaflow":
        metaflow_store(folder, "w")
    before = resident_megabytes()
    given = frame(folder) if action.startswith("write") else None
    if action in ("read_frame", "read_month"):
        # Making a context outside of a run takes longer than either side's read, and once more for each kind.
        asking_for(action, MONTHS[0])
        given = asking_for(action, MONTHS[4])
    forget_peak()
    started = time.perf_counter()
    result = act(folder, given)
    seconds = time.perf_counter() - started
    counted = len(result) if isinstance(result, pd.DataFrame) else result
    print(json.dumps({"seconds": seconds, "megabytes": peak_megabytes() - before, "rows": counted}))


if __name__ == "__main__":
    main(sys.argv[1], sys.argv[2], Path(sys.argv[3]))
