"""The lake: one Delta table per asset, replaced partition by partition in one commit, every version readable again.

`dagster-deltalake` 0.29.27 was looked at first. It writes a range of days as if it were its first day, takes no list of
partitions, evolves no schema and checks none, reads neither versions nor points in time, records nothing per partition
but counts, and its pandas part needs pandas below 3.
"""

import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import partial
from typing import Self
from urllib.parse import unquote

import dagster as dg
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.dataset as ds
import pyarrow.fs
import pyarrow.parquet as pq
from deltalake import CommitProperties, DeltaTable, Field, WriterProperties, write_deltalake
from deltalake.exceptions import CommitFailedError, TableNotFoundError

from resources.lake_errors import LakeError, explained
from resources.lake_partitions import boxes, guarantee, predicate, refuse_foreign
from resources.lake_schema import fitted, in_one_piece, storable
from tilth.conversion import PIECE_BYTES
from tilth.partition_keys import row_keys
from tilth.settings import Deployment

# Row groups an eighth of the default's size, so that the writer holds less of a large table.
_GROUP_ROWS = 2**17

# The log is what makes an old version readable; only `lake_maintenance` may take anything away. What came since the
# last checkpoint is read one commit at a time: with a checkpoint every 20, a commit takes half as long as with 100.
_CONFIGURATION = {"delta.enableExpiredLogCleanup": "false", "delta.checkpointInterval": "20"}

# A commit that finds others before it is renumbered and tried again, at a few milliseconds each.
_COMMIT = CommitProperties(max_commit_retries=200)

# Files are not made larger than this: pyarrow's scan has four of them in hand at a time.
FILE_BYTES = 32 * 2**20

# A write that finds its own partition changed by another since it began starts over.
_ATTEMPTS = 20


