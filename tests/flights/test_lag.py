"""What has landed and is not read is late, since it landed."""

import time
from typing import Any

import dagster as dg

from assets.flights import replay
from assets.flights.definitions import definitions
from tests.example import Platform


def test_what_has_landed_and_is_not_read_is_late_since_it_landed(platform: Platform) -> None:
    day, features = "2013-01-01", dg.AssetKey(["features", "departures"])
    repository = definitions(platform.deployment).get_repository_def()

    def judged() -> tuple[str, Any, float]:
        context = dg.build_sensor_context(platform.instance, repository_def=repository)
        events = repository.get_sensor_def("partition_lag").evaluate_tick(context).asset_events
        [told] = [
            event for event in events if isinstance(event, dg.AssetCheckEvaluation) and event.asset_key == features
        ]
        said = {name: value.value for name, value in told.metadata.items()}
        return said.get("oldest", ""), said.get("cause_asset"), said["lag_seconds"]

    platform.land(day)
    assert judged() == ("", None, 0)  # no day is made without the table of aircraft
    replay.land_reference(platform.landing)
    landed = {file.table: file.arrived_ns / 1e9 for file in platform.landing.files()}
    before = time.time()
    late, cause, lag = judged()
    assert (late, cause) == (day, dg.AssetKey(["raw", "planes"]))
    # The look takes the time once, somewhere between these two.
    assert before - landed["planes"] - 0.1 <= lag <= time.time() - landed["planes"] + 0.1
    platform.make([["raw", "planes"]])
    assert judged()[1].path[0] == "raw"
    assert judged()[1] != cause
