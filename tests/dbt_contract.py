"""What a dbt build promises, whichever engine it is on: each engine's test file inherits these tests."""

import os
import shutil
import signal
import threading
import time
from collections.abc import Mapping
from datetime import date
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest

from resources.dbt import Dbt, dbt_project
from resources.dbt_assets import checked, daily_dbt_assets, unpartitioned_dbt_assets
from resources.warehouse import Warehouse
from tests.conftest import QUIET
from tilth._dagster.event_log import present_versions
from tilth.automation.ranges import range_tags
from tilth.versioning.inputs import INPUTS

RESOURCES = Path(__file__).parents[1] / "resources"
FILES = {
    "dbt_project.yml": "name: shop\nprofile: warehouse\nmodels: {+schema: shop, +materialized: table}\n",
    "macros/schemas.sql": "{% macro generate_schema_name(name, node) %}{{ name or target.schema }}{% endmacro %}",
    "models/goods.sql": "select n from {{ source('raw', 'goods') }}\n",
    "models/prices.sql": "select n * 2 as n from {{ ref('goods') }}\n",
    "models/customers.sql": "select n from {{ source('raw', 'customers') }}\n",
    "models/models.yml": """
sources:
  - name: raw
    tables: [name: goods, name: customers]
models:
  - name: goods
    columns: [{name: n, data_tests: [not_null, unique]}]
  - name: customers
    columns: [{name: n, data_tests: [not_null]}]
""",
}
DAILY = {
    "dbt_project.yml": """
name: shop
profile: warehouse
vars: {first_day: "2020-01-01", last_day: "2020-01-31"}
models:
  +schema: shop
  +tags: daily
  +materialized: incremental
  +incremental_strategy: replace_days
  +on_schema_change: append_new_columns
  +full_refresh: false
  +meta: {partition_expr: day}
""",
    "macros/schemas.sql": FILES["macros/schemas.sql"],
    "macros/days.sql": (RESOURCES / "days.sql").read_text(),
    "models/sales.sql": "select day, n from {{ source('raw', 'sales') }} where {{ in_days('day') }}",
    "models/of_two_days.sql": """
select sales.day, cast(sum(earlier.n) as bigint) as n
from {{ ref('sales') }} as sales
join {{ ref('sales') }} as earlier on earlier.day between sales.day - interval '1 day' and sales.day
where {{ in_days('sales.day') }}
group by sales.day
""",
    "models/models.yml": """
sources: [{name: raw, tables: [name: sales]}]
models:
  - name: sales
    columns: [{name: n, data_tests: [not_null: {config: {where: day between __first_day__ and __last_day__}}]}]
""",
}
ENDLESS = {
    "duckdb": "select sum(range) as n from range(10000000000000)",
    "postgresql": "select 1 as n from pg_sleep(600)",
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dbt project of goods, their prices, and customers."""
    return written(tmp_path_factory.mktemp("dbt"), FILES)


def written(folder: Path, files: Mapping[str, str]) -> Path:
    for name, content in files.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    shutil.copy(RESOURCES / "profiles.yml", folder)
    return folder


def build(folder: Path, warehouse: Warehouse) -> dg.ExecuteInProcessResult:
    """A step of all the project's models."""
    project = dbt_project(folder, warehouse)
    models = unpartitioned_dbt_assets(project, select="fqn:*")
    return dg.materialize(
        [models],
        resources={"dbt": Dbt(project, warehouse)},
        run_config=QUIET,
        raise_on_error=False,
    )


def build_days(
    folder: Path, warehouse: Warehouse, instance: dg.DagsterInstance, first: int, last: int
) -> dg.ExecuteInProcessResult:
    """A step of the project's daily models for these days of January 2020."""
    project = checked(dbt_project(folder, warehouse))
    days = dg.DailyPartitionsDefinition("2020-01-01", end_date="2020-02-01")
    daily = daily_dbt_assets(project, by=days, select="tag:daily")
    resources = {"dbt": Dbt(project, warehouse), "warehouse": warehouse}
    return (
        dg.Definitions([daily], resources=resources)
        .resolve_implicit_global_asset_job_def()
        .execute_in_process(
            instance=instance,
            tags=range_tags(f"2020-01-{first:02}", f"2020-01-{last:02}"),
            run_config=QUIET,
            raise_on_error=False,
        )
    )


def sell(warehouse: Warehouse, **numbers: int | None) -> None:
    """What was sold, `d3` on the third day of January 2020."""
    days = [date(2020, 1, int(name[1:])) for name in numbers]
    sold = pa.table({"day": pa.array(days, pa.date32()), "n": pa.array([*numbers.values()], pa.int64())})
    warehouse.replace("raw.sales", sold)


def by_day_of(warehouse: Warehouse, table: str, column: str = "n") -> dict[int, int | None]:
    rows = warehouse.read(f"shop.{table}", ["day", column]).to_pylist()
    return {row["day"].day: row[column] for row in rows}


def put(warehouse: Warehouse, *, goods: list[int | None], customers: list[int | None]) -> None:
    warehouse.replace("raw.goods", pa.table({"n": pa.array(goods, pa.int64())}))
    warehouse.replace("raw.customers", pa.table({"n": pa.array(customers, pa.int64())}))


def numbers(warehouse: Warehouse) -> dict[str, list[int]]:
    tables = [table for table in ("goods", "prices", "customers") if warehouse.exists(f"shop.{table}")]
    return {table: sorted(warehouse.read(f"shop.{table}")["n"].to_pylist()) for table in tables}


def made(result: dg.ExecuteInProcessResult) -> set[str]:
    return {event.asset_key.path[-1] for event in result.get_asset_materialization_events() if event.asset_key}


def checks(result: dg.ExecuteInProcessResult) -> dict[str, bool]:
    found = [(check.check_name, check.passed) for check in result.get_asset_check_evaluations()]
    assert len(dict(found)) == len(found), "a check is told of once"
    return dict(found)


def error(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure)


class DbtContract:
    """Tests of a `warehouse` fixture, in which there is nothing yet."""

    def test_what_fails_its_test_is_not_there_nor_what_is_made_from_it_and_the_rest_is(
        self, folder: Path, warehouse: Warehouse
    ) -> None:
        put(warehouse, goods=[1, 2], customers=[1])
        assert build(folder, warehouse).success
        put(warehouse, goods=[3, 3], customers=[4])
        failed = build(folder, warehouse)

        assert "Failure in test unique_goods_n" in error(failed)
        assert numbers(warehouse) == {"goods": [1, 2], "prices": [2, 4], "customers": [4]}
        assert made(failed) == {"customers"}
        assert checks(failed) == {"not_null_goods_n": True, "unique_goods_n": False, "not_null_customers_n": True}

    def test_of_a_first_build_that_fails_there_is_nothing(self, folder: Path, warehouse: Warehouse) -> None:
        put(warehouse, goods=[1, None], customers=[None])
        failed = build(folder, warehouse)

        assert "Failure in test not_null_goods_n" in error(failed)
        assert numbers(warehouse) == {}
        assert made(failed) == set()
        assert {name for name, passed in checks(failed).items() if not passed} == {
            "not_null_goods_n",
            "not_null_customers_n",
        }

    def test_an_error_that_ends_the_transaction_is_of_its_own_model_alone(
        self, tmp_path: Path, warehouse: Warehouse
    ) -> None:
        put(warehouse, goods=[1, 2], customers=[1])
        divided = "select n / 0 as n, cast('x' || n as bigint) as m from {{ source('raw', 'goods') }}"
        failed = build(written(tmp_path, {**FILES, "models/goods.sql": divided}), warehouse)

        assert "model goods (models/goods.sql)" in error(failed)
        assert "customers" not in error(failed)
        assert numbers(warehouse) == {"customers": [1]}
        assert made(failed) == {"customers"}

    def test_a_daily_model_reads_days_that_are_published_and_those_of_its_step(
        self, tmp_path: Path, warehouse: Warehouse
    ) -> None:
        folder = written(tmp_path, DAILY)
        sell(warehouse, d1=1, d2=2, d3=3, d4=None, d5=5)
        with dg.DagsterInstance.ephemeral() as instance:
            assert build_days(folder, warehouse, instance, 1, 2).success
            failed = build_days(folder, warehouse, instance, 3, 5)

            assert "1 of 3 days fail not_null_sales_n" in error(failed)
            assert by_day_of(warehouse, "sales") == {1: 1, 2: 2, 3: 3, 5: 5}
            assert by_day_of(warehouse, "of_two_days") == {1: 1, 2: 3, 3: 5, 5: 5}
            for key in (["shop", "sales"], ["shop", "of_two_days"]):
                days = instance.get_materialized_partitions(dg.AssetKey(key))
                assert days == {f"2020-01-0{day}" for day in (1, 2, 3, 5)}
            versions = present_versions(instance, dg.AssetKey(["shop", "sales"]))
            for record in instance.fetch_materializations(dg.AssetKey(["shop", "of_two_days"]), limit=10).records:
                (inputs,) = (
                    value.value for name, value in record.asset_materialization.metadata.items() if name == INPUTS
                )
                assert inputs["shop/sales"] == {record.partition_key: versions[record.partition_key]}

    def test_a_new_column_of_a_daily_model_is_published_with_its_days(
        self, tmp_path: Path, warehouse: Warehouse
    ) -> None:
        folder = written(tmp_path, DAILY)
        sell(warehouse, d1=1, d2=2, d3=None)
        with dg.DagsterInstance.ephemeral() as instance:
            assert build_days(folder, warehouse, instance, 1, 2).success
            sales = folder / "models/sales.sql"
            sales.write_text(sales.read_text().replace("n from", "n, 10 * n as m from"))
            assert not build_days(folder, warehouse, instance, 3, 3).success
            assert "m" not in warehouse.read("shop.sales").column_names
            assert build_days(folder, warehouse, instance, 2, 2).success
            assert by_day_of(warehouse, "sales", "m") == {1: None, 2: 20}

    def test_a_day_without_rows_any_more_is_emptied(self, tmp_path: Path, warehouse: Warehouse) -> None:
        folder = written(tmp_path, DAILY)
        sell(warehouse, d1=1, d2=2)
        with dg.DagsterInstance.ephemeral() as instance:
            assert build_days(folder, warehouse, instance, 1, 2).success
            sell(warehouse, d1=1)
            assert build_days(folder, warehouse, instance, 2, 2).success
            assert by_day_of(warehouse, "sales") == by_day_of(warehouse, "of_two_days") == {1: 1}

    def test_a_model_that_fails_a_unit_test_is_not_published(self, tmp_path: Path, warehouse: Warehouse) -> None:
        put(warehouse, goods=[1, 2], customers=[1])
        tested = """
unit_tests:
  - name: goods_are_doubled
    model: goods
    given: [{input: "source('raw', 'goods')", rows: [{n: 1}]}]
    expect: {rows: [{n: 2}]}
"""
        failed = build(written(tmp_path, {**FILES, "models/unit.yml": tested}), warehouse)

        assert "goods_are_doubled" in error(failed)
        assert numbers(warehouse) == {"customers": [1]}
        assert made(failed) == {"customers"}

    def test_a_model_that_a_test_compares_with_one_that_fails_stays_as_it_was(
        self, tmp_path: Path, warehouse: Warehouse
    ) -> None:
        compared = FILES["models/models.yml"].replace(
            "columns: [{name: n, data_tests: [not_null]}]",
            "columns: [{name: n, data_tests: [relationships: {arguments: {to: ref('goods'), field: n}}]}]",
        )
        folder = written(tmp_path, {**FILES, "models/models.yml": compared})
        put(warehouse, goods=[1, 2], customers=[1])
        assert build(folder, warehouse).success
        put(warehouse, goods=[9, 9], customers=[9])
        failed = build(folder, warehouse)

        assert "Failure in test unique_goods_n" in error(failed)
        assert numbers(warehouse) == {"goods": [1, 2], "prices": [2, 4], "customers": [1]}
        assert made(failed) == set()

    def test_a_commit_that_publishes_rows_before_a_test_fails_them_is_said(
        self, tmp_path: Path, warehouse: Warehouse
    ) -> None:
        put(warehouse, goods=[1, None], customers=[1])
        committing = "{{ config(post_hook='analyze {{ this }}; commit') }} select n from {{ source('raw', 'goods') }}"
        failed = build(written(tmp_path, {**FILES, "models/goods.sql": committing}), warehouse)

        assert "The SQL of a model, macro or hook commits" in error(failed)

    def test_a_daily_table_that_would_lose_its_other_days_is_refused_though_nobody_checked_the_project(
        self, tmp_path: Path, warehouse: Warehouse
    ) -> None:
        losing = DAILY["dbt_project.yml"].replace("+materialized: incremental", "+materialized: table")
        project = dbt_project(written(tmp_path, {**DAILY, "dbt_project.yml": losing}), warehouse)
        days = dg.DailyPartitionsDefinition("2020-01-01", end_date="2020-02-01")
        with pytest.raises(ValueError, match="each build would leave nothing but its own"):
            daily_dbt_assets(project, by=days, select="tag:daily")

    def test_a_commit_in_a_models_sql_is_an_error(self, tmp_path: Path, warehouse: Warehouse) -> None:
        put(warehouse, goods=[1, 2], customers=[1])
        committing = "{{ config(post_hook='commit; begin') }} select n from {{ source('raw', 'goods') }}"
        failed = build(written(tmp_path, {**FILES, "models/goods.sql": committing}), warehouse)

        assert "The SQL of a model, macro or hook commits" in error(failed)
        assert made(failed) == set()

    def test_a_query_that_is_under_way_is_cancelled_at_once(self, tmp_path: Path, warehouse: Warehouse) -> None:
        put(warehouse, goods=[1, 2], customers=[1])
        endless = written(tmp_path, {**FILES, "models/goods.sql": ENDLESS[warehouse.engine]})
        dbt_project(endless, warehouse)
        cancelled = threading.Timer(4, os.kill, (os.getpid(), signal.SIGINT))
        cancelled.start()
        started = time.monotonic()
        failed = build(endless, warehouse)

        assert "DagsterExecutionInterruptedError" in error(failed)
        assert time.monotonic() - started < 4 + 2
        put(warehouse, goods=[1], customers=[1])
        assert numbers(warehouse) == {}
