"""A data version for each partition of a step that makes several.

Dagster records one data version per asset and step, so a day made alone and the same day made in a range of thirty
would differ, and what is downstream would be made again for nothing. Dagster has no public way to say it: this file
wraps the one function that makes a step's asset events, and docs/upgrading.md names it.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import dagster as dg
from dagster._core.definitions.data_version import DATA_VERSION_IS_USER_PROVIDED_TAG, DATA_VERSION_TAG
from dagster._core.execution.plan import execute_step

_recorded: dict[tuple[str, str, dg.AssetKey], dict[str, str]] = {}
_events_of_step = execute_step._get_output_asset_events


def set_data_versions(
    context: dg.AssetExecutionContext | dg.OutputContext, key: dg.AssetKey, versions: Mapping[str, str]
) -> None:
    """Record the data version of each of these partitions of `key` with the materializations of this step."""
    step = context.step_context if isinstance(context, dg.OutputContext) else context.get_step_execution_context()
    _recorded.setdefault((step.run_id, step.step.key, key), {}).update(versions)


def _with_own_versions(
    asset_key: dg.AssetKey,
    asset_partitions: Any,
    output: Any,
    output_def: Any,
    io_manager_metadata: Any,
    step_context: Any,
    execution_type: Any,
) -> Iterator[dg.AssetMaterialization | dg.AssetObservation]:
    versions = _recorded.pop((step_context.run_id, step_context.step.key, asset_key), {})
    for event in _events_of_step(
        asset_key, asset_partitions, output, output_def, io_manager_metadata, step_context, execution_type
    ):
        if isinstance(event, dg.AssetMaterialization) and event.partition in versions:
            tags = {DATA_VERSION_TAG: versions[event.partition], DATA_VERSION_IS_USER_PROVIDED_TAG: "true"}
            event = dg.AssetMaterialization(
                asset_key=event.asset_key,
                description=event.description,
                metadata=event.metadata,
                partition=event.partition,
                tags={**(event.tags or {}), **tags},
            )
        yield event


execute_step._get_output_asset_events = _with_own_versions
