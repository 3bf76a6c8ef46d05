"""Automation conditions of the flights domain, evaluated as by the daemon."""

from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import dagster as dg

from assets.flights import partitions as by
from assets.flights.definitions import definitions
from assets.flights.sensors import automation_sensors
from tilth.settings import Deployment

RAW = ["raw/flights", "raw/weather"]
DAILY_DBT = ["staging/flights", "staging/weather", "marts/departures", "marts/daily_lateness"]
REFERENCE = [
    *("raw/planes", "raw/airlines", "raw/airports"),
    *("staging/planes", "staging/airlines", "staging/airports"),
    *("marts/aircraft", "marts/airlines", "marts/airports"),
]
FEATURES, TRAINING_SET = "features/departures", "features/training_set"
CANDIDATES, NEURAL = ["models/delay_logistic", "models/delay_boosted"], "models/delay_neural"
CHAMPION, IN_SERVICE = "models/delay_champion", "models/in_service"
PREDICTIONS, QUALITY = "predictions/delays", "reports/prediction_quality"

Partitions = dict[str, set[str | None]]
"""Partitions by asset; an asset without partitions has the one partition None."""


def models_of(*months: str, origins: Sequence[str] = tuple(by.ORIGINS)) -> set[str | None]:
    """The partitions by month (YYYY-MM) and airport."""
    return {f"{month}|{origin}" for month, origin in product(months, origins)}


def each(keys: Iterable[str], partitions: Iterable[str | None]) -> Partitions:
    """The same partitions of several assets."""
    return {key: set(partitions) for key in keys}


def once(partitions: Partitions) -> Counter[tuple[str, str | None]]:
    """Each of these partitions, one time."""
    return Counter((key, partition) for key, found in partitions.items() for partition in found)


@dataclass
class Daemon:
    """The automation sensors and what they have seen, each with a cursor of its own.

    What they ask for is not run: a test reports what was made, so that each step of the graph is seen alone.
    """

    definitions: dg.Definitions
    instance: dg.DagsterInstance
    cursors: dict[str, Any] = field(default_factory=dict)

    def made(self, keys: Iterable[str], partitions: Iterable[str | None] = (None,), content: str = "first") -> None:
        """Each of these was made; the same content has the same data version."""
        for key, partition in product(keys, partitions):
            version = {"dagster/data_version": f"{key} {partition} {content}"}
            self.instance.report_runless_asset_event(
                dg.AssetMaterialization(key.split("/"), partition=partition, tags=version)
            )

    def look(self, at: datetime | None = None) -> Partitions:
        """What all sensors ask for now, or at this time."""
        asked: Partitions = {}
        for sensor in automation_sensors:
            result = dg.evaluate_automation_conditions(
                self.definitions,
                self.instance,
                sensor.asset_selection,
                cursor=self.cursors.get(sensor.name),
                evaluation_time=at,
            )
            self.cursors[sensor.name] = result.cursor
            for key in (evaluated.key for evaluated in result.results):
                if isinstance(key, dg.AssetKey) and (partitions := result.get_requested_partitions(key)):
                    asked[key.to_user_string()] = set(partitions)
        return asked

    def follow(
        self, content: str = "first", begin: datetime | None = None, every: timedelta = timedelta()
    ) -> Counter[tuple[str, str | None]]:
        """Make all that is asked for and look again until nothing is; how often each partition was asked for.

        The looks are at the present, or at `begin` and then each `every` later.
        """
        times: Counter[tuple[str, str | None]] = Counter()
        for n in range(20):
            if not (asked := self.look(begin and begin + n * every)):
                return times
            times += once(asked)
            for key, partitions in asked.items():
                self.made([key], partitions, content)
        raise AssertionError(f"the same was asked for over and over: {times.most_common(5)}")


@contextmanager
def flights_definitions(home: Path, neural: dg.AutomationCondition | None = None) -> Iterator[dg.Definitions]:
    """The flights code location on a deployment in `home`; the neural candidate has this condition, whether or not
    PyTorch is installed here.
    """
    yield definitions(Deployment(home=home)).map_resolved_asset_specs(
        func=lambda spec: spec.replace_attributes(automation_condition=neural), selection=f'key:"{NEURAL}"'
    )
