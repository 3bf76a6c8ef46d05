"""Many partitions in one step, in parallel processes, each stored and recorded by itself.

Dagster starts a run or a process per partition, or makes all of a step's partitions together: one that fails, or whose
process dies, then takes the others with it.
"""

import inspect
import pickle
import resource
import sys
import tempfile
import time
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from contextlib import closing
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg

from tilth._dagster.processes import cores
from tilth._dagster.step_events import planned_materializations
from tilth.execution.compute import requested
from tilth.execution.shared_frames import Frame, SharedFrame, Sliced, share
from tilth.execution.workers import Outcome, UnusableFunctionError, attempt, in_processes
from tilth.versioning.partitions import end_without_recording, record_partition

PROGRESS_SECONDS = 5.0
# So many of the failed partitions the step's error lists; its metadata has all of them.
_NAMED = 20
# What a run is tagged with that was made of a failed one "from failure", by a person or by the instance's run retries.
_RESUMES = {"dagster/is_resume_retry", "dagster/is_asset_resume_retry"}


def for_each_partition(
    context: dg.AssetExecutionContext,
    fn: Callable[..., dg.MaterializeResult[Any]],
    *,
    workers: int | None = None,
    **frames: "Frame | Sliced",
) -> dg.MaterializeResult[Any]:
    """Call `fn(partition_key, **frames)` for every partition of the step, and return what the asset is to return.

    The asset is annotated `-> dg.MaterializeResult`. So is `fn`, whose result is of its partition alone: `value` is
    stored by the asset's IO manager as if the step were for this partition only (without one, `fn` has stored it);
    `metadata`, `data_version` and `tags` are recorded with it, as soon as it is stored, and what it used. One that
    fails leaves its traceback in the step's log; the others go on, and at the end the step fails, so that "missing and
    failed partitions" in the UI makes those and no other. A process that dies costs its partition, after a second try
    by itself. When the step is retried, or its run re-executed from failure, it makes what was not recorded yet.

    Args:
        context: the asset's.
        fn: a function at the top level of a module, its parameters bound by `functools.partial`: other processes import
            it. They start once per step, and print to the step's output; `context` is not for them.
        workers: how many processes; by default one per core that this process may use, never more than partitions. One
            means none beside the step's own. BLAS, OpenMP and Arrow get each their share of the cores.
        frames: pandas frames or pyarrow tables, given to `fn` under the same names: whole, or, where they are
            `Sliced(frame, by=[...])`, the rows of its partition. They are shared through a file, not copied.

    Raises:
        Failure: partitions failed; it names them.
        TypeError: an `fn` that another process cannot import or that does not take the frames; no frame.
        ValueError: an asset without partitions, a partition that it does not have, fewer than one worker, a column to
            slice by that is not there.
    """
    asset = context.asset_key.to_user_string()
    keys = _keys(context, asset)
    has_cores = cores()
    if workers is not None and workers < 1:
        raise ValueError(f"{asset}: {workers} workers; at least one makes something.")
    workers = max(1, min(workers or has_cores, len(keys)))
    try:
        # Also where no other process is needed, so that a step of one partition takes what a step of many takes.
        pickle.dumps(fn)
        inspect.signature(fn).bind("", **frames)
    except Exception as error:
        raise _unusable(asset, fn, error) from error

    planned = planned_materializations(context)
    with tempfile.TemporaryDirectory(prefix="tilth-", ignore_cleanup_errors=True) as folder:
        shared = {name: share(name, frame, keys, Path(folder), _dimensions(context)) for name, frame in frames.items()}
        function = partial(_make, asset, fn, shared)
        if workers == 1:
            outcomes = _in_this_process(function, keys)
        else:
            outcomes = in_processes(
                function,
                keys,
                workers=workers,
                threads=max(1, has_cores // workers),
                preload=[__name__, getattr(_plain(fn), "__module__", None) or type(_plain(fn)).__module__],
                folder=Path(folder),
                tick=PROGRESS_SECONDS,
            )
        with closing(outcomes):
            try:
                failed = _record_all(context, asset, planned, outcomes, len(keys))
            except UnusableFunctionError as error:
                raise _unusable(asset, fn, error) from error
    if failed:
        raise _failure(asset, failed, len(keys))
    end_without_recording(context, planned)
    return dg.MaterializeResult()


def _keys(context: dg.AssetExecutionContext, asset: str) -> list[str]:
    """The partitions to make: the step's, less those that earlier tries of it have recorded."""
    if not context.has_partition_key and not context.has_partition_key_range:
        raise ValueError(
            f"{asset} has no partitions here; give it a partitions_def, and its run a partition or a range."
        )
    try:
        keys = [str(key) for key in context.partition_keys]
    except dg.DagsterError as error:
        raise ValueError(
            f"{asset}: the run's partitions are not the asset's: {error} Run it for those it has."
        ) from error
    if not keys:
        raise ValueError(f"{asset}: the run's range of partitions is empty; its first may be later than its last.")
    tries = _earlier_tries(context)
    if not tries:
        return keys
    records = context.instance.fetch_materializations(
        dg.AssetRecordsFilter(context.asset_key, asset_partitions=keys, after_timestamp=min(tries.values())),
        limit=len(keys) * (context.retry_number + len(tries)),
    ).records
    recorded = {str(record.partition_key) for record in records if record.run_id in tries}
    return [key for key in keys if key not in recorded]


def _dimensions(context: dg.AssetExecutionContext) -> list[str]:
    definition = context.assets_def.specs_by_key[context.asset_key].partitions_def
    several = isinstance(definition, dg.MultiPartitionsDefinition)
    return [dimension.name for dimension in definition.partitions_defs] if several else []


def _earlier_tries(context: dg.AssetExecutionContext) -> dict[str, float]:
    """When the runs began in which this step was tried before: this one, and those that it goes on from."""
    run, runs = context.run, [context.run_id] if context.retry_number else []
    while run and run.parent_run_id and _RESUMES & run.tags.keys():
        runs.append(run.parent_run_id)
        run = context.instance.get_run_by_id(run.parent_run_id)
    records = [record for run_id in runs if (record := context.instance.get_run_record_by_id(run_id))]
    return {record.dagster_run.run_id: record.start_time or 0.0 for record in records}


def _plain(fn: Any) -> Any:
    while isinstance(fn, partial):
        fn = fn.func
    return fn


def _make(asset: str, fn: Callable[..., Any], frames: Mapping[str, SharedFrame], key: str) -> dg.MaterializeResult[Any]:
    for name, frame in frames.items():
        if not frame.has(key):
            others = f": {frame.others}" if frame.others else ""
            raise LookupError(
                f"{asset} {key}: {name} has no rows for it{others}; materialize what {name} is read from first."
            )
    began, cpu_before = time.perf_counter(), time.process_time()
    made = fn(key, **{name: frame.read(key) for name, frame in frames.items()})
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    # As tilth.observability.usage says it of a step; the peak is that of the process, earlier partitions of it
    # included.
    used = {
        "step/seconds": round(time.perf_counter() - began, 3),
        "step/cpu_seconds": round(time.process_time() - cpu_before, 3),
        "step/peak_memory_bytes": peak,
        "step/partitions": 1,
    }
    if not isinstance(made, dg.MaterializeResult):
        raise TypeError(
            f"{asset} {key}: {_name(fn)} returned a {type(made).__name__}; return "
            "dg.MaterializeResult(value=..., metadata=..., data_version=dg.DataVersion(...))."
        )
    if made.check_results or made.asset_key:
        raise TypeError(
            f"{asset} {key}: {_name(fn)} returned an asset key or check results, which belong to the whole step; "
            "leave out the key, and define checks by @dg.asset_check."
        )
    return dg.MaterializeResult(
        value=made.value, metadata={**used, **(made.metadata or {})}, data_version=made.data_version, tags=made.tags
    )


def _in_this_process(function: Callable[[str], Any], keys: Sequence[str]) -> Generator[Outcome | None]:
    for key in keys:
        yield attempt(function, key)


def _record_all(
    context: dg.AssetExecutionContext,
    asset: str,
    planned: Mapping[str, dg.AssetMaterialization],
    outcomes: Iterator[Outcome | None],
    count: int,
) -> dict[str, str]:
    """Store and record what succeeded; by partition that failed, the last line of why."""
    failed: dict[str, str] = {}
    done = 0
    began = said = time.monotonic()
    for outcome in outcomes:
        if outcome is not None:
            error = outcome.error or attempt(partial(_record, context, planned, outcome.value), outcome.key).error
            if error:
                failed[outcome.key] = error.strip().splitlines()[-1]
                context.log.error(f"{asset} {outcome.key} failed: {error}")
            else:
                done += 1
        now, left = time.monotonic(), count - done - len(failed)
        if now - said >= PROGRESS_SECONDS or not left:
            said, finished = now, count - left
            remaining = f"about {(now - began) / finished * left:.0f} s" if finished else "unknown time"
            context.log.info(f"{asset}: {done} done, {len(failed)} failed, {left} left, {remaining} to go")
    return failed


def _record(
    context: dg.AssetExecutionContext,
    planned: Mapping[str, dg.AssetMaterialization],
    made: dg.MaterializeResult[Any],
    key: str,
) -> None:
    record_partition(
        context, planned[key], made._replace(metadata={**requested(context.op.tags), **(made.metadata or {})})
    )


def _name(fn: Any) -> str:
    return getattr(_plain(fn), "__name__", None) or repr(_plain(fn))


def _unusable(asset: str, fn: Any, error: Exception) -> TypeError:
    if isinstance(error, UnusableFunctionError):
        return TypeError(f"{asset}: {_name(fn)}: {error}")
    if isinstance(error, TypeError) and "argument" in str(error):
        return TypeError(f"{asset}: {_name(fn)} does not take the partition key and the frames by name: {error}.")
    return TypeError(
        f"{asset}: {_name(fn)} cannot be sent to another process ({error}). Define it at the top level of a module, "
        "not as a lambda or inside of another function, and bind its parameters by functools.partial."
    )


def _failure(asset: str, failed: Mapping[str, str], count: int) -> dg.Failure:
    names = ", ".join([*failed][:_NAMED]) + (f" and {len(failed) - _NAMED} more" if len(failed) > _NAMED else "")
    return dg.Failure(
        f"{asset}: {len(failed)} of {count} partitions failed: {names}. Their tracebacks are in this step's log; the "
        "others are stored and recorded. Mend the cause, then materialize the missing and failed partitions.",
        metadata={"failed_partitions": dg.MetadataValue.json(dict(failed))},
    )
