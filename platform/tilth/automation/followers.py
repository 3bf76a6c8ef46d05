"""What conditions would request once a run has recorded what it makes, taken into that run beforehand.

A sensor that finds arrivals requests the assets that hold them. What is made of those is requested by conditions when
they are recorded: a tick, a place in the queue and the start of a process later. Here the conditions are evaluated as
if the sensor's requests were their own, beside which they request what follows.
"""

from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of
from tilth._dagster.automation import requested_beside
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
    """The requests, each with those assets of `target` that would be requested next, for the same partitions.

    An asset is taken along when its condition requests all partitions of the request: what it reads beside is there,
    and neither that nor the asset itself is being made. A request that shares a partition with another stays as it is:
    what is made of both would be made twice.
    """
    with dg.partition_loading_context(dynamic_partitions_store=instance):
        return _with_followers(requests, instance, graph_of(repository), target)


def _with_followers(
    requests: Sequence[dg.RunRequest], instance: dg.DagsterInstance, graph: AssetGraph, target: dg.AssetSelection
) -> list[dg.RunRequest]:
    cut = [_partitions(request, graph) for request in requests]
    alone = [n for n, own in enumerate(cut) if not any(own & other for m, other in enumerate(cut) if m != n)]
    coming: dict[dg.AssetKey, set[str]] = {}
    for n in alone:
        for key in requests[n].asset_selection or ():
            coming.setdefault(key, set()).update(cut[n])
    requested = _requested(coming, instance, graph, graph.resolve(target)) if coming else {}
    order = [key for key in graph.keys if key in requested]
    return [
        _with(request, order, requested, cut[n], graph) if n in alone else request for n, request in enumerate(requests)
    ]


def _partitions(request: dg.RunRequest, graph: AssetGraph) -> Partitions:
    if request.partition_key is not None:
        return frozenset([request.partition_key])
    definition = graph.partitions(next(iter(request.asset_selection or ())))
    return frozenset(partitions_in(request.tags, definition) or [NO_PARTITION])


def _requested(
    coming: Mapping[dg.AssetKey, set[str]],
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    target: AbstractSet[dg.AssetKey],
) -> dict[dg.AssetKey, Partitions]:
    """What conditions would request now if this were requested, itself included."""
    below = set(coming)
    for key in graph.keys:
        if graph.parents(key) & below:
            below.add(key)
    followers = {key for key in target & below - coming.keys() if graph.condition(key) is not None}
    with kept_connections(instance):
        # As in a first tick: what is missing is requested, and what is beside a request.
        return requested_beside(instance, graph, coming, followers)


def _with(
    request: dg.RunRequest,
    order: Sequence[dg.AssetKey],
    requested: Mapping[dg.AssetKey, Partitions],
    partitions: Partitions,
    graph: AssetGraph,
) -> dg.RunRequest:
    """The request with what follows it; inputs before what is made of them in `order`."""
    chosen = list(request.asset_selection or ())
    definition = graph.partitions(chosen[0])
    for key in order:
        beside = {parent for parent in graph.parents(key) if requested.get(parent, frozenset()) & partitions}
        if (
            key not in chosen
            and graph.partitions(key) == definition
            and requested[key] >= partitions
            and len(partitions) <= (graph.partitions_per_run(key) or len(partitions))
            and beside
            and beside <= set(chosen)
        ):
            chosen.append(key)
    if len(chosen) == len(request.asset_selection or ()):
        return request
    return dg.RunRequest(
        run_key=request.run_key,
        asset_selection=chosen,
        # As Dagster does: a check with a condition of its own is evaluated when that says so.
        asset_check_keys=[check for check in graph.checks_of(chosen) if graph.condition(check) is None],
        partition_key=request.partition_key,
        tags=request.tags,
    )
