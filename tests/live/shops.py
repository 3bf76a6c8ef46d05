"""A code location with dynamic partitions, and a sensor that fails while a file lies beside it."""

import os
from pathlib import Path

import dagster as dg
from pydantic import SecretStr

from resources.alert_log import AlertLog
from resources.lake import Lake
from tilth.automation.conditions import on_complete_window, on_new_data
from tilth.automation.reconciler import reconciler
from tilth.automation.sensor import automation_sensor
from tilth.observability.alerts import alert_sensor

FOLDER = Path(os.environ.get("SHOPS", "/nonexistent"))
SHOPS = dg.DynamicPartitionsDefinition(name="shops")
BOTH = dg.MultiPartitionsDefinition({"day": dg.StaticPartitionsDefinition(["monday", "tuesday"]), "shop": SHOPS})


@dg.asset(partitions_def=SHOPS)
def sales() -> None: ...


@dg.asset(
    partitions_def=SHOPS,
    deps=[sales],
    automation_condition=on_new_data(),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def cleaned() -> None: ...


@dg.asset(deps=[cleaned], automation_condition=on_complete_window())
def total() -> None: ...


@dg.asset(
    partitions_def=BOTH,
    deps=[cleaned],
    automation_condition=on_new_data(),
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def visits() -> None: ...


@dg.asset
def other() -> None: ...


@dg.asset(deps=[other], automation_condition=on_new_data())
def beside() -> None: ...


@dg.sensor(target=other, minimum_interval_seconds=5, default_status=dg.DefaultSensorStatus.RUNNING)
def arrivals() -> dg.SkipReason:
    if (FOLDER / "broken").exists():
        raise ConnectionError("the shop's door is shut\nand locked")
    return dg.SkipReason("Nothing came.")


everything = dg.AssetSelection.all()
defs = dg.Definitions(
    [sales, cleaned, total, visits, other, beside],
    sensors=[
        automation_sensor("automation", everything, "All of them."),
        reconciler("reconciler", everything, interval_seconds=5),
        alert_sensor(AlertLog(Lake(str(FOLDER / "lake")), "shops"), SecretStr(os.environ.get("SHOPS_WEBHOOK", ""))),
        arrivals,
    ],
    executor=dg.in_process_executor,
)
