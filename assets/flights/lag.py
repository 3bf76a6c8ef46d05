"""How long what has landed may wait for the assets that people look at, and because of which upstream it does."""

from typing import Any

import dagster as dg

from assets.flights.raw import DAILY_TABLES, REFERENCE_TABLES, raw_key
from assets.flights.sensors import LOOKED_UP, NEURAL, not_yet_read
from resources.landing import LandingZone
from tilth._dagster.event_log import NO_PARTITION, event_numbers
from tilth.observability.freshness import partition_lag_checks
from tilth.versioning.staleness import Arrivals

WATCHED = [
    dg.AssetKey(["features", "departures"]),
    dg.AssetKey(["features", "training_set"]),  # where a day that failed its dbt tests holds training back, it says so
    dg.AssetKey(["models", "delay_champion"]),
    dg.AssetKey(["predictions", "delays"]),
    dg.AssetKey(["reports", "prediction_quality"]),
]

# Histories with gaps, as the conditions of what reads them say.
MAY_BE_ABSENT = dg.AssetSelection.assets(["marts", "daily_lateness"], ["models", "delay_champion"]) | NEURAL


def partition_lag(landing: LandingZone) -> tuple[list[dg.AssetChecksDefinition], dg.SensorDefinition]:
    """The checks of the lag behind this landing zone, and the sensor that evaluates them."""
    unread: dict[str, tuple[Any, dict[str, float]]] = {}

    def waiting(instance: dg.DagsterInstance) -> Arrivals:
        files = landing.files()
        numbers = {table: event_numbers(instance, raw_key(table)) for table in (*DAILY_TABLES, *REFERENCE_TABLES)}
        if any(numbers.values()) or any(arrivals for _, arrivals in unread.values()):
            landing.check_there()  # where nothing is to be seen any more, nothing would seem to wait
        for table in numbers:
            of_table = [file for file in files if file.table == table]
            known = of_table, numbers[table]
            # To compare arrivals takes all materializations of the table; mostly nothing has come.
            if unread.get(table, (None,))[0] != known:
                late = not_yet_read(instance, of_table)
                unread[table] = known, {file.partition or NO_PARTITION: file.arrived_ns / 1e9 for file in late}
        return {raw_key(table): arrivals for table, (_, arrivals) in unread.items()}

    return partition_lag_checks(
        WATCHED,
        # Training sets gather changes for ten minutes, and a missed one waits for as long again.
        warn="30m",
        fail="2h",
        waiting=waiting,
        optional=MAY_BE_ABSENT,
        reference=LOOKED_UP | NEURAL,  # whether it is trained at all is the deployment's choice
    )
