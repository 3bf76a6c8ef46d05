"""A code location of Dagster and nothing else: what a run's start is compared with."""

import dagster as dg
from since_start import since_start


@dg.asset
def nothing() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"seconds": since_start()})


defs = dg.Definitions(assets=[nothing], executor=dg.in_process_executor)
