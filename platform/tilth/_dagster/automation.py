"""Conditions and their evaluation: those of our own, inputs that one leaves out, a sensor's tick, requests ahead."""

from abc import abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import Any

import dagster as dg
from dagster._core.definitions.asset_daemon_cursor import AssetDaemonCursor
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
from dagster._core.definitions.declarative_automation.automation_condition_evaluator import AutomationConditionEvaluator
from dagster._core.definitions.declarative_automation.operators.dep_operators import AnyDepsCondition
from dagster._core.definitions.declarative_automation.serialized_objects import AutomationConditionEvaluation
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor,
    asset_daemon_cursor_to_instigator_serialized_cursor,
)
from dagster_shared.record import copy, record

from tilth._dagster.asset_graph import AssetGraph
from tilth._dagster.event_log import NO_PARTITION

Cursor = AssetDaemonCursor
"""What conditions have seen so far."""

Inputs = Callable[[AssetGraph, dg.AssetKey], AbstractSet[dg.AssetKey]]
"""Some of the inputs of an asset."""


class OwnCondition(dg.AutomationCondition[dg.AssetKey]):
    """A condition that holds of what `holds_of` says, and needs no memory."""

    @property
    def requires_cursor(self) -> bool:
        return False

    @abstractmethod
    def holds_of(
        self, instance: dg.DagsterInstance, graph: AssetGraph, key: dg.AssetKey, candidates: set[str]
    ) -> set[str]:
        """Those of these partitions of the asset that it holds of; `NO_PARTITION` stands for an asset without any."""

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        candidates, view = context.candidate_subset, context.asset_graph_view
        if candidates.is_empty:
            return dg.AutomationResult(context, candidates)
        keys = candidates.expensively_compute_partition_keys() if candidates.is_partitioned else {NO_PARTITION}
        with dg.partition_loading_context(dynamic_partitions_store=view.instance):
            found = self.holds_of(view.instance, AssetGraph(view.asset_graph), context.key, {*keys})
        if candidates.is_partitioned:
            return dg.AutomationResult(context, candidates.compute_intersection_with_partition_keys(found))
        return dg.AutomationResult(context, candidates if found else context.get_empty_subset())


class _OfAssets(dg.AutomationCondition[dg.AssetKey]):
    def __init__(self, holds: Callable[[AssetGraph, dg.AssetKey], bool], description: str) -> None:
        self._holds, self._description = holds, description

    @property
    def description(self) -> str:
        return self._description

    @property
    def requires_cursor(self) -> bool:
        return False

    def evaluate(self, context: dg.AutomationContext) -> dg.AutomationResult:
        holds = self._holds(AssetGraph(context.asset_graph_view.asset_graph), context.key)
        return dg.AutomationResult(context, context.candidate_subset if holds else context.get_empty_subset())


def of_assets(holds: Callable[[AssetGraph, dg.AssetKey], bool], description: str) -> dg.AutomationCondition:
    """A condition that holds of all partitions of an asset or of none."""
    return _OfAssets(holds, description)


@record(checked=False)
class _AnyOtherInput(AnyDepsCondition):
    left_out: Any = None

    def _get_dep_keys(self, key: Any, asset_graph: Any) -> AbstractSet[dg.AssetKey]:
        return super()._get_dep_keys(key, asset_graph) - self.left_out(AssetGraph(asset_graph), key)


def any_input_matches(condition: dg.AutomationCondition, but: Inputs) -> dg.AutomationCondition:
    """The condition holds of a partition of an input that is read, of inputs other than those that `but` says."""
    return _AnyOtherInput(operand=condition, left_out=but)


class ConditionSensor(dg.AutomationConditionSensorDefinition):
    """A sensor over the conditions of assets, of which a subclass says what a tick does."""

    def skipped(self, context: dg.SensorEvaluationContext, why: str) -> SensorExecutionData:
        """What a tick hands over that evaluates nothing."""
        return SensorExecutionData(skip_message=why, cursor=context.cursor)

    def evaluated(
        self, context: dg.SensorEvaluationContext, result: Callable[[dg.SensorEvaluationContext], dg.SensorResult]
    ) -> SensorExecutionData:
        """What a tick hands over of which `result` is the result, checked as Dagster checks one."""
        self._evaluation_fn = lambda context: [result(context)]
        return super().evaluate_tick(context)

    def evaluate_conditions(
        self, context: dg.SensorEvaluationContext, graph: AssetGraph, seen: Cursor
    ) -> tuple[Sequence[dg.RunRequest], Cursor, Sequence[AutomationConditionEvaluation]]:
        """Evaluate all conditions, as Dagster's sensor does: what they request, what they have seen, and for the UI
        what they found.
        """
        requests, seen, evaluations = AutomationTickEvaluationContext(
            evaluation_id=seen.evaluation_id,
            instance=context.instance,
            asset_graph=graph.dagsters,
            cursor=seen,
            materialize_run_tags=self.run_tags,
            observe_run_tags={},
            auto_observe_asset_keys=set(),
            asset_selection=self.asset_selection,
            emit_backfills=self.emit_backfills,
            logger=context.log,
        ).evaluate()
        return requests, seen, evaluations


def with_requests(evaluated: SensorExecutionData, requests: Sequence[dg.RunRequest]) -> SensorExecutionData:
    """What a tick hands over, with these requests instead of its own."""
    return copy(evaluated, run_requests=requests)


def read_cursor(written: str | None, graph: AssetGraph) -> Cursor:
    """What a sensor's cursor says that conditions have seen."""
    return asset_daemon_cursor_from_instigator_serialized_cursor(written, graph.dagsters)


def written_cursor(seen: Cursor) -> str:
    """What conditions have seen, as a sensor's cursor."""
    return asset_daemon_cursor_to_instigator_serialized_cursor(seen)


def requested_beside(
    instance: dg.DagsterInstance,
    graph: AssetGraph,
    requested: Mapping[dg.AssetKey, Collection[str]],
    keys: AbstractSet[dg.AssetKey],
) -> dict[dg.AssetKey, frozenset[str]]:
    """By asset, the partitions that the conditions of these assets would request in a first tick, if these were
    requested in it too; these among them.
    """
    evaluator = AutomationConditionEvaluator(
        entity_keys=keys,
        instance=instance,
        asset_graph=graph.dagsters,
        cursor=AssetDaemonCursor.empty(),
        emit_backfills=False,
        evaluation_id=0,
    )
    view = evaluator.asset_graph_view
    for key, partitions in requested.items():
        definition = graph.partitions(key)
        evaluator.request_subsets_by_key[key] = (
            view.get_subset_from_partition_keys(key, definition, {*partitions})
            if definition
            else view.get_full_subset(key=key)
        )
    _, subsets = evaluator.evaluate()
    return {
        subset.key: frozenset(subset.expensively_compute_partition_keys() if subset.is_partitioned else [NO_PARTITION])
        for subset in subsets
        if isinstance(subset.key, dg.AssetKey)
    }
