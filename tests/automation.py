"""Automation conditions evaluated as by the daemon, over the flights domain or over two small assets."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import product
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd

from assets.flights import partitions as by
from assets.flights.definitions import definitions
from assets.flights.sensors import automation_sensors
from tests.conftest import QUIET
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


def dates(first: str, last: str) -> list[str]:
    """The daily partitions from `first` to `last`, both inclusive."""
    return [str(day.date()) for day in pd.date_range(first, last)]


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


DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
DAY = "2013-01-02"


@dataclass
class Pair:
    """`source`, perhaps `lookup`, and the `target` made of them; `during` is what happens in the middle of a run."""

    instance: dg.DagsterInstance
    assets: list[dg.AssetsDefinition] = field(default_factory=list)
    during: dict[str, Callable[[], object]] = field(default_factory=dict)
    cursor: Any = None

    def connect(
        self,
        condition: dg.AutomationCondition,
        partitions: dg.PartitionsDefinition | None = DAYS,
        inputs: tuple[str | dg.AssetDep, ...] = ("source",),
        at: datetime | None = None,
    ) -> set[str | None]:
        """Define both assets, the target with this condition; what is asked for at the first look."""

        def asset(key: str, **options: Any) -> dg.AssetsDefinition:
            @dg.asset(key=key, **options)
            def body() -> None:
                self.during.get(key, bool)()

            return body

        self.assets = [
            asset("source", partitions_def=partitions and DAYS),
            asset("lookup", partitions_def=partitions and DAYS),
            asset("target", partitions_def=partitions, deps=inputs, automation_condition=condition),
        ]
        return self.look(at)

    def look(self, at: datetime | None = None) -> set[str | None]:
        """The partitions of the target that are asked for now, or at this time."""
        result = dg.evaluate_automation_conditions(
            self.assets, self.instance, dg.AssetSelection.all(), cursor=self.cursor, evaluation_time=at
        )
        self.cursor = result.cursor
        return set(result.get_requested_partitions(dg.AssetKey("target")))

    def made(self, key: str, partition: str | None = DAY, content: str = "first") -> None:
        """The asset's partition was made; the same content has the same data version."""
        version = {"dagster/data_version": content}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition, tags=version))

    def run(self, *keys: str) -> bool:
        """Run one day of these assets, in one run; whether it succeeded."""
        job = dg.Definitions(assets=self.assets).resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            QUIET,
            instance=self.instance,
            asset_selection=[dg.AssetKey(key) for key in keys],
            partition_key=DAY,
            raise_on_error=False,
        ).success
