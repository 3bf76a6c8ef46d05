"""Automation conditions evaluated as by the daemon, over two small assets."""

from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import dagster as dg
import pandas as pd

from tests.conftest import QUIET


def dates(first: str, last: str) -> list[str]:
    """The daily partitions from `first` to `last`, both inclusive."""
    return [str(day.date()) for day in pd.date_range(first, last)]


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
