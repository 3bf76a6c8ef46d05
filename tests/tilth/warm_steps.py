"""A code location whose steps start warm."""

import dagster as dg

from tests.tilth.watched_steps import is_six, numbers, total
from tilth.execution.local import warm_executor

defs = dg.Definitions(
    assets=[numbers, total],
    asset_checks=[is_six],
    jobs=[dg.define_asset_job("all_steps")],
    executor=warm_executor("tests.tilth.warm_steps", max_concurrent=2),
)
