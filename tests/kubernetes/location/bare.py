"""A code location of Dagster and nothing else: what a run's start is compared with."""

import dagster as dg


@dg.asset
def nothing() -> None: ...


defs = dg.Definitions(assets=[nothing], executor=dg.in_process_executor)
