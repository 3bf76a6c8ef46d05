"""dbt, loaded and tried out once: the process that steps are forked from imports this module, and nothing else does.

A code location with dbt names it to `executor_of`, after itself. dbt's import takes 3 s, a first build another second.
"""

import sys
import traceback

import dagster as dg

from resources.dbt import Dbt

_found = [value for module in list(sys.modules.values()) for value in list(vars(module).values())]
for _definitions in (value for value in _found if isinstance(value, dg.Definitions)):
    for _resource in (_definitions.resources or {}).values():
        if isinstance(_resource, Dbt):
            try:
                _resource.rehearse()
            except Exception:  # noqa: BLE001 (whatever fails here fails in the step too, and is recorded there)
                print("tilth: dbt could not be tried out; its steps begin more slowly.", file=sys.stderr)
                traceback.print_exc()
