"""A code location with Dagster's own executor on a fork server."""

import dagster as dg

from tests.tilth._dagster.watched_steps import is_six, numbers, total

defs = dg.Definitions(
    assets=[numbers, total],
    asset_checks=[is_six],
    jobs=[dg.define_asset_job("all_steps")],
    executor=dg.multiprocess_executor.configured({"start_method": {"forkserver": {}}}),
)
