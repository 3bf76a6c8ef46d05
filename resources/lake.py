"""The lake: one Delta table per asset, replaced partition by partition in one transaction each."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass

import dagster as dg
import pyarrow as pa
from deltalake import DeltaTable, write_deltalake
from deltalake.exceptions import TableNotFoundError

from resources.frames import (
    Frame,
    as_annotated,
    column_schema,
    data_version,
    partition_column,
    partition_keys,
    to_arrow,
    wanted_columns,
)


@dataclass(frozen=True)
class Lake:
    """Delta tables under `<uri>/<branch>/<asset key>`; works in a notebook without Dagster running."""

    uri: str
    branch: str = "main"

    def path(self, key: dg.AssetKey) -> str:
        """Where the asset's table lies."""
        return "/".join([self.uri.rstrip("/"), self.branch, *key.path])

    def read(
        self,
        key: dg.AssetKey,
        partitions: Sequence[str] | None = None,
        partition_column: str | None = None,
        columns: Sequence[str] | None = None,
    ) -> pa.Table:
        """The asset's rows, all of them or those of `partitions`, sorted by partition.

        Raises:
            TableNotFoundError: nothing was stored for this asset yet.
        """
        try:
            table = DeltaTable(self.path(key))
        except TableNotFoundError as error:
            raise TableNotFoundError(
                f"{key.to_user_string()} is not in the lake at {self.path(key)}; materialize it first."
            ) from error
        if partitions is None or partition_column is None:
            return table.to_pyarrow_table(columns=list(columns) if columns else None)
        rows = table.to_pyarrow_table(
            partitions=[(partition_column, "in", sorted(set(partitions)))],
            columns=list(columns) if columns else None,
        )
        # Files come in no order; equal data must read as equal frames. The sort keeps the order within a partition.
        return rows.sort_by(partition_column)

    def row_count(self, key: dg.AssetKey) -> int:
        """Rows in the whole table, from its log, without reading data."""
        return DeltaTable(self.path(key)).count()

    def replace(
        self,
        key: dg.AssetKey,
        rows: pa.Table,
        partitions: Sequence[str] | None = None,
        partition_column: str | None = None,
    ) -> int:
        """Put `rows` in place of those of `partitions` (of all rows for None) in one commit; the new table version.

        Raises:
            ValueError: a row lies outside of the partitions that are written, or a column's type is not the table's.
        """
        path = self.path(key)
        if partitions is None or partition_column is None:
            write_deltalake(path, rows, mode="overwrite", schema_mode="overwrite")
            return DeltaTable(path).version()
        foreign = set(rows[partition_column].unique().cast(pa.string()).to_pylist()) - set(partitions)
        if foreign:
            raise ValueError(
                f"{key.to_user_string()}: rows with {partition_column} = {sorted(map(str, foreign))[:3]} do not "
                f"belong to the partitions that are written ({min(partitions)} to {max(partitions)}). "
                "Keep them out of the frame that the asset returns."
            )
        if DeltaTable.is_deltatable(path):
            _same_columns(key, pa.schema(DeltaTable(path).schema().to_arrow()), rows.schema)
        else:
            # The first write makes the table; several at once may try, and one wins.
            DeltaTable.create(path, rows.schema, mode="ignore", partition_by=[partition_column])
        column_type = rows.schema.field(partition_column).type
        literal = "DATE '{}'" if pa.types.is_date(column_type) else "'{}'"
        values = ", ".join(literal.format(p.replace("'", "''")) for p in sorted(set(partitions)))
        write_deltalake(path, rows, mode="overwrite", predicate=f"{partition_column} IN ({values})")
        return DeltaTable(path).version()


def _same_columns(key: dg.AssetKey, stored: pa.Schema, written: pa.Schema) -> None:
    """Other partitions keep their columns and types, and the writer would cast to those without a word."""
    # A column without a single value has no type of its own.
    types = {
        f.name: stored.field(f.name).type if pa.types.is_null(f.type) and f.name in stored.names else f.type
        for f in written
    }
    before = {f.name: f.type for f in stored}
    changed = [
        f"{name}: {before.get(name, 'absent')} is stored, {types.get(name, 'absent')} came"
        for name in before | types
        if before.get(name) != types.get(name)
    ]
    if changed:
        raise ValueError(
            f"{key.to_user_string()}: columns differ from those of the table in the lake ({'; '.join(changed)}). Give "
            "them the stored type in the asset; or remove the table and materialize all of its partitions again."
        )


class LakeIOManager(dg.IOManager):
    """Stores frames (pandas or pyarrow) in the lake, and hands them on as the parameter's annotation asks.

    Each materialization carries its rows, bytes, columns, the Delta version and a data version of its content;
    rows per partition where a step writes several.
    """

    def __init__(self, lake: Lake) -> None:
        self._lake = lake

    def handle_output(self, context: dg.OutputContext, obj: Frame) -> None:
        rows = to_arrow(obj)
        keys = partition_keys(context)
        column = partition_column(context) if keys is not None else None
        version = self._lake.replace(context.asset_key, rows, keys, column)
        step = context.step_context
        step.set_data_version(context.asset_key, dg.DataVersion(data_version(rows)))
        if keys is not None and column is not None:
            counted = Counter(rows[column].cast(pa.string()).to_pylist())
            for key in keys:
                step.add_asset_metadata(
                    {"dagster/partition_row_count": counted[key]}, asset_key=context.asset_key, partition_key=key
                )
        context.add_output_metadata(
            {
                "dagster/row_count": self._lake.row_count(context.asset_key),
                "dagster/column_schema": column_schema(rows.schema),
                "dagster/uri": self._lake.path(context.asset_key),
                "bytes": rows.nbytes,
                "delta_version": version,
            }
        )

    def load_input(self, context: dg.InputContext) -> Frame:
        keys = partition_keys(context)
        column = partition_column(context) if keys is not None else None
        rows = self._lake.read(context.asset_key, keys, column, wanted_columns(context))
        return as_annotated(rows, context)
