"""What both sides of the fan-out are of: a hundred keys, and twenty assets, with nothing to do in any."""

from typing import Any

import dagster as dg

WORKERS = 2
KEYS = [f"{n:03}" for n in range(100)]


def _trivial(number: int) -> dg.AssetsDefinition:
    @dg.asset(name=f"twenty_{number:02}", group_name="twenty")
    def asset() -> dg.MaterializeResult[Any]:
        return dg.MaterializeResult(metadata={"made": number})

    return asset


twenty = [_trivial(number) for number in range(20)]
