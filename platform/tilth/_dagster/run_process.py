"""What a run's pod runs: Dagster's command for the run, which finds its code location imported.

Until its first step a run mostly imports. Meanwhile Python looks for garbage among all that is loaded by then, over and
over, and finds none: a third of the time. So it looks for none until the code location is there. What here is not
Dagster's public API docs/upgrading.md names.
"""

import base64
import gc
import importlib
import os
import sys
import zlib
from contextlib import suppress
from pathlib import Path
from typing import Any

_OF_STEP = "DAGSTER_COMPRESSED_EXECUTE_STEP_ARGS"


def main() -> None:
    """Run the command that stands on the command line."""
    execute(sys.argv[1:])


def execute(command: list[str]) -> None:
    """Run `dagster api execute_run ARGUMENTS`, or `execute_step` in a pod of its own, here, and exit as it does."""
    gc.disable()
    from dagster._cli import main as dagster
    from dagster._utils.interrupts import capture_interrupts

    # Dagster imports the code within it too: a run that is cancelled meanwhile ends, and records that, when it can.
    with capture_interrupts():
        # A file of variables, which may decide what is imported, Dagster reads first.
        if not Path(".env").exists():
            _import_code(command)
        gc.enable()
        gc.freeze()
        sys.argv = command
        dagster()


def _import_code(command: list[str]) -> None:
    """Import the module of the code location. Where that fails it fails again for Dagster, which records why."""
    from dagster_shared.serdes import deserialize_value

    with suppress(Exception):
        compressed = os.environ.get(_OF_STEP)
        of_step = zlib.decompress(base64.b64decode(compressed)).decode() if compressed else ""
        arguments: Any = deserialize_value(of_step or command[-1])
        importlib.import_module(arguments.job_origin.repository_origin.code_pointer.module)
