"""A dbt build is whole or nothing, on DuckDB."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from resources.warehouse import Warehouse
from tests.dbt_contract import DbtContract
from tests.dbt_contract import folder as folder


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(SecretStr(f"duckdb:///{tmp_path}/warehouse.duckdb"), wait_seconds=0)


class TestOnDuckDB(DbtContract):
    """The common tests."""
