"""What definitions say of their assets: what each reads, how it is partitioned, when and by which op it is made."""

from collections.abc import Callable, Collection, Hashable, Iterable, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any, cast

import dagster as dg
from dagster._core.definitions.assets.graph.asset_graph import AssetGraph as DagsterGraph
from dagster._core.definitions.assets.graph.asset_graph import AssetNode
from dagster._core.definitions.assets.graph.base_asset_graph import BaseAssetGraph
from dagster._core.definitions.freshness import FreshnessPolicy

from tilth._dagster.event_log import NO_PARTITION

Reads = dict[dg.AssetKey, list[str]]
"""By upstream asset, the partitions that are read of it."""


class AssetGraph:
    """The assets of a code location. It asks for the keys of partitions once, so keep it no longer than a tick.

    Where partitions are asked for, do it in a `dg.partition_loading_context` of the instance, which keeps the keys of
    dynamic partitions.
    """

    def __init__(self, graph: BaseAssetGraph[Any]) -> None:
        # Of code that is loaded, as it is wherever this library runs.
        self.dagsters = cast(DagsterGraph, graph)
        self._keys: dict[dg.PartitionsDefinition, Sequence[str]] = {}

    def __contains__(self, key: dg.AssetKey) -> bool:
        return self.dagsters.has(key)

    @property
    def keys(self) -> Sequence[dg.AssetKey]:
        """All assets, upstream before downstream."""
        return self.dagsters.toposorted_asset_keys

    @property
    def materializable(self) -> AbstractSet[dg.AssetKey]:
        """The assets that a run can make."""
        return self.dagsters.materializable_asset_keys

    @property
    def checks(self) -> AbstractSet[dg.AssetCheckKey]:
        """The checks of all assets."""
        return self.dagsters.asset_check_keys

    @property
    def pools(self) -> set[str]:
        """The pools that any asset is in."""
        return {pool for node in self.dagsters.asset_nodes for pool in node.pools or ()}

    def resolve(self, selection: dg.AssetSelection, *, allow_missing: bool = False) -> AbstractSet[dg.AssetKey]:
        """The assets that are selected.

        Raises:
            DagsterError: one that the definitions lack is named, unless that is allowed.
        """
        return selection.resolve(self.dagsters, allow_missing=allow_missing)

    def resolve_checks(self, selection: dg.AssetSelection) -> AbstractSet[dg.AssetCheckKey]:
        """The checks that are selected, those of selected assets among them."""
        return selection.resolve_checks(self.dagsters)

    def parents(self, key: dg.AssetKey) -> AbstractSet[dg.AssetKey]:
        """What the asset reads; itself among them where it reads its own earlier partitions."""
        return self._node(key).parent_keys

    def group(self, key: dg.AssetKey) -> str:
        return self._node(key).group_name

    def owners(self, key: dg.AssetKey) -> Sequence[str]:
        return self._node(key).owners

    def freshness_policy(self, key: dg.AssetKey) -> FreshnessPolicy | None:
        return self._node(key).freshness_policy

    def condition(self, key: dg.AssetKey | dg.AssetCheckKey) -> dg.AutomationCondition | None:
        return self.dagsters.get(key).automation_condition

    def partitions(self, key: dg.AssetKey | dg.AssetCheckKey) -> dg.PartitionsDefinition | None:
        return self.dagsters.get(key).partitions_def

    def partition_keys(self, key: dg.AssetKey) -> Sequence[str]:
        """The asset's partitions; `NO_PARTITION` alone where it has none."""
        definition = self.partitions(key)
        if definition is None:
            return [NO_PARTITION]
        if definition not in self._keys:  # a thousand days take 20 ms to say
            self._keys[definition] = definition.get_partition_keys()
        return self._keys[definition]

    def checks_of(self, keys: Iterable[dg.AssetKey]) -> AbstractSet[dg.AssetCheckKey]:
        return self.dagsters.get_check_keys_for_assets(set(keys))

    def partitions_per_run(self, key: dg.AssetKey) -> int | None:
        """How many partitions of the asset one run may make, by its backfill policy; None for any number."""
        policy = self._node(key).backfill_policy
        return 1 if policy is None else policy.max_partitions_per_run

    def op(self, key: dg.AssetKey) -> Hashable:
        """What is the same for assets that one op makes, and different for others."""
        return id(self._node(key).assets_def)

    def input_metadata(self, key: dg.AssetKey, parent: dg.AssetKey) -> Mapping[str, object]:
        """What the asset says of an input: the metadata of its `AssetIn` or `AssetDep`."""
        definition = self._node(key).assets_def
        found: dict[str, object] = {}
        for dependency in definition.specs_by_key[key].deps:
            if dependency.asset_key == parent:
                found |= dependency.metadata
        if definition.computation:
            for name, of_input in definition.computation.keys_by_input_name.items():
                if of_input == parent:
                    found |= definition.computation.node_def.input_dict[name].metadata
        return {name: said.value if isinstance(said, dg.MetadataValue) else said for name, said in found.items()}

    def reads(self, key: dg.AssetKey, partitions: Iterable[str]) -> dict[str, Reads]:
        """By partition of the asset, those that it reads of each asset directly upstream of it."""
        own = self.partitions(key)
        reads: dict[str, Reads] = {partition: {} for partition in partitions}
        for parent in sorted(self.parents(key)):
            theirs = self.partitions(parent)
            mapping = self.dagsters.get_partition_mapping(key, parent_asset_key=parent) if theirs else None
            # Dagster maps one partition at a time in 0.1 ms, which for a thousand assets of a thousand days is minutes.
            same = own == theirs and _is_one_to_one(mapping)
            for partition, read in reads.items():
                if theirs is None or mapping is None or same:
                    read[parent] = [NO_PARTITION if theirs is None else partition]
                    continue
                subset = own.subset_with_partition_keys([partition]) if own else None
                mapped = mapping.get_upstream_mapped_partitions_result_for_partitions(subset, own, theirs)
                read[parent] = list(mapped.partitions_subset.get_partition_keys())
        return reads

    def reading(self, key: dg.AssetKey, parent: dg.AssetKey, partitions: Collection[str]) -> Collection[str]:
        """The asset's partitions that read any of these partitions of its parent."""
        own, theirs = self.partitions(key), self.partitions(parent)
        if own is None or theirs is None:
            return self.partition_keys(key) if partitions else []
        mapping = self.dagsters.get_partition_mapping(key, parent_asset_key=parent)
        read = theirs.subset_with_partition_keys(set(partitions).intersection(self.partition_keys(parent)))
        return set(mapping.get_downstream_partitions_for_partitions(read, theirs, own).get_partition_keys())

    def _node(self, key: dg.AssetKey) -> AssetNode:
        return self.dagsters.get(key)


