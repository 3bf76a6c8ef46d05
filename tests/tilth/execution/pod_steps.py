"""A code location whose steps ask for pods of their own, for tests that stand in for the cluster."""

import dagster as dg

from tilth.execution.compute import compute
from tilth.execution.steps import kubernetes_executor

executor = kubernetes_executor("tests.tilth.execution.pod_steps")
SIZES = {"small": "2Gi", "large": "48Gi"}
once_more = dg.RetryPolicy(max_retries=1)


@dg.asset(op_tags=compute(memory="2Gi"))
def well() -> None: ...


@dg.asset(op_tags=compute(memory="2Gi"))
def refused() -> None: ...


@dg.asset(op_tags=compute(memory="2Gi"), retry_policy=once_more)
def lost_then_dead() -> None: ...


@dg.asset(op_tags=compute(memory="2Gi"), retry_policy=once_more)
def dead_twice() -> None: ...


@dg.asset(op_tags=compute(memory="1.3Gi"))
def of_an_odd_size() -> None: ...


@dg.asset(op_tags=compute(memory="2Gi", spot=True))
def on_spot() -> None: ...


@dg.asset(op_tags=compute(memory="2Gi", spot=True, pool="spot"))
def on_spot_alone() -> None: ...


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(list(SIZES)), op_tags=compute(memory=SIZES))
def sized() -> None: ...


@dg.asset(partitions_def=sized.partitions_def, op_tags=compute(memory={"large": "48Gi"}))
def of_no_size() -> None: ...


defs = dg.Definitions(
    assets=[well, refused, lost_then_dead, dead_twice, of_an_odd_size, on_spot, on_spot_alone, sized, of_no_size],
    jobs=[
        dg.define_asset_job("unpartitioned", dg.AssetSelection.all() - dg.AssetSelection.assets("sized", "of_no_size")),
        dg.define_asset_job("sized_alone", "sized"),
        dg.define_asset_job("sized_and_not", dg.AssetSelection.assets("sized", "of_no_size")),
    ],
    executor=executor,
)


def unpartitioned() -> dg.JobDefinition:
    return defs.resolve_job_def("unpartitioned")


def sized_alone() -> dg.JobDefinition:
    return defs.resolve_job_def("sized_alone")


def sized_and_not() -> dg.JobDefinition:
    return defs.resolve_job_def("sized_and_not")
