"""A limit to how long a step may run, given to its asset: `@dg.asset(op_tags=timeout("10m"))`.

It is enforced from outside of the step's process: code that is stuck in C or asleep is ended too. Where
steps run within the run's own process (`dg.materialize`, `in_process_executor`) a timeout changes nothing.
"""

import re

from tilth._dagster.executor import Step

TAG = "tilth/timeout"
_SECONDS = {"s": 1, "m": 60, "h": 3600}


def timeout(limit: str) -> dict[str, str]:
    """The op tags of an asset whose step is ended when it has run for `limit`: "90s", "10m" or "2h".

    The limit is for one attempt at one step with all of its partitions, from the start of its process. The step then
    fails, or is tried again where the asset has a retry policy. Beside other tags: `op_tags={**timeout("2h"), ...}`.

    Raises:
        ValueError: `limit` is not a whole number above zero and its unit.
    """
    seconds(limit)
    return {TAG: limit}


def seconds(limit: str) -> int:
    """How many seconds "90s", "10m" or "2h" are; ValueError for any other text."""
    found = re.fullmatch(r"([1-9][0-9]*)([smh])", limit)
    if found is None:
        raise ValueError(f'timeout({limit!r}): write a whole number above zero and its unit: "90s", "10m" or "2h".')
    return int(found[1]) * _SECONDS[found[2]]


def explanation(step: Step, limit: str) -> str:
    """What the failure of a step says that ran longer than its limit."""
    return (
        f"{step.name} ran longer than its timeout of {limit} and was ended. What it had stored is kept. Look at the "
        "last lines of its log for where it was; if it only needs longer, run fewer partitions at once or raise the "
        f'limit: op_tags=timeout("{limit}") on the asset.'
    )
