"""The example's assets, and its record, from the command line."""

import subprocess
from collections.abc import Sequence

import pytest

from resources.warehouse import Warehouse
from tests.shell import Shell, shell_in
from tilth.settings import Deployment

MATERIALIZE = ["dagster", "asset", "materialize", "-m", "assets.flights.definitions"]


@pytest.fixture(scope="module")
def shell(tmp_path_factory: pytest.TempPathFactory) -> Shell:
    """With the reference tables and the record's first day in the landing zone."""
    shell = shell_in(tmp_path_factory.mktemp("home"))
    landed = shell.run("python", "-m", "assets.flights.replay", "--reference", "--through", "2013-01-01")
    assert landed.returncode == 0, landed.stderr
    return shell


def materialize(shell: Shell, selection: str, day: str | None = None) -> subprocess.CompletedProcess[str]:
    return shell.run(*MATERIALIZE, "--select", selection, *(["--partition", day] if day else []))


def rows(shell: Shell, table: str) -> int:
    warehouse = Warehouse(Deployment(home=shell.home / "state").warehouse_uri)
    return warehouse.read(f"SELECT count(*) AS rows FROM {table}")["rows"][0].as_py()


def test_a_table_and_its_dbt_models_are_made_from_the_command_line(shell: Shell) -> None:
    made = materialize(shell, "key:raw/airlines or key:staging/airlines or key:marts/airlines")
    assert made.returncode == 0, made.stderr[-2000:]
    assert rows(shell, "raw.airlines") == rows(shell, "marts.airlines") == 16


def test_one_day_is_made_from_the_command_line_and_a_day_that_never_landed_says_where_its_file_would_be(
    shell: Shell,
) -> None:
    made = materialize(shell, "raw/flights", "2013-01-01")
    assert made.returncode == 0, made.stderr[-2000:]
    assert rows(shell, "raw.flights") == 842

    refused = materialize(shell, "raw/flights", "2013-01-02")
    assert refused.returncode != 0
    assert str(shell.home / "state" / "landing" / "flights" / "2013-01-02.csv.gz") in refused.stderr
    assert rows(shell, "raw.flights") == 842


@pytest.mark.parametrize(
    ("arguments", "said"),
    [(["--day", "2014-05-01"], "2013-01-01 to 2013-12-31"), ([], "--day, --through or --reference")],
    ids=["a day outside the record", "nothing"],
)
def test_a_replay_that_cannot_be_done_ends_non_zero_and_says_what_can(
    shell: Shell, arguments: Sequence[str], said: str
) -> None:
    refused = shell.run("python", "-m", "assets.flights.replay", *arguments)
    assert refused.returncode != 0
    assert said in refused.stderr
    assert "Traceback" not in refused.stderr