@dataclass(frozen=True)
class Lake:
    """Delta tables under `<uri>/<branch>/<asset key>`; works in a notebook without Dagster running.

    `uri` is a folder, or an address that object stores go by (`s3://…`, `gs://…`, `abfss://…`); `storage_options` are
    delta-rs' for it. Credentials are better left to the environment, where delta-rs finds them too. Assets are named by
    their key or as text, `features/departures`; partitions by Dagster's keys.
    """

    uri: str
    branch: str = "main"
    storage_options: Mapping[str, str] = field(default_factory=dict, repr=False)

    @classmethod
    def of(cls, deployment: Deployment) -> Self:
        """The lake of a deployment."""
        return cls(deployment.lake_uri, deployment.branch, deployment.storage_options)

    def path(self, asset: dg.AssetKey | str) -> str:
        """Where the asset's table lies.

        Raises:
            LakeError: the address holds a character that delta-rs loses.
        """
        if odd := [part for part in _key(asset).path if part in ("", ".", "..", "_delta_log") or "/" in part]:
            raise LakeError(f"{_name(asset)}: {odd[0]!r} in an asset key names no folder of its own; choose another.")
        path = "/".join([self.uri.rstrip("/"), self.branch, *_key(asset).path])
        # It decodes a percent sign once too often, and in an address takes what follows the others for no part of it.
        if lost := [character for character in ("%#?" if "://" in path else "%") if character in path]:
            raise LakeError(f"{path}: delta-rs cannot store tables under a path with {lost[0]}: choose another for it.")
        return path

    def read(
        self,
        asset: dg.AssetKey | str,
        partitions: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
        *,
        as_of: datetime | str | None = None,
        filters: Sequence[object] | None = None,
    ) -> pa.Table:
        """The asset's rows, in the order of the partitions' values and within each as they were written.

        Args:
            partitions: only these; None for all.
            columns: only these; None for all.
            version: as the table was at this version; None for the latest.
            as_of: as the table was at this time, with its zone; ISO 8601 as text.
            filters: only rows that meet them, as pyarrow's `read_table` takes them: `[("carrier", "=", "UA")]`.

        Raises:
            LakeError: nothing was stored for this asset, there is no such version or column, a file is damaged, or the
                store cannot be reached; with what to do.
        """
        found = self.dataset(asset, partitions, version=version, as_of=as_of, filters=filters)
        with explained(self.path(asset), f"{_name(asset)} cannot be read"):
            _known(asset, found.schema, columns)
            return found.to_table(
                columns=None if columns is None else list(columns),
                # Arrow's own pool keeps what it frees for a while, and pandas takes its share at that moment.
                memory_pool=pa.system_memory_pool(),
            )

    def dataset(
        self,
        asset: dg.AssetKey | str,
        partitions: Sequence[str] | None = None,
        columns: Sequence[str] | None = None,
        version: int | None = None,
        *,
        as_of: datetime | str | None = None,
        filters: Sequence[object] | None = None,
    ) -> ds.Dataset:
        """As `read`, without reading: what is larger than memory is scanned in batches. A dataset has no projection of
        its own, so it holds the columns of its filters too.

        Raises:
            LakeError: as `read`.
        """
        with explained(self.path(asset), f"{_name(asset)} cannot be read"):
            table = self.table(asset, version, as_of)
            names, kept = table.metadata().partition_columns, None
            if partitions is not None:
                if not names:
                    raise LakeError(f"{_name(asset)} is not partitioned: read it without naming partitions.")
                kept = [
                    [(name, "in", values) for name, values in zip(names, box, strict=True)]
                    for box in boxes(partitions, len(names))
                ]
            nothing = partitions is not None and not partitions
            whole = table.to_pyarrow_dataset(
                filesystem=self._filesystem(asset), file_pruning_predicate=None if nothing else kept
            )
            # The log lists files in no order. A write numbers those of a partition in the order of its rows.
            listed = [] if nothing else sorted(whole.get_fragments(), key=partial(_place, names))
            reader, schema = self._format(), whole.schema
            # What a file's columns hold matters to filters alone, and is slow to tell of many files.
            log = pa.table(table.get_add_actions(flatten=True)).to_pylist() if filters else []
            ends = {unquote(file["path"]): file for file in log}
            fragments = [
                reader.make_fragment(
                    file.path,
                    whole.filesystem,
                    partition_expression=guarantee(
                        schema, ds.get_partition_keys(file.partition_expression), names, ends.get(file.path, {})
                    ),
                )
                for file in listed
            ]
            _known(asset, schema, _filtered(filters))
            if columns is not None:
                _known(asset, schema, columns)
                needed = [*columns, *(name for name in _filtered(filters) if name not in columns)]
                schema = pa.schema([schema.field(name) for name in needed])
            found = ds.FileSystemDataset(fragments, schema, reader, whole.filesystem)
            return found if not filters else found.filter(_expression(filters))

    def replace(
        self,
        asset: dg.AssetKey | str,
        rows: pa.Table,
        partitions: Sequence[str] | None = None,
        partition_columns: Sequence[str] = (),
    ) -> int:
        """Put `rows` in place of those of `partitions` (of all rows for None) in one commit; the new version.

        A reader sees the table before or after it. Writers of different partitions do not disturb each other; of two
        that write the same one, the later wins whole.

        Args:
            partition_columns: those that hold the partition key, one for each of its dimensions in their order.

        Raises:
            ValueError: a row lies outside of the partitions that are written, or the columns do not fit the table's.
            LakeError: the store took nothing; the table holds what it held.
        """
        name, columns = _name(asset), list(partition_columns)
        if partitions is not None:
            refuse_foreign(name, rows, columns, partitions)
        with explained(self.path(asset), f"{name} cannot be written"):
            for attempt in range(_ATTEMPTS):
                table = self._table_for(asset, columns)
                stored = pa.schema(table.schema().to_arrow()) if table else None
                anew = False
                try:
                    data, added = fitted(name, rows, stored)
                except ValueError:
                    # The columns of a table without any row, such as an empty first partition's, say nothing of others.
                    anew = table is not None and table.count() == 0
                    if not anew:
                        raise
                    data, added = fitted(name, rows, None)
                where = None if partitions is None else predicate(name, data.schema, columns, partitions)
                try:
                    if table is None:
                        table = self._create(asset, data.schema, columns)
                    if added:
                        # First, and null in every row: merged with the data they would reorder the others.
                        table.alter.add_columns([Field.from_arrow(field) for field in added])
                    write_deltalake(
                        table,
                        in_one_piece(data),
                        mode="overwrite",
                        predicate=None if anew else where,
                        schema_mode="overwrite" if anew else None,
                        partition_by=(columns or None) if anew else None,
                        target_file_size=FILE_BYTES,
                        writer_properties=_written(data),
                        # Another's first rows, written meanwhile, have the old types.
                        commit_properties=CommitProperties(max_commit_retries=0) if anew else _COMMIT,
                    )
                except CommitFailedError:
                    if attempt == _ATTEMPTS - 1:
                        raise
                    time.sleep(random.uniform(0.01, 0.1) * (attempt + 1))  # noqa: S311
                else:
                    return table.version()
        raise AssertionError("unreachable")

    def migrate(self, asset: dg.AssetKey | str, schema: pa.Schema) -> int:
        """Give the whole table these columns and types in one commit; the new version. Older versions keep theirs.

        Columns that the table lacks are null, those that `schema` lacks go; every value must fit its new type.

        Raises:
            LakeError: a value does not fit, or a partition column would go; the table holds what it held.
            ValueError: the lake has no such type.
        """
        with explained(self.path(asset), f"{_name(asset)} cannot be migrated"):
            table = self.table(asset)
            schema = storable(_name(asset), schema)
            kept = table.metadata().partition_columns
            if missing := [name for name in kept if name not in schema.names]:
                raise LakeError(f"{_name(asset)} is partitioned by {', '.join(missing)}: keep them in the schema.")
            whole = self.dataset(asset)
            projection = {
                f.name: (ds.field(f.name) if f.name in whole.schema.names else pc.scalar(None)).cast(f.type)
                for f in schema
            }
            data = whole.to_table(columns=projection)
            write_deltalake(
                table,
                in_one_piece(data),
                mode="overwrite",
                schema_mode="overwrite",
                partition_by=kept or None,
                target_file_size=FILE_BYTES,
                writer_properties=_written(data),
                commit_properties=_COMMIT,
            )
            return table.version()

    def table(
        self, asset: dg.AssetKey | str, version: int | None = None, as_of: datetime | str | None = None
    ) -> DeltaTable:
        """The Delta table itself, at this version or time; its log is read, no data.

        Raises:
            LakeError: nothing was stored for this asset, or there is no such version.
        """
        if version is not None and as_of is not None:
            raise LakeError(f"{_name(asset)}: name a version or a time (as_of), not both.")
        try:
            table = DeltaTable(self.path(asset), storage_options=dict(self.storage_options))
        except TableNotFoundError:
            raise LakeError(f"{_name(asset)} is not in the lake at {self.path(asset)}; materialize it first.") from None
        latest = table.version()
        if version is not None:
            if not 0 <= version <= latest:
                raise LakeError(f"{_name(asset)} has no version {version}: it has 0 to {latest}.")
            table.load_as_version(version)
        if as_of is not None:
            # By the times in the log: those of its files are whole seconds on S3, and change when a lake is copied.
            stored = {entry["version"]: entry["timestamp"] for entry in table.history()}
            milliseconds = _moment(asset, as_of).timestamp() * 1000
            if min(stored.values()) > milliseconds:
                began = datetime.fromtimestamp(min(stored.values()) / 1000, UTC)
                raise LakeError(f"{_name(asset)} was first stored at {began.isoformat()}, after {as_of}.")
            table.load_as_version(max(version for version, at in stored.items() if at <= milliseconds))
        return table

    def holds(self, asset: dg.AssetKey | str) -> bool:
        """Whether anything was stored for this asset."""
        with explained(self.path(asset), f"{_name(asset)} cannot be read"):
            return DeltaTable.is_deltatable(self.path(asset), storage_options=dict(self.storage_options))

    def row_count(self, asset: dg.AssetKey | str) -> int:
        """Rows in the whole table, from its log, without reading data."""
        with explained(self.path(asset), f"{_name(asset)} cannot be read"):
            return self.table(asset).count()

    def files(self, asset: dg.AssetKey | str, version: int | None = None) -> pa.Table:
        """One row per file of the version, or of the latest, from the log: path, size_bytes, num_records and partition,
        its key as text (null where the table is not partitioned).
        """
        with explained(self.path(asset), f"{_name(asset)} cannot be read"):
            table = self.table(asset, version)
            listed = pa.table(table.get_add_actions(flatten=True))
            columns = [f"partition.{name}" for name in table.metadata().partition_columns]
            key = row_keys(listed, columns) if columns else pa.nulls(len(listed), pa.string())
            return listed.select(["path", "size_bytes", "num_records"]).append_column("partition", key)

    def _filesystem(self, asset: dg.AssetKey | str) -> pyarrow.fs.FileSystem | None:
        """pyarrow's own for local files, in a fraction of the time that delta-rs' takes; None for that one."""
        local = pyarrow.fs.LocalFileSystem()
        return None if "://" in self.uri else pyarrow.fs.SubTreeFileSystem(self.path(asset), local)

    def _format(self) -> ds.ParquetFileFormat:
        # Fetching whole column chunks ahead saves round trips to a store, and costs memory for nothing on a disk: there
        # they are read bit by bit, a seventh less memory in a scan of a large table.
        remote = "://" in self.uri
        return ds.ParquetFileFormat(
            default_fragment_scan_options=ds.ParquetFragmentScanOptions(
                pre_buffer=remote, use_buffered_stream=not remote
            )
        )

    def _table_for(self, asset: dg.AssetKey | str, columns: list[str]) -> DeltaTable | None:
        """The asset's table, if it is there and partitioned like this."""
        try:
            table = DeltaTable(self.path(asset), storage_options=dict(self.storage_options))
        except TableNotFoundError:
            return None
        before = table.metadata().partition_columns
        if before != columns:
            raise LakeError(
                f"{_name(asset)} is partitioned by {before or 'nothing'} in the lake and by {columns or 'nothing'} in "
                f"its asset. Move {self.path(asset)} away, then materialize all of its partitions."
            )
        return table

    def _create(self, asset: dg.AssetKey | str, schema: pa.Schema, columns: list[str]) -> DeltaTable:
        # Several writers at once may try, and one wins.
        DeltaTable.create(
            self.path(asset),
            schema,
            mode="ignore",
            partition_by=columns or None,
            configuration=_CONFIGURATION,
            storage_options=dict(self.storage_options),
        )
        return DeltaTable(self.path(asset), storage_options=dict(self.storage_options))


