"""A code location whose steps ask for pods of their own, for tests that stand in for the cluster."""

import dagster as dg

from tilth.execution.compute import compute
from tilth.execution.steps import kubernetes_executor

executor = kubernetes_executor("tests.tilth.execution.pod_steps")
SIZES = {"small": "2Gi", "large": "48Gi"}
once_more = dg.RetryPolicy(max_retries=1)


@dg.asset(op_tags=compute(memory="2Gi"))
def well() -> None: ...


@dg.asset(op_tags=compute(memory=lambda _: "lots"))
def of_no_size() -> None: ...


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


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(list(SIZES)), op_tags=compute(memory=SIZES.__getitem__))
def sized() -> None: ...


defs = dg.Definitions(
    assets=[well, of_no_size, refused, lost_then_dead, dead_twice, of_an_odd_size, on_spot, on_spot_alone, sized],
    jobs=[
        dg.define_asset_job("all_but_sized", dg.AssetSelection.all() - dg.AssetSelection.assets("sized")),
        dg.define_asset_job("sized_alone", "sized"),
    ],
    executor=executor,
)


def all_but_sized() -> dg.JobDefinition:
    return defs.resolve_job_def("all_but_sized")


def sized_alone() -> dg.JobDefinition:
    return defs.resolve_job_def("sized_alone")
