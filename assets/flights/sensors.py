"""What sets the graph off: files that land, inputs that change, and the week."""

import dagster as dg

from assets.flights.tables import REFERENCE, TABLES
from tilth.automation.reconciler import reconciler
from tilth.automation.sensor import automation_sensor

# What is made of landed days.
FOLLOWING = dg.AssetSelection.groups("staging", "marts", "features", "predictions", "reports")


RAW_CHECKS = dg.AssetSelection.checks_for_assets(*(table.key for table in TABLES))

# In runs of its own: a candidate that finds no GPU fails alone, and the champion of its month is not skipped with it.
NEURAL = dg.AssetSelection.assets(["models", "delay_neural"])

automation_sensors = [
    automation_sensor(
        "etl",
        # The raw tables' checks ask for nothing, but no second sensor of this kind shall be made for them.
        FOLLOWING | RAW_CHECKS,
        "Landed days through dbt into features and training sets; with models into predictions and their quality.",
    ),
    automation_sensor(
        "training",
        dg.AssetSelection.groups("models") - NEURAL,
        "Training sets into candidates, champions and what serves.",
    ),
    automation_sensor(
        "training_neural",
        NEURAL,
        "Training sets into neural candidates, where PyTorch is installed.",
        interval_seconds=15,  # of what takes minutes
    ),
]

TRAINING_SETS = dg.AssetSelection.assets(["features", "training_set"])
AUTOMATED = dg.AssetSelection.groups("staging", "marts", "features", "models", "predictions", "reports")

reconcilers = [
    reconciler("reconciler", AUTOMATED - TRAINING_SETS, patience_seconds=120),
    # Their changes are gathered for up to ten minutes.
    reconciler("reconciler_training_sets", TRAINING_SETS, patience_seconds=900),
]

reference_tables = dg.define_asset_job(
    "reference_tables",
    selection=dg.AssetSelection.assets(*(table.key for table in REFERENCE)),
    description="Read the reference tables' files again.",
)

weekly_reference_tables = dg.ScheduleDefinition(
    name="weekly_reference_tables",
    job=reference_tables,
    cron_schedule="0 5 * * 1",
    execution_timezone="America/New_York",
    default_status=dg.DefaultScheduleStatus.RUNNING,
)
