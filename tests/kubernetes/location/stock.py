"""The steps of trial.py under Dagster's own executor, with which lanes are compared. Its import takes half a second."""

import dagster as dg
from dagster_k8s import k8s_job_executor
from trial import lanes, resources

defs = dg.Definitions(
    assets=lanes("stock"),
    jobs=[dg.define_asset_job("with_stock_executor", dg.AssetSelection.all())],
    resources=resources,
    executor=k8s_job_executor,
)
