"""Frames between assets and the lake."""

from typing import Any

import dagster as dg
import pyarrow.compute as pc
import pyarrow.dataset as ds

from resources.frames import arrow_of, asked, by_partition, partition_columns, partition_keys, record, wanted_columns
from resources.lake import Lake
from tilth.conversion import as_annotated
from tilth.observability.usage import watch


class LakeIOManager(dg.IOManager):
    """Stores frames (pandas, polars, pyarrow) in the lake and hands them on as the parameter's annotation asks: pandas,
    `pa.Table`, `pl.DataFrame`, or `pyarrow.dataset.Dataset` for what is larger than memory.

    An input's metadata may name `columns`, `filters` (as pyarrow takes them), and a `version` or time (`as_of`) of the
    table. An output's partitions are replaced in one commit, also by nothing; what is recorded of them is in
    `resources.frames.record`.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake
        watch()

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        rows, keys, columns = arrow_of(obj, context), partition_keys(context), partition_columns(context)
        version = self._lake.replace(context.asset_key, rows, keys, columns)
        # Of the version just written: another step may have written the next one already.
        files = self._lake.files(context.asset_key, version)
        of_each = files.group_by("partition").aggregate([("size_bytes", "sum")])
        sizes = dict(zip(of_each["partition"].to_pylist(), of_each["size_bytes_sum"].to_pylist(), strict=True))
        record(
            context,
            rows,
            None if keys is None else by_partition(rows, columns, keys),
            stored_bytes=lambda partition: sizes.get(partition, 0),
            table={
                "dagster/row_count": pc.call_function("sum", [files["num_records"]]).as_py() or 0,
                "dagster/uri": self._lake.path(context.asset_key),
                "delta_version": version,
            },
        )

    def load_input(self, context: dg.InputContext) -> Any:
        asked_for = {
            "partitions": partition_keys(context),
            "columns": wanted_columns(context),
            "version": asked(context, "version"),
            "as_of": asked(context, "as_of"),
            "filters": asked(context, "filters"),
        }
        if context.dagster_type.typing_type is ds.Dataset:
            return self._lake.dataset(context.asset_key, **asked_for)
        return as_annotated(self._lake.read(context.asset_key, **asked_for), context)
