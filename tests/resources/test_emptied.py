"""A partition that loses all of its rows says so, in the step's log and on its materialization."""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from pydantic import SecretStr

from resources.lake import Lake
from resources.lake_io import LakeIOManager
from resources.warehouse import Warehouse
from resources.warehouse_io import WarehouseIOManager

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-05")
FIRST, SECOND = "2013-01-01", "2013-01-02"


class Rows(dg.Config):
    of: dict[str, int]


@dg.asset(
    key=["marts", "by_day"],
    partitions_def=DAYS,
    metadata={"partition_expr": "day"},
    backfill_policy=dg.BackfillPolicy.single_run(),
)
def by_day(context: dg.AssetExecutionContext, config: Rows) -> pd.DataFrame:
    days = [day for day in context.partition_keys for _ in range(config.of[day])]
    return pd.DataFrame({"day": pd.Series(days, dtype="string[pyarrow]"), "n": 1})


@dg.asset(key=["marts", "whole"])
def whole(config: Rows) -> pd.DataFrame:
    return pd.DataFrame({"n": pd.Series(range(config.of["rows"]), dtype="int64[pyarrow]")})


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture(params=["lake", "warehouse"])
def io(request: pytest.FixtureRequest, tmp_path: Path) -> dg.IOManager:
    if request.param == "lake":
        return LakeIOManager(Lake(str(tmp_path / "lake")))
    return WarehouseIOManager(Warehouse(SecretStr(f"duckdb:///{tmp_path}/warehouse.duckdb")))


def said(
    asset: dg.AssetsDefinition,
    io: dg.IOManager,
    instance: dg.DagsterInstance,
    capfd: pytest.CaptureFixture[str],
    **rows: int,
) -> tuple[dict[str | None, Any], str]:
    """By partition, what its materialization says it was emptied of; and what the step's log says."""
    asked: dict[str, Any] = {}
    if "rows" not in rows:
        first, last = FIRST, SECOND
        asked = {"tags": {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}}
        rows = {FIRST: rows["first"], SECOND: rows["second"]}
    config = {"ops": {"__".join(asset.key.path): {"config": {"of": rows}}}}
    capfd.readouterr()
    result = dg.materialize([asset], instance=instance, resources={"io_manager": io}, run_config=config, **asked)
    events = [event.materialization for event in result.get_asset_materialization_events()]
    log = "\n".join(line for line in capfd.readouterr().err.splitlines() if " rows now and had " in line)
    return {e.partition: getattr(e.metadata.get("emptied_of_rows"), "value", None) for e in events}, log


def test_a_day_of_a_range_that_becomes_empty_says_how_many_rows_it_had(
    io: dg.IOManager, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said(by_day, io, instance, capfd, first=3, second=0) == ({FIRST: None, SECOND: None}, "")
    emptied, log = said(by_day, io, instance, capfd, first=0, second=0)
    assert emptied == {FIRST: 3, SECOND: None}
    assert f"marts/by_day {FIRST} has 0 rows now and had 3" in log
    assert said(by_day, io, instance, capfd, first=0, second=2) == ({FIRST: None, SECOND: None}, "")


def test_a_partition_that_loses_nearly_all_of_its_rows_says_so(
    io: dg.IOManager, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said(whole, io, instance, capfd, rows=100)[0] == {None: None}
    assert said(whole, io, instance, capfd, rows=50)[0] == {None: None}
    assert said(whole, io, instance, capfd, rows=4)[0] == {None: 50}


def test_an_asset_without_partitions_that_becomes_empty_says_how_many_rows_it_had(
    io: dg.IOManager, instance: dg.DagsterInstance, capfd: pytest.CaptureFixture[str]
) -> None:
    assert said(whole, io, instance, capfd, rows=2)[0] == {None: None}
    emptied, log = said(whole, io, instance, capfd, rows=0)
    assert emptied == {None: 2}
    assert "marts/whole has 0 rows now and had 2" in log
