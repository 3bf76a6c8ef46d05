"""A sensor that runs what automation conditions ask for as few runs over ranges of partitions.

Dagster's own makes a backfill of a request for several partitions, which waits for the backfill daemon's fixed 30
seconds, or one run per partition. Here one run takes a range, as far as the assets' backfill policies allow.

Dagster's evaluates every condition each time, at some 10 ms an asset; here it does when something was recorded since,
and once a minute for what depends on the time. Between looks the process keeps what they have seen, and writes it down,
a third of a look's time, when something is asked for and every five minutes: a process that starts anew sees again what
was recorded since, and what it would take for answered by that `tilth.automation.reconciler` finds.

Evaluating conditions outside of Dagster's own sensor, and what a sensor hands to the daemon, is no public API:
docs/upgrading.md names this file.
"""

import gc
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import dagster as dg
from dagster._core.definitions.automation_tick_evaluation_context import AutomationTickEvaluationContext
from dagster._core.definitions.sensor_definition import SensorExecutionData
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_from_instigator_serialized_cursor as read_cursor,
)
from dagster._daemon.asset_daemon import (
    asset_daemon_cursor_to_instigator_serialized_cursor as written_cursor,
)
from dagster_shared.record import copy

from tilth._dagster.connections import kept_connections
from tilth._dagster.event_log import newest_event
from tilth.automation.ranges import range_tags, ranges

_WRITTEN_EVERY_SECONDS = 300


def automation_sensor(
    name: str, target: dg.AssetSelection, description: str, interval_seconds: int = 5
) -> dg.SensorDefinition:
    """A running sensor over these assets' conditions, evaluated every five seconds.

    Dagster's default sensor starts stopped. Up to 500 assets and checks fit into one.

    Args:
        interval_seconds: how often; each look costs, also one that finds nothing new.
    """
    return _RangedAutomation(
        name,
        target=target,
        # The daemon looks every five seconds, and would often skip one for as many.
        minimum_interval_seconds=interval_seconds if interval_seconds > 5 else 1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
        emit_backfills=False,
        use_user_code_server=True,
    )


class _RangedAutomation(dg.AutomationConditionSensorDefinition):
    _idle: tuple[object, ...] | None = None
    """What there was at the last look, when that asked for nothing."""
    _seen: tuple[str | None, Any, float] = (None, None, 0.0)
    """A cursor as it was written, what was seen since it was, and when it was written."""

    def evaluate_tick(self, context: dg.SensorEvaluationContext):
        # Read before the look, so that what comes during it is seen by the next one. Starts and ends of runs are
        # recorded too; a cron schedule is no finer than a minute.
        there = (context.cursor, newest_event(context), time.time() // 60)
        if there == self._idle:
            return SensorExecutionData(skip_message="Nothing was recorded since the last look.", cursor=context.cursor)
        self._evaluation_fn = lambda context: [self._look(context)]
        with (
            kept_connections(context.instance),
            _without_collection(),
            dg.partition_loading_context(dynamic_partitions_store=context.instance),
        ):
            evaluated = super().evaluate_tick(context)
            # A request changes what the next look sees, also when nothing else does.
            self._idle = None if evaluated.run_requests else (evaluated.cursor, *there[1:])
            if not evaluated.run_requests or context.repository_def is None:
                return evaluated
            return copy(
                evaluated, run_requests=in_ranges(evaluated.run_requests, context.repository_def.assets_defs_by_key)
            )

    def _look(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        """Evaluate all conditions, as Dagster's sensor does."""
        graph: Any = context.repository_def and context.repository_def.asset_graph
        written, seen, at = self._seen
        if written is None or written != context.cursor:
            seen, at = read_cursor(context.cursor, graph), 0.0
        requests, seen, evaluations = AutomationTickEvaluationContext(
            evaluation_id=seen.evaluation_id,
            instance=context.instance,
            asset_graph=graph,
            cursor=seen,
            materialize_run_tags=self.run_tags,
            observe_run_tags={},
            auto_observe_asset_keys=set(),
            asset_selection=self.asset_selection,
            emit_backfills=self.emit_backfills,
            logger=context.log,
        ).evaluate()
        if requests or not 0 <= time.time() - at < _WRITTEN_EVERY_SECONDS:
            written, at = written_cursor(seen), time.time()
        self._seen = written, seen, at
        return dg.SensorResult(run_requests=requests, cursor=written, automation_condition_evaluations=evaluations)


@contextmanager
def _without_collection() -> Iterator[None]:
    """A look makes hundreds of thousands of objects, among which collecting garbage would look a fifth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def in_ranges(
    requests: Sequence[dg.RunRequest], assets_by_key: Mapping[dg.AssetKey, dg.AssetsDefinition]
) -> list[dg.RunRequest]:
    """The requests with those for neighbouring partitions of the same assets made one.

    To be called in a `dg.partition_loading_context` of the instance, which keeps the keys of dynamic partitions.
    """
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