def graph_of(defined: dg.RepositoryDefinition | dg.Definitions | Sequence[dg.AssetsDefinition]) -> AssetGraph:
    """The graph of these definitions, or of assets that are not part of any yet."""
    if isinstance(defined, dg.Definitions):  # a tuple too, like all of Dagster's records
        return AssetGraph(defined.resolve_asset_graph())
    if isinstance(defined, dg.RepositoryDefinition):
        return AssetGraph(defined.asset_graph)
    return AssetGraph(DagsterGraph.from_assets(defined))


def function_of(asset: dg.AssetsDefinition) -> Callable[..., Any] | None:
    """The function that makes the asset, as a person wrote it; None where no single one does."""
    op = asset.node_def if asset.is_executable else None
    wrapped: Any = op.compute_fn if isinstance(op, dg.OpDefinition) else None
    return wrapped.decorated_fn if wrapped else None


def graph_of_run(context: dg.AssetExecutionContext | dg.AssetCheckExecutionContext) -> AssetGraph:
    """The graph of all that the run's job was made of, upstream of what it makes too."""
    return AssetGraph(context.job_def.asset_layer.asset_graph.source_asset_graph)


def _is_one_to_one(mapping: dg.PartitionMapping | None) -> bool:
    if isinstance(mapping, dg.TimeWindowPartitionMapping):
        return mapping.start_offset == mapping.end_offset == 0
    return isinstance(mapping, dg.IdentityPartitionMapping)
