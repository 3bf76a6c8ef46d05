"""Steps that say what they imported after the fork; test_preload.py runs them, preloaded and not."""

import json
import os
import sys
from multiprocessing import util
from pathlib import Path

import dagster as dg

from tilth.observability import usage

LOCATIONS = ("tests.tilth._dagster.preloaded_steps", "tests.tilth._dagster.stock_steps")

usage.watch()  # as a location with a lake has it, before its run forks
_forked: dict[str, list[str]] = {}


def _remember() -> None:
    _forked["modules"] = list(sys.modules)
    _forked["files"] = [str(link.readlink()) for link in Path("/proc/self/fd").glob("*") if link.is_symlink()]


os.register_at_fork(after_in_child=_remember)


def _say_at_the_end(step: str) -> None:
    def say() -> None:
        threads = [thread.name for thread in Path(f"/proc/{os.getppid()}/task").glob("*")]
        locations = [module for name, module in sys.modules.items() if name in LOCATIONS]
        resolved = "defs resolved" if locations and locations[0].defs.has_resolved_repository_def() else ""
        found = {
            "modules": sorted(set(sys.modules) - set(_forked["modules"])),
            "packages before": sorted({name.partition(".")[0] for name in _forked["modules"]}),
            "files": _forked["files"],
            "server threads": threads,
            "server's program": Path(f"/proc/{os.getppid()}/cmdline").read_text().split("\0"),
            "definitions": resolved,
        }
        Path(os.environ["WATCHED_STEPS_FOUND"], f"{step}.json").write_text(json.dumps(found))

    util.Finalize(None, say, exitpriority=-100)


@dg.asset
def numbers(context: dg.AssetExecutionContext) -> list[int]:
    _say_at_the_end("numbers")
    context.add_output_metadata({"rows": 3})
    context.log.info("three numbers")
    return [1, 2, 3]


@dg.asset
def total(numbers: list[int]) -> int:
    _say_at_the_end("total")
    return sum(numbers)


@dg.asset_check(asset=total)
def is_six(total: int) -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=total == 6)
