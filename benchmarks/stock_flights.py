"""The flights domain with Dagster's own automation sensors, as they are when nothing is set but that they run."""

import dagster as dg

from assets.flights import definitions as ours
from assets.flights.sensors import automation_sensors

stock = {
    sensor.name: dg.AutomationConditionSensorDefinition(
        sensor.name, target=sensor.asset_selection, default_status=dg.DefaultSensorStatus.RUNNING
    )
    for sensor in automation_sensors
}
found = ours.defs
defs = dg.Definitions(
    assets=found.assets,
    jobs=found.jobs,
    schedules=found.schedules,
    sensors=[stock.get(sensor.name, sensor) for sensor in found.sensors or []],
    resources=found.resources,
    executor=found.executor,
)
