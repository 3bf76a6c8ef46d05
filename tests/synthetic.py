"""Code locations of any size, for tests and benchmarks: so many assets over so many days, in layers of fifty.

As a module it is one of SYNTHETIC_ASSETS x SYNTHETIC_DAYS.
"""

import os
from datetime import date, timedelta

import dagster as dg

from tilth.automation.conditions import on_new_data
from tilth.automation.sensor import automation_sensor

LAYER = 50
FIRST_DAY = date(2013, 1, 1)
# Dagster refuses an automation sensor over more.
MOST_PER_SENSOR = 500


def name_of(number: int) -> str:
    """The asset's key as text."""
    return f"layer_{number // LAYER:02}/asset_{number % LAYER:02}"


def synthetic(assets: int, days: int) -> dg.Definitions:
    """Assets by day, each of two of the layer before it and made when those are; the first layer comes from outside."""
    partitions = dg.DailyPartitionsDefinition(
        str(FIRST_DAY), end_date=str(FIRST_DAY + timedelta(days=days)), timezone="UTC"
    )

    def asset(number: int) -> dg.AssetsDefinition:
        layer, place = divmod(number, LAYER)
        above = [(layer - 1) * LAYER + place, (layer - 1) * LAYER + (place + 1) % LAYER] if layer else []

        @dg.asset(
            key=name_of(number).split("/"),
            partitions_def=partitions,
            deps=[dg.AssetKey(name_of(parent).split("/")) for parent in above],
            backfill_policy=dg.BackfillPolicy.single_run(),
            automation_condition=on_new_data() if layer else None,
            group_name=f"layer_{layer:02}",
        )
        def made() -> None: ...

        return made

    definitions = [asset(number) for number in range(assets)]
    sensors = [
        automation_sensor(
            f"part_{start:04}", dg.AssetSelection.assets(*definitions[start : start + MOST_PER_SENSOR]), ""
        )
        for start in range(0, assets, MOST_PER_SENSOR)
    ]
    return dg.Definitions(assets=definitions, sensors=sensors, executor=dg.in_process_executor)


if "SYNTHETIC_ASSETS" in os.environ:
    defs = synthetic(int(os.environ["SYNTHETIC_ASSETS"]), int(os.environ["SYNTHETIC_DAYS"]))
