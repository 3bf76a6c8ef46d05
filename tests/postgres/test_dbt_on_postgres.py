"""A dbt build is whole or nothing, on PostgreSQL, where several may begin at once."""

import multiprocessing
from concurrent.futures import ProcessPoolExecutor
from pathlib import Path

import pytest
from pydantic import SecretStr

from resources.dbt import dbt_project
from resources.warehouse import Warehouse
from tests.dbt_contract import FILES, DbtContract, build, error, numbers, put, written
from tests.dbt_contract import folder as folder


@pytest.fixture
def warehouse(postgres_uri: str) -> Warehouse:
    warehouse = Warehouse(SecretStr(postgres_uri))
    with warehouse.transaction() as transaction:
        for schema in ("raw", "shop"):
            transaction.execute(f"DROP SCHEMA IF EXISTS {schema} CASCADE")
    return warehouse


def error_of_build(folder: Path, warehouse: Warehouse) -> str:
    return error(build(folder, warehouse))


def making_one_and_reading_the_other(folder: Path, made: str, read: str) -> Path:
    """A dbt project that makes a table, takes its time, and reads one that another project makes."""
    sources = f"sources: [{{name: raw, tables: [name: {made}]}}, {{name: shop, tables: [name: {read}]}}]"
    slowly = "{{ config(post_hook='select pg_sleep(5)') }} select n from {{ source('raw', '%s') }}"
    both = "select one.n from {{ ref('%s') }} as one join {{ source('shop', '%s') }} as other using (n)"
    models = {f"models/{made}.sql": slowly % made, f"models/{made}_{read}.sql": both % (made, read)}
    folder.mkdir()
    kept = {name: FILES[name] for name in ("dbt_project.yml", "macros/schemas.sql")}
    return written(folder, {**kept, **models, "models/models.yml": sources})


class TestOnPostgreSQL(DbtContract):
    """The common tests."""

    def test_the_error_of_a_connection_that_is_lost_names_the_model(self, tmp_path: Path, warehouse: Warehouse) -> None:
        put(warehouse, goods=[1, 2], customers=[3])
        losing = "select 1 as n where pg_terminate_backend(pg_backend_pid())"
        failed = build(written(tmp_path, {**FILES, "models/goods.sql": losing}), warehouse)

        assert "model goods (models/goods.sql)" in error(failed)
        assert numbers(warehouse) == {}

    def test_of_builds_that_begin_at_once_none_waits_for_one_that_waits_for_it(
        self, folder: Path, tmp_path: Path, warehouse: Warehouse
    ) -> None:
        put(warehouse, goods=[1, 2], customers=[2])
        assert build(folder, warehouse).success
        folders = [
            making_one_and_reading_the_other(tmp_path / "goods", "goods", "customers"),
            making_one_and_reading_the_other(tmp_path / "customers", "customers", "goods"),
        ]
        for each in folders:
            dbt_project(each, warehouse)
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
            builds = [processes.submit(error_of_build, each, warehouse) for each in folders]
            assert [done.result() for done in builds] == ["", ""]
        assert warehouse.read("shop.goods_customers")["n"].to_pylist() == [2]
