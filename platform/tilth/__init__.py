"""The few things that Dagster's open source lacks. What a data scientist uses is here; it is imported when it is used.

from tilth import compute, timeout, retries, on_new_data, on_complete_window, on_changed_data
from tilth import for_each_partition, Sliced, OPTIONAL, REFERENCE
"""

import os
from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from tilth.automation.conditions import on_changed_data, on_complete_window, on_new_data
    from tilth.execution import retries
    from tilth.execution.compute import compute
    from tilth.execution.partitions import for_each_partition
    from tilth.execution.shared_frames import Sliced
    from tilth.execution.timeouts import timeout
    from tilth.versioning.inputs import OPTIONAL, REFERENCE

__all__ = [
    "OPTIONAL",
    "REFERENCE",
    "Sliced",
    "compute",
    "for_each_partition",
    "on_changed_data",
    "on_complete_window",
    "on_new_data",
    "retries",
    "timeout",
]

# Under this variable, which pandera and pyspark set as they are imported, Arrow reads 9:00 in New York as 9:00 UTC in
# every value that is an object of Python's. Whoever finds it there, if empty, leaves it.
os.environ["PYARROW_IGNORE_TIMEZONE"] = ""

_MODULES = {
    "OPTIONAL": "versioning.inputs",
    "REFERENCE": "versioning.inputs",
    "Sliced": "execution.shared_frames",
    "compute": "execution.compute",
    "for_each_partition": "execution.partitions",
    "on_changed_data": "automation.conditions",
    "on_complete_window": "automation.conditions",
    "on_new_data": "automation.conditions",
    "retries": "execution",
    "timeout": "execution.timeouts",
}


def __getattr__(name: str) -> object:
    if name not in _MODULES:
        raise AttributeError(f"module 'tilth' has no attribute {name!r}; it offers {', '.join(__all__)}")
    if name == "retries":
        return import_module("tilth.execution.retries")
    return getattr(import_module(f"tilth.{_MODULES[name]}"), name)
