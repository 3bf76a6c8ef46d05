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


def errors_of_builds(folder: Path, warehouse: Warehouse, count: int) -> list[str]:
    return [said for _ in range(count) if (said := error(build(folder, warehouse)))]


class TestOnPostgreSQL(DbtContract):
    """The common tests."""

    def test_the_error_of_a_connection_that_is_lost_names_the_model(self, tmp_path: Path, warehouse: Warehouse) -> None:
        put(warehouse, goods=[1, 2], customers=[3])
        losing = "select 1 as n where pg_terminate_backend(pg_backend_pid())"
        failed = build(written(tmp_path, {**FILES, "models/goods.sql": losing}), warehouse)

        assert "model goods (models/goods.sql)" in error(failed)
        assert numbers(warehouse) == {}

    def test_builds_that_begin_at_once_come_one_after_the_other(self, folder: Path, warehouse: Warehouse) -> None:
        put(warehouse, goods=[1, 2], customers=[3])
        dbt_project(folder, warehouse)
        with ProcessPoolExecutor(2, multiprocessing.get_context("spawn")) as processes:
            builds = [processes.submit(errors_of_builds, folder, warehouse, 5) for _ in range(2)]
            assert [done.result() for done in builds] == [[], []]
        assert numbers(warehouse) == {"goods": [1, 2], "prices": [2, 4], "customers": [3]}
