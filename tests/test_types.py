"""What is checked without running it: types, and the layers. Here, so that the other core has tests meanwhile."""

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]


@pytest.mark.parametrize("command", ["basedpyright --level error", "lint-imports --no-logo"])
def test_the_types_and_the_layers_of_platform_resources_and_assets_hold(command: str) -> None:
    program, *arguments = command.split()
    checked = subprocess.run(
        [Path(sys.executable).with_name(program), *arguments], cwd=ROOT, capture_output=True, text=True
    )
    assert checked.returncode == 0, checked.stdout + checked.stderr
