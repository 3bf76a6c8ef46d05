"""Rows that no test has passed are never taken for what was there before, on DuckDB."""

from pathlib import Path

import pytest
from pydantic import SecretStr

from resources.warehouse import Warehouse
from tests.recorded_rows_contract import RecordedRowsContract


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    return Warehouse(SecretStr(f"duckdb:///{tmp_path}/warehouse.duckdb"))


class TestOnDuckDB(RecordedRowsContract):
    """The common tests."""
