"""A sensor that runs what automation conditions request as few runs over ranges of partitions.

Dagster's own makes a backfill of a request for several partitions, which waits for the backfill daemon's fixed 30
seconds, or one run per partition. Here one run takes a range, as far as the assets' backfill policies allow.

Dagster's evaluates every condition each time, at some 10 ms an asset; here it does when something was recorded since,
and once a minute for what depends on the time. Between evaluations the process keeps what they have seen, and writes it
down, a third of an evaluation's time, when something is requested, when what changed has come to rest, and every five
minutes: a process that starts anew sees again what was recorded since, and what it would take for answered by that
`tilth.automation.reconciler` finds.
"""

import gc
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager

import dagster as dg

from tilth._dagster.asset_graph import AssetGraph, graph_of
from tilth._dagster.automation import ConditionSensor, Cursor, read_cursor, with_requests, written_cursor
from tilth._dagster.connections import kept_connections
from tilth._dagster.event_log import newest_event
from tilth.automation.ranges import range_tags, ranges

_WRITTEN_EVERY_SECONDS = 300


def automation_sensor(
    name: str, target: dg.AssetSelection, description: str, interval_seconds: int = 5
) -> dg.SensorDefinition:
    """A running sensor over these assets' conditions, evaluated every five seconds.

    Dagster's default sensor starts stopped. Its limit of 500 assets and checks is in its own evaluation, not in this.

    Args:
        interval_seconds: how often; each evaluation costs, also one that finds nothing new.
    """
    return _RangedAutomation(
        name,
        target=target,
        # The daemon ticks every five seconds, and would often skip one for as many.
        minimum_interval_seconds=interval_seconds if interval_seconds > 5 else 1,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description=description,
        emit_backfills=False,
        use_user_code_server=True,
    )


class _RangedAutomation(ConditionSensor):
    _idle: tuple[object, ...] | None = None
    """What there was at the last evaluation, when that requested nothing."""
    _seen: tuple[str | None, Cursor | None, float, bool] = (None, None, 0.0, False)
    """A cursor as it was written, what was seen since, when it was written, and whether anything was evaluated anew."""

    def evaluate_tick(self, context: dg.SensorEvaluationContext):
        # Read before the evaluation, so that what comes during it is seen by the next one. Starts and ends of runs are
        # recorded too; a cron schedule is no finer than a minute.
        there = (context.cursor, newest_event(context), time.time() // 60)
        if there == self._idle:
            return self.skipped(context, "Nothing was recorded since the last tick.")
        with (
            kept_connections(context.instance),
            _without_collection(),
            dg.partition_loading_context(dynamic_partitions_store=context.instance),
        ):
            evaluated = self.evaluated(context, self._result)
            # A request changes what the next evaluation sees, also when nothing else does.
            self._idle = None if evaluated.run_requests else (evaluated.cursor, *there[1:])
            if not evaluated.run_requests or context.repository_def is None:
                return evaluated
            return with_requests(evaluated, in_ranges(evaluated.run_requests, graph_of(context.repository_def)))

    def _result(self, context: dg.SensorEvaluationContext) -> dg.SensorResult:
        assert context.repository_def is not None  # noqa: S101 - Dagster gives every sensor its own
        graph = graph_of(context.repository_def)
        written, seen, at, unwritten = self._seen
        if seen is None or written != context.cursor:
            seen, at = read_cursor(context.cursor, graph), 0.0
        requests, seen, evaluations = self.evaluate_conditions(context, graph, seen)
        # What was evaluated anew is written down when it has come to rest, or the next process would evaluate it again.
        rests = unwritten and not evaluations
        if requests or rests or written is None or not 0 <= time.time() - at < _WRITTEN_EVERY_SECONDS:
            written, at, unwritten = written_cursor(seen), time.time(), False
        else:
            unwritten = bool(evaluations)
        self._seen = written, seen, at, unwritten
        return dg.SensorResult(run_requests=requests, cursor=written, automation_condition_evaluations=evaluations)


@contextmanager
def _without_collection() -> Iterator[None]:
    """An evaluation makes hundreds of thousands of objects: to search them for garbage took a fifth of its time."""
    was_enabled = gc.isenabled()
    gc.disable()
    try:
        yield
    finally:
        if was_enabled:
            gc.enable()


def in_ranges(requests: Sequence[dg.RunRequest], graph: AssetGraph) -> list[dg.RunRequest]:
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
        selected = first.asset_selection or ()
        most = min((graph.partitions_per_run(key) or len(by_partition) for key in selected), default=1)
        definition = next((found for key in selected if (found := graph.partitions(key))), None)
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
