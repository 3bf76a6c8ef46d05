"""The steps of trial.py under Dagster's own executor, with which ours is compared. Its import takes half a second."""

import dagster as dg
from dagster_k8s import k8s_job_executor
from trial import fan, resources

defs = dg.Definitions(
    assets=fan("stock"),
    jobs=[dg.define_asset_job("with_stock_executor", dg.AssetSelection.all())],
    resources=resources,
    executor=k8s_job_executor,
)
