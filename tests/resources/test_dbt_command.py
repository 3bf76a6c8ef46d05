"""`tilth-dbt` is dbt, and says its version at once."""

import re
import subprocess
import sys
from pathlib import Path

BIN = Path(sys.executable).parent


def said(*command: str) -> str:
    return subprocess.run([BIN / command[0], *command[1:]], capture_output=True, text=True, check=True).stdout


def test_it_says_the_version_that_dbt_says() -> None:
    says = re.search(r"installed: ([0-9.]+)", said("dbt", "--version"))
    assert says
    assert said("tilth-dbt", "--version") == f"{says[1]}\n"


def test_all_else_is_dbts() -> None:
    options = said("dbt", "build", "--help").partition("Options:")[2]
    assert options
    assert said("tilth-dbt", "build", "--help").partition("Options:")[2] == options
