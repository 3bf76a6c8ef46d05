"""The same assets on PostgreSQL: the same marts, features and predictions as on DuckDB, to the row."""

from dataclasses import dataclass

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import SecretStr

from assets.flights import replay
from tests.example import DAILY_DBT, DAILY_RAW, FEATURES, MODELS, REFERENCE, SCORED, Platform
from tilth.settings import Deployment

FIRST, LAST = "2013-01-30", "2013-02-01"


def make_everything(platform: Platform) -> None:
    platform.land(FIRST, LAST)
    replay.land_reference(platform.landing)
    platform.make(REFERENCE)
    platform.make([*DAILY_RAW, *DAILY_DBT, *FEATURES], FIRST, LAST)
    platform.make([["features", "training_set"]], "2013-01")
    platform.make(MODELS, "2013-01|EWR", "2013-01|LGA")
    platform.make([["models", "in_service"]], "2013-02|EWR", "2013-02|LGA")
    platform.make(SCORED, "2013-02-01")


@dataclass
class Pair:
    duckdb: Platform
    postgres: Platform


@pytest.fixture(scope="module")
def pair(postgres_uri: str, tmp_path_factory: pytest.TempPathFactory) -> Pair:
    """The whole graph for three days, made once on each engine."""
    platforms = []
    for uri in ("", postgres_uri):
        home = tmp_path_factory.mktemp("state")
        deployment = Deployment(home=home, warehouse_uri=SecretStr(uri))
        platforms.append(Platform(deployment, dg.DagsterInstance.local_temp(str(home))))
        make_everything(platforms[-1])
    return Pair(*platforms)


@pytest.mark.parametrize(
    "table",
    ["raw.flights", "raw.weather", "marts.departures", "marts.daily_lateness", "marts.aircraft", "marts.airports"],
)
def test_a_table_holds_the_same_rows_on_both_engines(pair: Pair, table: str) -> None:
    rows = pair.duckdb.rows(table)
    assert len(rows) > 0
    pd.testing.assert_frame_equal(rows, pair.postgres.rows(table), check_dtype=False)


@pytest.mark.parametrize("key", [["features", "departures"], ["features", "training_set"], ["predictions", "delays"]])
def test_the_lake_holds_the_same_rows_on_both_engines(pair: Pair, key: list[str]) -> None:
    tables = [p.lake.read(dg.AssetKey(key)).sort_by("departure_id") for p in (pair.duckdb, pair.postgres)]
    assert tables[0].num_rows > 0
    assert tables[0].equals(tables[1])


def test_features_have_the_same_data_version_on_both_engines(pair: Pair) -> None:
    versions = [p.data_version(["features", "departures"], LAST) for p in (pair.duckdb, pair.postgres)]
    assert versions[0] == versions[1]


def test_a_day_made_again_on_postgres_is_the_same(pair: Pair) -> None:
    before = pair.postgres.rows("marts.departures")
    pair.postgres.make([*DAILY_RAW, *DAILY_DBT], LAST)
    pd.testing.assert_frame_equal(pair.postgres.rows("marts.departures"), before)


def test_an_error_in_a_postgres_transaction_leaves_everything_as_it_was(pair: Pair) -> None:
    before = pair.postgres.rows("raw.weather")
    nothing: pa.Table = pair.postgres.warehouse.read("SELECT * FROM raw.weather").slice(0, 0)

    def fail_in_the_middle() -> None:
        with pair.postgres.warehouse.transaction() as transaction:
            transaction.replace("raw.weather", nothing, "observation_date", [FIRST])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    pd.testing.assert_frame_equal(pair.postgres.rows("raw.weather"), before)


def test_the_password_is_in_no_file_of_the_state(pair: Pair) -> None:
    found = [
        path
        for path in pair.postgres.deployment.home.rglob("*")
        if path.is_file() and b"only-for-this-test" in path.read_bytes()
    ]
    assert found == []
