"""What conditions would ask for once a run has recorded what it makes, taken into that run beforehand.

A sensor that finds arrivals asks for the assets that hold them. What is made of those is asked for by conditions when
they are recorded: a look, a place in the queue and the start of a process later. Here the conditions are evaluated as
if the sensor's requests were their own, beside which they ask for what follows.

Evaluating conditions for the requests of another sensor is no public API of Dagster: docs/upgrading.md names this file.
"""

from collections.abc import Mapping, Sequence, Set
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.declarative_automation.automation_condition_evaluator import AutomationConditionEvaluator

from tilth._dagster.connections import kept_connections
from tilth._dagster.event_log import NO_PARTITION
from tilth.automation.ranges import partitions_in

Partitions = frozenset[str]


def with_followers(
    requests: Sequence[dg.RunRequest],
    instance: dg.DagsterInstance,
    repository: dg.RepositoryDefinition,
    target: dg.AssetSelection,
) -> list[dg.RunRequest]:
    """The requests, each with those assets of `target` that would be asked for next, for the same partitions.

    An asset is taken along when its condition asks for all partitions of the request: what it reads beside is there,
    and neither that nor the asset itself is being made. A request that shares a partition with another stays as it is:
    what is made of both would be made twice.
    """
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return _with_followers(requests, instance, repository.asset_graph, target)


def _with_followers(
    requests: Sequence[dg.RunRequest], instance: dg.DagsterInstance, graph: Any, target: dg.AssetSelection
) -> list[dg.RunRequest]:
    cut = [_partitions(request, graph) for request in requests]
    alone = [n for n, own in enumerate(cut) if not any(own & other for m, other in enumerate(cut) if m != n)]
    coming: dict[dg.AssetKey, set[str]] = {}
    for n in alone:
        for key in requests[n].asset_selection or ():
            coming.setdefault(key, set()).update(cut[n])
    asked = _asked_for(coming, instance, graph, target.resolve(graph)) if coming else {}
    return [
        _with(request, [key for key in graph.toposorted_asset_keys if key in asked], asked, cut[n], graph)
        if n in alone
        else request
        for n, request in enumerate(requests)
    ]


def _partitions(request: dg.RunRequest, graph: Any) -> Partitions:
    if request.partition_key is not None:
        return frozenset([request.partition_key])
    definition = graph.get(next(iter(request.asset_selection or ()))).partitions_def
    return frozenset(partitions_in(request.tags, definition) or [NO_PARTITION])


def _asked_for(
    coming: Mapping[dg.AssetKey, set[str]], instance: dg.DagsterInstance, graph: Any, target: Set[dg.AssetKey]
) -> dict[dg.AssetKey, Partitions]:
    """What conditions would ask for now if this were asked for, itself included."""
    below = set(coming)
    for key in graph.toposorted_asset_keys:
        if graph.get(key).parent_keys & below:
            below.add(key)
    followers = {key for key in target & below - coming.keys() if graph.get(key).automation_condition is not None}
    with kept_connections(instance):
        evaluator = AutomationConditionEvaluator(
            entity_keys=followers,
            instance=instance,
            asset_graph=graph,
            # As at a first look: what is missing is asked for, and what is beside a request.
            cursor=AssetDaemonCursor.empty(),
            emit_backfills=False,
            evaluation_id=0,
        )
        view = evaluator.asset_graph_view
        for key, partitions in coming.items():
            definition = graph.get(key).partitions_def
            evaluator.request_subsets_by_key[key] = (
                view.get_subset_from_partition_keys(key, definition, partitions)
                if definition
                else view.get_full_subset(key=key)
            )
        _, subsets = evaluator.evaluate()
        return {
            subset.key: frozenset(
                subset.expensively_compute_partition_keys() if subset.is_partitioned else [NO_PARTITION]
            )
            for subset in subsets
            if isinstance(subset.key, dg.AssetKey)
        }


def _with(
    request: dg.RunRequest,
    order: Sequence[dg.AssetKey],
    asked: Mapping[dg.AssetKey, Partitions],
    partitions: Partitions,
    graph: Any,
) -> dg.RunRequest:
    """The request with what follows it; inputs before what is made of them in `order`."""
    chosen = list(request.asset_selection or ())
    definition = graph.get(chosen[0]).partitions_def
    for key in order:
        node = graph.get(key)
        policy = node.backfill_policy or dg.BackfillPolicy.multi_run(1)
        beside = {parent for parent in node.parent_keys if asked.get(parent, frozenset()) & partitions}
        if (
            key not in chosen
            and node.partitions_def == definition
            and asked[key] >= partitions
            and len(partitions) <= (policy.max_partitions_per_run or len(partitions))
            and beside
            and beside <= set(chosen)
        ):
            chosen.append(key)
    if len(chosen) == len(request.asset_selection or ()):
        return request
    checks = graph.get_check_keys_for_assets(set(chosen))
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=chosen,
        # As Dagster does: a check with a condition of its own is evaluated when that says so.
        asset_check_keys=[check for check in checks if graph.get(check).automation_condition is None],
        partition_key=request.partition_key,
        tags=request.tags,
    )
