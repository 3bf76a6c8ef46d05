"""docs/automation.md says what the definitions say."""

import subprocess
import sys
import tomllib
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
MODULE = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["dg"]["project"]["code_location_target_module"]


@pytest.mark.skipif(bool(find_spec("torch")), reason="the page is of a deployment without the extra gpu")
def test_the_page_is_what_its_command_prints() -> None:
    command = [sys.executable, "-m", "tilth.automation.page", MODULE]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == (ROOT / "docs/automation.md").read_text()
