"""A code location whose assets ask for machines, run out of memory, and take long enough to be killed."""

import os
import time

import dagster as dg
import pandas as pd
from since_start import since_start

from resources.lake import Lake
from resources.lake_io import LakeIOManager
from tilth.execution.compute import compute
from tilth.execution.executor import executor_of
from tilth.execution.partitions import for_each_partition
from tilth.settings import Deployment

deployment = Deployment()
executor = executor_of(deployment, "trial", "deltalake")
letters = dg.StaticPartitionsDefinition(["a", "b", "c"])
PARTITIONED = {"partitions_def": letters, "metadata": {"partition_expr": "letter"}}


def take(mebibytes: int) -> int:
    """Take this much memory, as bytes that are written to; how many."""
    return len(bytearray(b"x") * (mebibytes << 20))


def row(context: dg.AssetExecutionContext) -> pd.DataFrame:
    return pd.DataFrame({"letter": [context.partition_key], "pod": [os.environ["HOSTNAME"]]})


@dg.asset(op_tags=compute(memory="512Mi"))
def hungry() -> pd.DataFrame:
    """Takes twice of what it asks for, with what Python takes."""
    return pd.DataFrame({"bytes": [take(600)]})


def train(key: str) -> dg.MaterializeResult[pd.DataFrame]:
    return dg.MaterializeResult(value=pd.DataFrame({"letter": [key], "bytes": [take(600 if key == "c" else 1)]}))


@dg.asset(backfill_policy=dg.BackfillPolicy.single_run(), op_tags=compute(cpu=0.5, memory="640Mi"), **PARTITIONED)
def hungry_workers(context: dg.AssetExecutionContext) -> dg.MaterializeResult:
    """One partition of three needs more than its step asks for, in a process of its own."""
    return for_each_partition(context, train, workers=2)


@dg.asset(op_tags=compute(memory="512Mi"))
def insatiable() -> None:
    """Takes more than is ever given."""
    take(4000)


@dg.asset(op_tags=compute(gpu=1, gpu_type="t4"), **PARTITIONED)
def on_gpu(context: dg.AssetExecutionContext) -> pd.DataFrame:
    time.sleep(5)
    return row(context)


@dg.asset(op_tags=compute(gpu=1, gpu_type="h100"))
def on_gpu_that_no_node_has() -> None: ...


@dg.asset(op_tags=compute(memory="512Mi"), **PARTITIONED)
def slow_in_its_own_pod(context: dg.AssetExecutionContext) -> pd.DataFrame:
    time.sleep(20)
    return row(context)


@dg.asset(op_tags=compute(memory="512Mi", spot=True))
def on_spot() -> pd.DataFrame:
    time.sleep(12)
    return pd.DataFrame({"pod": [os.environ["HOSTNAME"]]})


@dg.asset(**PARTITIONED)
def slow_in_the_runs_pod(context: dg.AssetExecutionContext) -> pd.DataFrame:
    time.sleep(20)
    return row(context)


@dg.asset(op_tags=compute(memory="512Mi", timeout="15s"))
def late() -> None:
    time.sleep(600)


@dg.asset(op_tags=compute(memory="512Mi", image="nowhere.invalid/nothing:1"))
def without_image() -> None: ...


@dg.asset(op_tags=compute(memory="900Gi"))
def too_big() -> None: ...


@dg.asset
def nothing_in_run_pod() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"seconds": since_start()})


def in_run_pod(number: int, *prefix: str) -> dg.AssetsDefinition:
    @dg.asset(name=f"in_run_pod_{number}", key_prefix=prefix, group_name="fan", tags={"fan": ""})
    def asset() -> pd.DataFrame:
        return pd.DataFrame({"number": [number]})

    return asset


def in_own_pod(number: int, *prefix: str) -> dg.AssetsDefinition:
    request = compute(cpu=0.5, memory="512Mi")

    @dg.asset(name=f"in_own_pod_{number}", key_prefix=prefix, group_name="fan", tags={"fan": ""}, op_tags=request)
    def asset() -> pd.DataFrame:
        return pd.DataFrame({"number": [number]})

    return asset


def fan(*prefix: str) -> list[dg.AssetsDefinition]:
    """20 steps in the run's pod and 2 in pods of their own."""
    return [in_run_pod(number, *prefix) for number in range(20)] + [in_own_pod(number, *prefix) for number in range(2)]


resources = {"io_manager": LakeIOManager(Lake.of(deployment))}
alone = [hungry, insatiable, on_spot, on_gpu_that_no_node_has, late, without_image, too_big, nothing_in_run_pod]
defs = dg.Definitions(
    assets=[*alone, hungry_workers, on_gpu, slow_in_its_own_pod, slow_in_the_runs_pod, *fan()],
    jobs=[dg.define_asset_job("fan", dg.AssetSelection.tag("fan", ""))],
    resources=resources,
    executor=executor,
)
