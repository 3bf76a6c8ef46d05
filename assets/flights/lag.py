"""How long what has landed may wait for the assets that people look at, and because of which upstream it does."""

import dagster as dg

from assets.flights.sensors import NEURAL
from assets.flights.tables import TABLES
from resources.ingestion.arrivals import waiting
from resources.landing import LandingZone
from tilth.observability.freshness import partition_lag_checks

WATCHED = [
    dg.AssetKey(["features", "departures"]),
    dg.AssetKey(["features", "training_set"]),  # where a day that failed its dbt tests holds training back, it says so
    dg.AssetKey(["models", "delay_champion"]),
    dg.AssetKey(["predictions", "delays"]),
    dg.AssetKey(["reports", "prediction_quality"]),
]


def partition_lag(landing: LandingZone) -> tuple[list[dg.AssetChecksDefinition], dg.SensorDefinition]:
    """The checks of the lag behind this landing zone, and the sensor that evaluates them."""
    return partition_lag_checks(
        WATCHED,
        # Training sets gather changes for ten minutes, and a missed one waits for as long again.
        warn="30m",
        fail="2h",
        waiting=waiting(TABLES, landing),
        ignored=NEURAL,  # whether it is trained at all is the deployment's choice
    )
