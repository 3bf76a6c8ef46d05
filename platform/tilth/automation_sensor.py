"""A sensor that runs what automation conditions ask for as few runs over ranges of partitions.

Dagster's own makes a backfill of a request for several partitions, which waits for the backfill daemon's fixed 30
seconds, or one run per partition. Here one run takes a range, as far as the assets' backfill policies allow. And
Dagster's evaluates every condition each time, at some 10 ms an asset; here it does when something was recorded since,
and once a minute for what depends on the time.

What a sensor hands to the daemon is no public type: docs/upgrading.md names this file.
"""

import time
from collections import defaultdict
from collections.abc import Mapping, Sequence

import dagster as dg
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster_shared.record import copy

from tilth.kept_connections import kept_connections
from tilth.partition_ranges import range_tags, ranges


def automation_sensor(name: str, target: dg.AssetSelection, description: str) -> dg.SensorDefinition:
    """A running sensor over these assets' conditions, evaluated every five seconds.

    Dagster's default sensor starts stopped. Up to 500 assets and checks fit into one.
    """
    return _RangedAutomation(
        name,
        target=target,
        minimum_interval_seconds=1,  # the daemon looks every five seconds, and would often skip one for five seconds
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
        emit_backfills=False,
        use_user_code_server=True,
    )


class _RangedAutomation(dg.AutomationConditionSensorDefinition):
    _idle: tuple[object, ...] | None = None
    """What there was at the last look, when that asked for nothing."""

    def evaluate_tick(self, context: dg.SensorEvaluationContext):
        # Read before the look, so that what comes during it is seen by the next one. Starts and ends of runs are
        # recorded too; a cron schedule is no finer than a minute.
        newest = context.instance.event_log_storage.get_maximum_record_id()
        there = (context.cursor, newest, time.time() // 60)
        if there == self._idle:
            return SensorExecutionData(skip_message="Nothing was recorded since the last look.", cursor=context.cursor)
        with kept_connections(context.instance):
            evaluated = super().evaluate_tick(context)
        # A request changes what the next look sees, also when nothing else does.
        self._idle = None if evaluated.run_requests else (evaluated.cursor, *there[1:])
        if not evaluated.run_requests or context.repository_def is None:
            return evaluated
        return copy(
            evaluated, run_requests=in_ranges(evaluated.run_requests, context.repository_def.assets_defs_by_key)
        )


def in_ranges(
    requests: Sequence[dg.RunRequest], assets_by_key: Mapping[dg.AssetKey, dg.AssetsDefinition]
) -> list[dg.RunRequest]:
    """The requests with those for neighbouring partitions of the same assets made one."""
    alike: dict[tuple[object, ...], dict[str, dg.RunRequest]] = defaultdict(dict)
    ranged: list[dg.RunRequest] = []
    for request in requests:
        if request.partition_key is None:
            ranged.append(request)
        else:
            assets = frozenset(request.asset_selection or ())
            checks = None if request.asset_check_keys is None else frozenset(request.asset_check_keys)
            alike[assets, checks][request.partition_key] = request
    for by_partition in alike.values():
        first = next(iter(by_partition.values()))
        selected = [(key, assets_by_key[key]) for key in first.asset_selection or ()]
        policies = [asset.backfill_policy or dg.BackfillPolicy.multi_run(1) for _, asset in selected]
        most = min((policy.max_partitions_per_run or len(by_partition) for policy in policies), default=1)
        definitions = [asset.specs_by_key[key].partitions_def for key, asset in selected]
        definition = next((found for found in definitions if found), None)
        for start, end in ranges(by_partition, definition, most):
            request = by_partition[start]
            ranged.append(
                request
                if start == end
                else dg.RunRequest(
                    asset_selection=request.asset_selection,
                    asset_check_keys=request.asset_check_keys,
                    tags={**_of_no_partition(request.tags), **range_tags(start, end)},
                )
            )
    return ranged


def _of_no_partition(tags: Mapping[str, str] | None) -> dict[str, str]:
    return {name: value for name, value in (tags or {}).items() if not name.startswith("dagster/partition")}