def _key(asset: dg.AssetKey | str) -> dg.AssetKey:
    return asset if isinstance(asset, dg.AssetKey) else dg.AssetKey.from_user_string(asset)


def _name(asset: dg.AssetKey | str) -> str:
    return _key(asset).to_user_string()


def _written(rows: pa.Table) -> WriterProperties:
    """How the rows' Parquet files are written. Small dictionaries are given up soon where hardly a value occurs twice:
    a quarter less CPU on 5 million rows, and no larger files. A row group's text is read in one piece.
    """
    in_a_piece = PIECE_BYTES // 4 * rows.num_rows // max(rows.nbytes, 1)
    return WriterProperties(
        compression="ZSTD",
        compression_level=1,
        max_row_group_size=max(1, min(_GROUP_ROWS, in_a_piece)) if rows.num_rows else _GROUP_ROWS,
        dictionary_page_size_limit=2**16,
    )


def _place(names: Sequence[str], file: ds.ParquetFileFragment) -> tuple[list[object], str]:
    partition = ds.get_partition_keys(file.partition_expression)
    return [partition[name] for name in names], file.path


def _moment(asset: dg.AssetKey | str, as_of: datetime | str) -> datetime:
    try:
        moment = datetime.fromisoformat(as_of) if isinstance(as_of, str) else as_of
    except ValueError:
        moment = None
    if moment is None or moment.tzinfo is None:
        raise LakeError(f"{_name(asset)}: as_of = {as_of} is no time with a zone, such as 2013-01-31T18:00:00+00:00.")
    return moment


def _known(asset: dg.AssetKey | str, schema: pa.Schema, columns: Sequence[str] | None) -> None:
    if unknown := [name for name in columns or () if name not in schema.names]:
        raise LakeError(f"{_name(asset)} has no column {', '.join(unknown)}; it has {', '.join(schema.names)}.")


def _expression(filters: Sequence[object] | None) -> ds.Expression | None:
    return pq.filters_to_expression(list(filters)) if filters else None


def _filtered(filters: Sequence[object] | None) -> list[str]:
    """The columns that filters name, in either of pyarrow's forms."""
    terms = [term for part in filters or () for term in (part if isinstance(part, list) else [part])]
    return list(dict.fromkeys(str(term[0]) for term in terms))  # pyright: ignore[reportIndexIssue]
