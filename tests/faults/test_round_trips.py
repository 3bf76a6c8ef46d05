"""Frames of every kind, always the same ones: FRAMES=1000 for a thousand."""

import os
from pathlib import Path

import pytest
from hypothesis import Phase, given, seed, settings

from tests.round_trips import check, frames


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("stores")


@seed(12)
@settings(max_examples=int(os.environ.get("FRAMES", "250")), phases=[Phase.generate])
@given(frame=frames())
def test_frames_of_every_kind_are_read_back_equal_by_every_reader_or_refused_by_the_assets_name(
    folder: Path, frame: object
) -> None:
    check(frame, folder)
