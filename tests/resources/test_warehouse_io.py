"""Assets whose frames are warehouse tables, run by Dagster on a real DuckDB file."""

from collections.abc import Iterator
from datetime import date
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest
from pydantic import SecretStr

from resources.warehouse import Warehouse
from resources.warehouse_io import WarehouseIOManager, refuse_shared_tables

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-05")
FIRST, SECOND, THIRD = "2013-01-01", "2013-01-02", "2013-01-03"
ROWS_OF_A_DAY = 3


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(SecretStr(f"duckdb:///{tmp_path}/warehouse.duckdb"))


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


class Rows(dg.Config):
    value: int = 1
    of_the_day: int = ROWS_OF_A_DAY


@dg.asset(
    key=["marts", "things"],
    partitions_def=DAYS,
    metadata={"partition_expr": "day"},
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="warehouse_io",
)
def things(context: dg.AssetExecutionContext, config: Rows) -> pd.DataFrame:
    days = [date.fromisoformat(key) for key in context.partition_keys for _ in range(config.of_the_day)]
    return pd.DataFrame({"day": pd.Series(days, dtype="date32[pyarrow]"), "value": config.value, "note": "seen"})


@dg.asset(
    key=["marts", "sums"],
    ins={"things": dg.AssetIn(["marts", "things"], metadata={"columns": ["day", "value"]})},
    partitions_def=DAYS,
    metadata={"partition_expr": "day"},
    io_manager_key="warehouse_io",
)
def sums(things: pa.Table) -> pa.Table:
    assert things.column_names == ["day", "value"]
    return things.group_by("day").aggregate([("value", "sum")])


def run(
    warehouse: Warehouse, instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, config: Any = None, **keys: str
) -> dg.ExecuteInProcessResult:
    tags = {f"dagster/asset_partition_range_{end}": key for end, key in keys.items()}
    return dg.materialize(
        assets,
        selection=[asset.key for asset in assets],
        instance=instance,
        resources={"warehouse_io": WarehouseIOManager(warehouse)},
        tags=tags,
        run_config={"ops": {"marts__things": {"config": config}}} if config else None,
        raise_on_error=True,
    )


def by_day(warehouse: Warehouse) -> list[tuple[str, int]]:
    found = warehouse.read("SELECT day, value FROM marts.things ORDER BY day, value").to_pylist()
    return [(str(row["day"]), row["value"]) for row in found]


