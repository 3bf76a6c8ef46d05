"""Keeping the lake lean: small files of a partition into one, and files away that no kept version needs."""

from collections.abc import Callable, Collection, Mapping

import dagster as dg
import pyarrow.compute as pc
from pydantic import Field

from resources.lake import FILE_BYTES, Lake
from resources.lake_errors import LakeError, explained
from tilth._dagster.asset_graph import graph_of

# By asset, the versions of its table that must stay readable whatever their age: those that models name.
KeptVersions = Callable[[dg.DagsterInstance], Mapping[dg.AssetKey, Collection[int]]]


class Maintenance(dg.Config):
    """What `lake_maintenance` may take away."""

    retention_days: int = Field(
        400,
        ge=1,
        description="a version can be read for this long after it was replaced; longer where a model names it",
    )


def lake_maintenance(lake: Lake, kept: KeptVersions, also: Collection[dg.AssetKey] = ()) -> dg.JobDefinition:
    """The job `lake_maintenance`, over all tables of the location's assets and those of `also`.

    A partition in several files that fit into one is written again as one, its rows in their order (delta-rs' own
    compaction mixes them). Files are removed that no version of the last `retention_days` and none of `kept` holds,
    those of writers that were killed among them. A table that cannot be maintained is named at the end and holds no
    other back.
    """

    @dg.op
    def maintain(context: dg.OpExecutionContext, config: Maintenance) -> None:
        keys = {*graph_of(context.repository_def).keys, *also}
        versions, failed = kept(context.instance), []
        for key in sorted(keys):
            try:
                if not lake.holds(key):
                    continue
                compacted = compact(lake, key)
                removed = vacuum(lake, key, config.retention_days, versions.get(key, ()))
            except LakeError as error:
                failed.append(str(error))
            else:
                context.log.info(f"{key.to_user_string()}: {compacted} partitions compacted, {removed} files removed")
        if failed:
            raise dg.Failure(f"{len(failed)} tables could not be maintained; the others were.\n" + "\n".join(failed))

    @dg.job(name="lake_maintenance", description="Compact the lake's tables and remove what no kept version needs.")
    def job() -> None:
        maintain()

    return job


def compact(lake: Lake, asset: dg.AssetKey) -> int:
    """Write each partition whose several files fit into one as one, in a commit each; how many there were.

    Raises:
        LakeError: the store refuses; the partition stays as it is.
    """
    listed = lake.files(asset).group_by("partition").aggregate([("path", "count"), ("size_bytes", "sum")])
    small = listed.filter((pc.field("path_count") > 1) & (pc.field("size_bytes_sum") <= FILE_BYTES))
    columns = lake.table(asset).metadata().partition_columns
    for partition in small["partition"].to_pylist():
        keys = [partition] if columns else None
        lake.replace(asset, lake.read(asset, keys), keys, columns)
    return small.num_rows


def vacuum(lake: Lake, asset: dg.AssetKey, retention_days: float, kept: Collection[int] = ()) -> int:
    """Remove the files that no version of the last days and none of those kept holds; how many there were.

    Raises:
        LakeError: a kept version does not exist, or the store refuses.
    """
    with explained(lake.path(asset), f"{asset.to_user_string()} cannot be vacuumed"):
        table = lake.table(asset)
        if wrong := [version for version in kept if not 0 <= version <= table.version()]:
            raise LakeError(f"{asset.to_user_string()} has no version {wrong} to keep: it has 0 to {table.version()}.")
        hours, keep = round(24 * retention_days), sorted(kept) or None
        # All that the folder holds and this table does not know. Another table in it, whose key begins with this one's,
        # would be taken for what killed writers left: then only what the log calls replaced may go.
        strays = table.vacuum(0, dry_run=True, enforce_retention_duration=False, full=True)
        alone = not any("/_delta_log/" in path for path in strays)
        removed = table.vacuum(hours, dry_run=False, enforce_retention_duration=False, full=alone, keep_versions=keep)
        return len(removed)
