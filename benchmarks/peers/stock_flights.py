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
# Dagster takes a module with two definitions for a mistake: `ours.defs` gets no name here.
defs = dg.Definitions(
    assets=ours.defs.assets,
    jobs=ours.defs.jobs,
    schedules=ours.defs.schedules,
    sensors=[stock.get(sensor.name, sensor) for sensor in ours.defs.sensors or []],
    resources=ours.defs.resources,
    executor=dg.in_process_executor,
    metadata=ours.defs.metadata,
)
