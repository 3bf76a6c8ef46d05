"""A code location that says how it is imported: is garbage looked for, and what is a variable set to."""

import gc
import os
from pathlib import Path

import dagster as dg

with Path(os.environ["IMPORTED_LOCATION"]).open("a") as imports:
    imports.write(f"{gc.isenabled()} {os.environ.get('FROM_A_FILE', '')}\n")


@dg.asset
def made() -> dg.MaterializeResult:
    return dg.MaterializeResult(metadata={"collecting": gc.isenabled()})


defs = dg.Definitions(assets=[made], jobs=[dg.define_asset_job("job")], executor=dg.in_process_executor)
if os.environ.get("BROKEN"):
    raise RuntimeError("no such warehouse")
