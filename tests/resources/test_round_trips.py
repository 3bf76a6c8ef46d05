"""A sample of what `make test-faults` tries a thousand times."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.round_trips import check, frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@settings(max_examples=40)
@given(frame=frames())
def test_a_frame_is_read_back_equal_by_every_reader_or_refused_by_the_assets_name(folder: Path, frame: object) -> None:
    check(frame, folder)
