"""Dagster's side of the same: its multiprocess executor on a fork server, and a step for each of a hundred keys."""

from collections.abc import Iterator

import dagster as dg

from benchmarks.peers import trivial

executor = dg.multiprocess_executor.configured(
    {"start_method": {"forkserver": {}}, "max_concurrent": trivial.WORKERS}, name="stock"
)


@dg.op(out=dg.DynamicOut(str))
def keys() -> Iterator[dg.DynamicOutput[str]]:
    for key in trivial.KEYS:
        yield dg.DynamicOutput(key, mapping_key=key)


@dg.op
def one(context: dg.OpExecutionContext, key: str) -> None:
    context.log_event(dg.AssetMaterialization("hundred", partition=key, metadata={"made": int(key)}))


@dg.job(executor_def=executor)
def hundred() -> None:
    keys().map(one)


twenty = dg.AssetSelection.groups("twenty")
defs = dg.Definitions(
    assets=trivial.twenty,
    jobs=[
        hundred,
        dg.define_asset_job("twenty", twenty),
        dg.define_asset_job("twenty_in_process", twenty, executor_def=dg.in_process_executor),
    ],
    executor=executor,
)
