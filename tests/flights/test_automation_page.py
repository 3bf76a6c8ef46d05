"""docs/automation.md says what the definitions say."""

import subprocess
import sys
from pathlib import Path

import pytest

from assets.flights.models import PYTORCH_INSTALLED

ROOT = Path(__file__).parents[2]


@pytest.mark.skipif(PYTORCH_INSTALLED, reason="the page is of a deployment without the extra gpu")
def test_the_page_is_what_its_command_prints() -> None:
    command = [sys.executable, "-m", "tilth.automation.page", "assets.flights.definitions"]
    printed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    assert printed == (ROOT / "docs/automation.md").read_text()
    assert "| `features/training_set` | monthly | `on complete window; again */10 * * * *` |" in printed
