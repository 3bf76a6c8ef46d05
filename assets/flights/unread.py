"""Files in the landing zone that nobody reads because of their names: said once, by a check on the raw asset."""

import json
from collections.abc import Mapping
from typing import Any

import dagster as dg

from assets.flights import partitions as by
from assets.flights.raw import DAILY_TABLES, REFERENCE_TABLES, raw_key
from resources.landing import LandingZone
from tilth._dagster.event_log import event_numbers

NAME = "landed_names"
_INTERVAL_SECONDS = 60
_NAMED = 20


def landed_names(landing: LandingZone) -> tuple[list[dg.AssetChecksDefinition], dg.SensorDefinition]:
    """The checks of the names in this landing zone, and the sensor that evaluates them when what they say changes."""

    def unread(table: str) -> dict[str, str]:
        return landing.unread(table, by.days.get_partition_keys() if table in DAILY_TABLES else None)

    def check_of(table: str) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=raw_key(table),
            name=NAME,
            description="Every file that has landed for the table has a name by which it is read.",
            # Never true by itself; without a condition the check would be a step of all runs that automation asks for.
            automation_condition=dg.AutomationCondition.newly_requested().with_label(f"evaluated by {NAME}"),
        )
        def names() -> dg.AssetCheckResult:
            return dg.AssetCheckResult(**_result(unread(table)))

        return names

    @dg.sensor(
        name=NAME,
        minimum_interval_seconds=_INTERVAL_SECONDS,
        default_status=dg.DefaultSensorStatus.RUNNING,
        description="Finds files in the landing zone that nobody reads because of their names.",
    )
    def names(context: dg.SensorEvaluationContext) -> dg.SensorResult:
        told: dict[str, str] = json.loads(context.cursor or "{}")
        now, events = {}, []
        for table in (*DAILY_TABLES, *REFERENCE_TABLES):
            found = unread(table)
            now[table] = json.dumps(sorted(found))
            if found:
                # The UI shows a check as not evaluated when its asset was made since.
                now[table] += f", at {max(event_numbers(context.instance, raw_key(table)).values(), default=0)}"
            if now[table] != told.get(table):
                events.append(dg.AssetCheckEvaluation(asset_key=raw_key(table), check_name=NAME, **_result(found)))
        return dg.SensorResult(asset_events=events, cursor=json.dumps(now))

    return [check_of(table) for table in (*DAILY_TABLES, *REFERENCE_TABLES)], names


def _result(unread: Mapping[str, str]) -> dict[str, Any]:
    named = [
        f"{path}: " + (f"name it {name}" if name else "no partition has a name like this")
        for path, name in [*unread.items()][:_NAMED]
    ]
    more = [f"and {len(unread) - _NAMED} more"] if len(unread) > _NAMED else []
    said = "Nobody reads these files, because of their names. " + "; ".join([*named, *more])
    return {
        "passed": not unread,
        "severity": dg.AssetCheckSeverity.WARN,
        "description": f"{said}." if unread else "Every file has a name by which it is read.",
        "metadata": {"unread_files": len(unread)},
    }
