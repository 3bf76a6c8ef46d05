"""How the flights domain is cut: by day, by month, by airport of origin."""

import dagster as dg

from tilth.partition_keys import by_dimension
from tilth.settings import Deployment

ORIGINS = ["EWR", "JFK", "LGA"]
FIRST_DAY, END_DAY = "2013-01-01", "2014-01-01"  # the record; the end is exclusive

days = dg.DailyPartitionsDefinition(FIRST_DAY, end_date=END_DAY)
months = dg.MonthlyPartitionsDefinition("2013-01", end_date="2014-01", fmt="%Y-%m")
origins = dg.StaticPartitionsDefinition(ORIGINS)

# A model is named by the month that its training window ends with.
models = dg.MultiPartitionsDefinition({"month": months, "origin": origins})


def month_and_origin(key: str) -> tuple[str, str]:
    """What a key of models says."""
    found = by_dimension(key, models)
    return found["month"], found["origin"]


# A model serves in the months after the one it was trained through, so service begins a month later.
service_months = dg.MonthlyPartitionsDefinition("2013-02", end_date="2014-02", fmt="%Y-%m")
service = dg.MultiPartitionsDefinition({"month": service_months, "origin": origins})
scored_days = dg.DailyPartitionsDefinition("2013-02-01", end_date=END_DAY)

HISTORY_DAYS = 28
TRAINING_MONTHS = 3

# Earlier days only: what a departure's own day brings is not known before it leaves.
history = dg.TimeWindowPartitionMapping(
    start_offset=-HISTORY_DAYS, end_offset=-1, allow_nonexistent_upstream_partitions=True
)
training_window = dg.TimeWindowPartitionMapping(
    start_offset=1 - TRAINING_MONTHS, allow_nonexistent_upstream_partitions=True
)
month_of = dg.MultiToSingleDimensionPartitionMapping("month")

# Up to three months back, so that one month without a champion does not leave the next one without predictions.
earlier_champions = dg.MultiPartitionMapping(
    {
        "month": dg.DimensionPartitionMapping(
            "month",
            dg.TimeWindowPartitionMapping(start_offset=-3, end_offset=-1, allow_nonexistent_upstream_partitions=True),
        ),
        "origin": dg.DimensionPartitionMapping("origin", dg.IdentityPartitionMapping()),
    }
)

# How much of a backfill one run takes, by cost. A range of days or of finished models is one step: process start and
# query planning are paid once. Models are trained in runs of so many.
one_step = dg.BackfillPolicy.single_run()
training_runs = dg.BackfillPolicy.multi_run(per_run) if (per_run := Deployment().models_per_run) else one_step

# The metadata by which a raw partition says which landed file it was read from.
ORIGIN = ["landed_file", "arrival"]
