"""A code location whose steps are forked from what has imported and tried out what they need."""

import dagster as dg

from tests.tilth._dagster.watched_steps import is_six, numbers, total
from tilth.execution.local import local_executor

defs = dg.Definitions(
    assets=[numbers, total],
    asset_checks=[is_six],
    jobs=[dg.define_asset_job("all_steps")],
    executor=local_executor("tests.tilth._dagster.preloaded_steps", max_concurrent=2),
)
