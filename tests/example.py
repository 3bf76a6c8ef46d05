"""The example domain for its tests: a platform of its own, with its state in a temporary folder."""

import fcntl
import os
import shutil
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import date
from functools import cached_property
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest

from assets.flights import replay
from assets.flights.definitions import definitions
from resources.lake import Lake
from resources.landing import LandingZone
from resources.warehouse import Warehouse
from tests.conftest import QUIET
from tilth.automation.ranges import range_tags
from tilth.settings import Deployment

REFERENCE = [
    *(["raw", table] for table in ("planes", "airlines", "airports")),
    *(["staging", table] for table in ("planes", "airlines", "airports")),
    *(["marts", table] for table in ("aircraft", "airlines", "airports")),
]
DAILY_RAW = [["raw", "flights"], ["raw", "weather"]]
DAILY_DBT = [["staging", "flights"], ["staging", "weather"], ["marts", "departures"], ["marts", "daily_lateness"]]
FEATURES = [["features", "departures"]]
# The neural one is trained where PyTorch is installed, and tests/flights/test_neural.py is about it.
MODELS = [["models", "delay_logistic"], ["models", "delay_boosted"], ["models", "delay_champion"]]
SCORED = [["predictions", "delays"], ["reports", "prediction_quality"]]
FIVE_DAYS = ["2013-01-29", "2013-01-30", "2013-01-31", "2013-02-01", "2013-02-02"]


@dataclass
class Platform:
    """The flights domain on stores of its own, and a Dagster instance that remembers its runs."""

    deployment: Deployment
    instance: dg.DagsterInstance

    @property
    def warehouse(self) -> Warehouse:
        return Warehouse(self.deployment.warehouse_uri)

    @property
    def lake(self) -> Lake:
        return Lake.of(self.deployment)

    @property
    def landing(self) -> LandingZone:
        return LandingZone.of(self.deployment)

    @cached_property
    def job(self) -> dg.JobDefinition:
        """Of all assets of the domain on these stores."""
        return definitions(self.deployment).resolve_implicit_global_asset_job_def()

    def land(self, first: str, last: str | None = None) -> None:
        replay.land_days(self.landing, date.fromisoformat(first), date.fromisoformat(last or first))

    def materialize(
        self,
        assets: Sequence[Sequence[str]],
        first: str | None = None,
        last: str | None = None,
        accept: Mapping[str, str] | None = None,
    ) -> dg.ExecuteInProcessResult:
        """One Dagster run of these assets over a range of partitions; the caller looks at its success.

        accept: by raw table, why what has landed is accepted although it breaks the table's limits.
        """
        accepted = {
            f"raw__{table}": {"config": {"accept": {file.arrival: word for file in self.landing.files(table)}}}
            for table, word in (accept or {}).items()
        }
        return self.job.execute_in_process(
            instance=self.instance,
            asset_selection=[dg.AssetKey(list(key)) for key in assets],
            tags=range_tags(first, last or first) if first else {},
            run_config={**QUIET, "ops": accepted},
            raise_on_error=False,
        )

    def make(
        self,
        assets: Sequence[Sequence[str]],
        first: str | None = None,
        last: str | None = None,
        accept: Mapping[str, str] | None = None,
    ) -> None:
        """As `materialize`, for a run that must succeed."""
        result = self.materialize(assets, first, last, accept)
        failures = [event for event in result.all_events if event.is_step_failure]
        assert result.success, "\n".join(str(event.step_failure_data.error) for event in failures)

    def rows(self, table: str, columns: str = "*") -> pd.DataFrame:
        """A warehouse table, sorted by all of its columns."""
        frame = self.warehouse.read(f"SELECT {columns} FROM {table}").to_pandas()
        return frame.sort_values(list(frame.columns)).reset_index(drop=True)

    def latest(self, key: Sequence[str], partition: str | None = None) -> dg.AssetMaterialization | None:
        """The newest materialization of an asset's partition."""
        records = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(list(key)), asset_partitions=[partition] if partition else None), limit=1
        ).records
        return records[0].asset_materialization if records else None

    def data_version(self, key: Sequence[str], partition: str) -> str:
        found = self.latest(key, partition)
        assert found is not None, f"{key} {partition} was never materialized"
        return (found.tags or {})["dagster/data_version"]


# What steps print goes to pytest. To keep it in files as well, Dagster would start four processes for each of them.
UNCAPTURED = {
    "compute_logs": {"module": "dagster._core.storage.noop_compute_log_manager", "class": "NoOpComputeLogManager"}
}


@contextmanager
def platform_in(home: Path) -> Iterator[Platform]:
    """A platform with its state in `home`, a folder that is there."""
    with dg.DagsterInstance.local_temp(str(home), overrides=UNCAPTURED) as instance:
        yield Platform(Deployment(home=home), instance)


@pytest.fixture
def platform(tmp_path: Path) -> Iterator[Platform]:
    """An empty platform in a folder of its own."""
    with platform_in(tmp_path) as platform:
        yield platform


@contextmanager
def copied(state: Path, home: Path) -> Iterator[Platform]:
    """A platform in `home` that holds a copy of all that another one's state holds, the record of its runs too."""
    shutil.copytree(state, home, dirs_exist_ok=True)
    with platform_in(home) as platform:
        yield platform


def made_once(temporary: pytest.TempPathFactory, name: str, make: Callable[[Path], None]) -> Path:
    """A folder that `make` has filled; where tests run in several processes, the first makes it for all of them."""
    shared = temporary.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        shared = shared.parent
    made = shared / name
    with (shared / f"{name}.lock").open("w") as turn:
        fcntl.flock(turn, fcntl.LOCK_EX)
        if not made.exists():
            new = Path(tempfile.mkdtemp(dir=shared))
            make(new)
            new.rename(made)
    return made


@pytest.fixture(scope="session")
def with_reference(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a platform on which the reference tables are made and no day has landed; to be copied."""

    def make(home: Path) -> None:
        with platform_in(home) as platform:
            replay.land_reference(platform.landing)
            platform.make(REFERENCE)

    return made_once(tmp_path_factory, "with_reference", make)


@pytest.fixture(scope="session")
def with_five_days(with_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of one on which five days are made as well, up to their features, in one run; to be copied."""

    def make(home: Path) -> None:
        with copied(with_reference, home) as platform:
            platform.land(FIVE_DAYS[0], FIVE_DAYS[-1])
            platform.make([*DAILY_RAW, *DAILY_DBT, *FEATURES], FIVE_DAYS[0], FIVE_DAYS[-1])

    return made_once(tmp_path_factory, "with_five_days", make)