def test_a_range_of_days_is_stored_and_each_day_is_recorded(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    result = run(warehouse, instance, things, start=FIRST, end=SECOND)
    assert by_day(warehouse) == [(FIRST, 1)] * 3 + [(SECOND, 1)] * 3
    made = {event.partition: event for event in result.asset_materializations_for_node("marts__things")}
    assert set(made) == {FIRST, SECOND}
    assert made[FIRST].metadata["dagster/partition_row_count"].value == ROWS_OF_A_DAY
    assert made[FIRST].metadata["dagster/row_count"].value == 2 * ROWS_OF_A_DAY
    schema = made[FIRST].metadata["dagster/column_schema"].value
    assert [column.name for column in schema.columns] == ["day", "value", "note"]
    assert (made[FIRST].tags or {})["dagster/data_version"]


def test_a_day_made_again_replaces_that_day_alone_also_by_nothing(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    run(warehouse, instance, things, start=FIRST, end=THIRD, config={"of_the_day": 1})
    run(warehouse, instance, things, start=SECOND, end=SECOND, config={"of_the_day": 1, "value": 2})
    assert by_day(warehouse) == [(FIRST, 1), (SECOND, 2), (THIRD, 1)]
    run(warehouse, instance, things, start=FIRST, end=FIRST, config={"of_the_day": 0})
    assert by_day(warehouse) == [(SECOND, 2), (THIRD, 1)]


def test_an_asset_downstream_reads_its_day_and_the_columns_it_asks_for(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    run(warehouse, instance, things, start=FIRST, end=SECOND)
    run(warehouse, instance, things, sums, start=SECOND, end=SECOND)
    assert warehouse.read("marts.sums").to_pylist() == [{"day": date(2013, 1, 2), "value_sum": ROWS_OF_A_DAY}]


def test_an_unpartitioned_table_is_replaced_whole(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    @dg.asset(key=["marts", "whole"], io_manager_key="warehouse_io")
    def whole() -> pa.Table:
        return pa.table({"a": ["x", "y"]})

    for _ in range(2):
        run(warehouse, instance, whole)
    assert warehouse.read("marts.whole")["a"].to_pylist() == ["x", "y"]


def test_a_key_that_is_no_schema_and_table_is_refused_with_the_assets_name(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    @dg.asset(key=["too", "many", "parts"], io_manager_key="warehouse_io")
    def parts() -> pa.Table:
        return pa.table({"a": [1]})

    with pytest.raises(ValueError, match=r"^too/many/parts: a warehouse table has the asset key \[schema, name\]"):
        run(warehouse, instance, parts)


def test_what_is_no_frame_is_refused_with_the_assets_name(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    @dg.asset(key=["marts", "text"], io_manager_key="warehouse_io")
    def text() -> Any:
        return "not a frame"

    with pytest.raises(TypeError, match=r"^marts/text: a str is no table"):
        run(warehouse, instance, text)


class Price(dg.Config):
    value: float = 3.0


@dg.asset(
    key=["marts", "readings"],
    partitions_def=DAYS,
    metadata={"partition_expr": "at"},
    backfill_policy=dg.BackfillPolicy.single_run(),
    io_manager_key="warehouse_io",
)
def readings(context: dg.AssetExecutionContext, config: Price) -> pd.DataFrame:
    hours = [pd.Timestamp(key) + pd.Timedelta(hours=hour) for key in context.partition_keys for hour in range(24)]
    return pd.DataFrame({"at": hours, "value": config.value})


@dg.asset(
    key=["marts", "counts"],
    ins={"readings": dg.AssetIn(["marts", "readings"])},
    partitions_def=DAYS,
    metadata={"partition_expr": "day"},
    io_manager_key="warehouse_io",
)
def counts(context: dg.AssetExecutionContext, readings: pd.DataFrame) -> pd.DataFrame:
    return pd.DataFrame({"day": [context.partition_key], "rows": [len(readings)]})


def test_a_days_times_are_stored_recorded_and_read_as_the_days(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    made = run(warehouse, instance, readings, start=FIRST, end=SECOND).asset_materializations_for_node(
        "marts__readings"
    )
    assert [event.metadata["dagster/partition_row_count"].value for event in made] == [24, 24]
    run(warehouse, instance, readings, counts, start=SECOND, end=SECOND)
    assert warehouse.read("marts.counts")["rows"].to_pylist() == [24]


def test_a_correction_of_a_days_times_has_another_data_version(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    versions = []
    for value in (3.0, 102.0, 102.0):
        config = {"ops": {"marts__readings": {"config": {"value": value}}}}
        made = dg.materialize(
            [readings],
            instance=instance,
            resources={"warehouse_io": WarehouseIOManager(warehouse)},
            partition_key=FIRST,
            run_config=config,
        ).asset_materializations_for_node("marts__readings")
        versions.append(made[0].tags["dagster/data_version"])
    assert versions[0] != versions[1] == versions[2]


def test_whole_numbers_with_nulls_reach_the_asset_downstream_unchanged(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    @dg.asset(key=["raw", "customers"], io_manager_key="warehouse_io")
    def customers() -> pa.Table:
        return pa.table({"id": [9007199254740992, 9007199254740993, None]})

    @dg.asset(ins={"customers": dg.AssetIn(["raw", "customers"])}, key=["marts", "ids"], io_manager_key="warehouse_io")
    def ids(customers: pd.DataFrame) -> pd.DataFrame:
        return pd.DataFrame({"different": [customers["id"].nunique()]})

    run(warehouse, instance, customers, ids)
    assert warehouse.read("marts.ids")["different"].to_pylist() == [2]


def _named(*key: str) -> dg.AssetsDefinition:
    @dg.asset(key=list(key), io_manager_key="warehouse_io")
    def named() -> None: ...

    return named


def test_two_assets_that_would_share_a_table_are_refused_when_definitions_load(warehouse: Warehouse) -> None:
    postgres = Warehouse(SecretStr("postgresql://localhost/nowhere"))
    long = "of_a_table_whose_name_is_longer_than_what_postgresql_keeps_of_it_"
    pair = [_named("marts", f"{long}gross"), _named("marts", f"{long}net")]
    refuse_shared_tables(pair, warehouse, "warehouse_io")
    refuse_shared_tables(pair, postgres, "another_io")
    with pytest.raises(ValueError, match=rf"^marts\.{long}gross: postgresql keeps 63 bytes of a name .* shorter key"):
        refuse_shared_tables(pair, postgres, "warehouse_io")
    pair = [_named("marts", "net"), _named("Marts", "Net")]
    refuse_shared_tables(pair, postgres, "warehouse_io")
    with pytest.raises(ValueError, match=r"^Marts/Net and marts/net are one table in duckdb"):
        refuse_shared_tables(pair, warehouse, "warehouse_io")


@pytest.mark.parametrize("values", [[pd.Timestamp("2013-01-03 10:00")], [date(2013, 1, 3)]])
def test_a_partition_column_of_categories_is_recorded_as_its_values_are(
    warehouse: Warehouse, instance: dg.DagsterInstance, values: list[object]
) -> None:
    @dg.asset(
        key=["marts", "kinds"], partitions_def=DAYS, metadata={"partition_expr": "day"}, io_manager_key="warehouse_io"
    )
    def kinds() -> pd.DataFrame:
        return pd.DataFrame({"day": pd.Categorical(values), "value": [1]})

    done = run(warehouse, instance, kinds, start=THIRD, end=THIRD)
    made = done.asset_materializations_for_node("marts__kinds")
    assert [event.metadata["dagster/partition_row_count"].value for event in made] == [1]


def test_an_input_that_is_not_there_is_named_with_what_there_is(
    warehouse: Warehouse, instance: dg.DagsterInstance
) -> None:
    def sum_up() -> None:
        resources = {"warehouse_io": WarehouseIOManager(warehouse)}
        dg.materialize(
            [things, sums], selection=[sums.key], instance=instance, resources=resources, partition_key=FIRST
        )

    with pytest.raises(LookupError, match=r"^marts/things is not in the warehouse; materialize it first"):
        sum_up()
    warehouse.replace("marts.things", pa.table({"day": [date(2013, 1, 1)], "note": ["x"]}))
    with pytest.raises(LookupError, match=r"^marts/things has no column value; it has day, note\."):
        sum_up()


def test_an_empty_frame_of_no_types_empties_its_day(warehouse: Warehouse, instance: dg.DagsterInstance) -> None:
    @dg.asset(
        key=["marts", "things"], partitions_def=DAYS, metadata={"partition_expr": "day"}, io_manager_key="warehouse_io"
    )
    def nothing() -> pd.DataFrame:
        return pd.DataFrame({"day": [], "value": [], "note": []}, dtype=object)

    run(warehouse, instance, things, start=FIRST, end=SECOND)
    done = run(warehouse, instance, nothing, start=FIRST, end=FIRST)
    assert {day for day, _ in by_day(warehouse)} == {SECOND}
    made = done.asset_materializations_for_node("marts__things")
    assert [event.metadata["dagster/partition_row_count"].value for event in made] == [0]
