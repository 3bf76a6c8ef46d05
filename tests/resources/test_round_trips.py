"""A sample of what `make test-faults` tries a thousand times."""

import pytest
from hypothesis import given, settings
from pydantic import SecretStr

from resources.lake import Lake
from resources.warehouse import Warehouse
from tests.round_trips import check, frames


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Lake]:
    folder = tmp_path_factory.mktemp("stores")
    return Warehouse(SecretStr(f"duckdb:///{folder}/warehouse.duckdb")), Lake(str(folder / "lake"))


@settings(max_examples=40)
@given(frame=frames())
def test_a_frame_is_read_back_equal_by_every_reader_or_refused_by_the_assets_name(
    stores: tuple[Warehouse, Lake], frame: object
) -> None:
    check(frame, *stores)
