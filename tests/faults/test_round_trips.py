"""Frames of every kind, always the same ones: FRAMES=1000 for a thousand."""

import os

import pytest
from hypothesis import Phase, given, seed, settings
from pydantic import SecretStr

from resources.lake import Lake
from resources.warehouse import Warehouse
from tests.round_trips import check, frames


@pytest.fixture(scope="module")
def stores(tmp_path_factory: pytest.TempPathFactory) -> tuple[Warehouse, Lake]:
    folder = tmp_path_factory.mktemp("stores")
    return Warehouse(SecretStr(f"duckdb:///{folder}/warehouse.duckdb")), Lake(str(folder / "lake"))


@seed(12)
@settings(max_examples=int(os.environ.get("FRAMES", "250")), phases=[Phase.generate])
@given(frame=frames())
def test_frames_of_every_kind_are_read_back_equal_by_every_reader_or_refused_by_the_assets_name(
    stores: tuple[Warehouse, Lake], frame: object
) -> None:
    check(frame, *stores)
