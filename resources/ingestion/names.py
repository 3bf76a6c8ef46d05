"""Files in the landing zone that nobody reads because of their names: said once, by a check on the raw asset."""

import json
from collections.abc import Iterable, Mapping
from typing import Any

import dagster as dg

from resources.ingestion.tables import LandedTable
from resources.landing import LandingZone
from tilth._dagster.event_log import event_numbers

NAME = "landed_names"
_INTERVAL_SECONDS = 60
_NAMED = 20


def landed_names(
    tables: Iterable[LandedTable], landing: LandingZone
) -> tuple[list[dg.AssetChecksDefinition], dg.SensorDefinition]:
    """Checks of the names in these tables' folders, and the sensor that evaluates them when what they say changes."""
    declared = list(tables)

    def unread(table: LandedTable) -> dict[str, str]:
        return landing.unread(table.name, table.by.get_partition_keys() if table.by else None)

    def check_of(table: LandedTable) -> dg.AssetChecksDefinition:
        @dg.asset_check(
            asset=table.key,
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
        notified: dict[str, str] = json.loads(context.cursor or "{}")
        now, events = {}, []
        for table in declared:
            found = unread(table)
            now[table.name] = json.dumps(sorted(found))
            if found:
                # The UI shows a check as not evaluated when its asset was made since.
                now[table.name] += f", at {max(event_numbers(context.instance, table.key).values(), default=0)}"
            if now[table.name] != notified.get(table.name):
                events.append(dg.AssetCheckEvaluation(asset_key=table.key, check_name=NAME, **_result(found)))
        return dg.SensorResult(asset_events=events, cursor=json.dumps(now))

    return [check_of(table) for table in declared], names


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
