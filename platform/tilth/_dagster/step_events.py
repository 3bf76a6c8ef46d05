"""A step as it runs: what Dagster knows of it, and what it records of the assets that the step makes.

Dagster makes the asset events of a step's output by one function, and has no public way to say anything about them.
This file replaces that function, once; what changes the events is handed to it.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_IS_USER_PROVIDED_TAG, DATA_VERSION_TAG
from dagster._core.definitions.utils import NoValueSentinel
from dagster._core.execution.context.system import StepExecutionContext
from dagster._core.execution.plan import execute_step
from dagster._core.execution.plan.outputs import StepOutputHandle

from tilth._dagster.asset_graph import AssetGraph


class Step:
    """The step that runs."""

    def __init__(self, context: StepExecutionContext) -> None:
        self._context = context
        self.run_id, self.key, self.instance = context.run_id, context.step.key, context.instance

    @property
    def tags(self) -> Mapping[str, str]:
        """The tags of its op."""
        return self._context.step.tags or {}

    @property
    def graph(self) -> AssetGraph:
        """The graph of all that its job was made of."""
        return AssetGraph(self._context.job_def.asset_layer.asset_graph.source_asset_graph)

    def input_event(self, key: dg.AssetKey) -> int | None:
        """The number of the latest event of an input as the step began; 0 for none, None where it is no input."""
        seen = self._context.maybe_fetch_and_get_input_asset_version_info(key)
        return None if seen is None else seen.storage_id

    def set_data_version(self, key: dg.AssetKey, version: str) -> None:
        """Let an asset that it makes have this data version, whatever its partition."""
        self._context.set_data_version(key, dg.DataVersion(version))

    def add_metadata(self, key: dg.AssetKey, metadata: Mapping[str, Any], partition: str | None = None) -> None:
        """Add metadata to what it records of an asset, of one partition or of all."""
        self._context.add_asset_metadata(metadata, asset_key=key, partition_key=partition)

    def planned(self, key: dg.AssetKey, output: str, execution_type: Any) -> list[dg.AssetMaterialization]:
        """What would be recorded now of the asset that is this output, for all of its partitions."""
        events = execute_step._get_output_asset_events(
            key,
            self._context.get_output_context(StepOutputHandle(self.key, output)).asset_partition_keys,
            dg.Output(None, output),
            self._context.op_def.output_def_named(output),
            {},
            self._context,
            execution_type,
        )
        return [event for event in events if isinstance(event, dg.AssetMaterialization)]

    def store(self, output: str, key: dg.AssetKey, partition: str, made: dg.MaterializeResult[Any]) -> dict[str, Any]:
        """Store a partition's value by the IO manager of this output, which sees a step of this one partition; what
        that, and the step, say of the partition.
        """
        said: Mapping[str, Any] = {}
        if made.value is not NoValueSentinel:
            handle = StepOutputHandle(self.key, output)
            context = self._context.get_output_context(handle, made.metadata)
            context._asset_partitions_subset = context.asset_partitions_def.subset_with_partition_keys([partition])
            context._partition_key = partition
            for _ in self._context.get_io_manager(handle).handle_output(context, made.value) or ():
                pass  # one that is a generator stores while it is read
            said = context.consume_logged_metadata()
        return {**said, **(self._context.get_asset_metadata(key, partition) or {})}


def step_of(context: dg.AssetExecutionContext | dg.OutputContext) -> Step:
    """The step that this is the context of."""
    return Step(context.step_context if isinstance(context, dg.OutputContext) else context.get_step_execution_context())


def upstream_first(context: dg.AssetExecutionContext) -> list[dg.AssetKey]:
    """The assets that the step makes, each after those that it is made from."""
    return [key for key in step_of(context).graph.keys if key in context.selected_asset_keys]


def planned_materializations(context: dg.AssetExecutionContext) -> dict[str, dg.AssetMaterialization]:
    """By partition of the step's one asset, what Dagster would record of it now: its tags, and the metadata that is
    the same for all, but no content.
    """
    events = step_of(context).planned(context.asset_key, output_name(context), context.assets_def.execution_type)
    return {str(event.partition): event for event in events}


def output_name(context: dg.AssetExecutionContext) -> str:
    """The name of the step's one output, which is its asset."""
    return context.assets_def.get_output_name_for_asset_key(context.asset_key)


def with_version(event: dg.AssetMaterialization, version: str) -> dg.AssetMaterialization:
    """The event with this data version, as if the asset itself had said it."""
    return with_tags(event, {DATA_VERSION_TAG: version, DATA_VERSION_IS_USER_PROVIDED_TAG: "true"})


def with_tags(event: dg.AssetMaterialization, tags: Mapping[str, str]) -> dg.AssetMaterialization:
    """The event with these tags too."""
    return dg.AssetMaterialization(
        asset_key=event.asset_key,
        description=event.description,
        metadata=event.metadata,
        partition=event.partition,
        tags={**(event.tags or {}), **tags},
    )


Change = Callable[[Step, dg.AssetKey, list[dg.AssetMaterialization]], list[dg.AssetMaterialization]]
"""Of the materializations of one of its assets that a step is about to record, those that it shall record instead."""

_changes: tuple[Change, ...] = ()
_dagsters = execute_step._get_output_asset_events


def change_materializations(*changes: Change) -> None:
    """Let every step of this process record what these make of its materializations, one after the other."""
    global _changes
    _changes = changes


def _changed(asset_key: dg.AssetKey, *arguments: Any) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    step = Step(next(argument for argument in arguments if isinstance(argument, StepExecutionContext)))
    events = [*_dagsters(asset_key, *arguments)]
    made = [event for event in events if isinstance(event, dg.AssetMaterialization)]
    for change in _changes:
        made = change(step, asset_key, made) if made else []
    yield from made
    yield from (event for event in events if isinstance(event, dg.AssetObservation))


execute_step._get_output_asset_events = _changed
