"""The settings of a deployment: embedded defaults under one home, each replaced by its own TILTH_* variable."""

import os
from collections.abc import Callable
from pathlib import Path

import pytest
from pydantic import ValidationError

from tilth.settings import Deployment

PASSWORD = "correct-horse"  # noqa: S105 (of a server that does not exist)
POSTGRES = f"postgresql://tilth:{PASSWORD}@db.example:5432/tilth"


@pytest.fixture(autouse=True)
def nothing_set(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.upper().startswith("TILTH_")]:
        monkeypatch.delenv(name)


def clone(folder: Path) -> Path:
    """A project's root, with a folder for notebooks in it."""
    (folder / "notebooks" / "drafts").mkdir(parents=True)
    (folder / "workspace.yaml").touch()
    return folder


def test_without_any_variable_all_state_lies_in_the_projects_tilth_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(clone(tmp_path))
    deployment, home = Deployment(), tmp_path / ".tilth"
    assert deployment.home == home
    assert deployment.branch == "main"
    assert deployment.landing_uri == str(home / "landing")
    assert deployment.warehouse_uri.get_secret_value() == f"duckdb:///{home / 'warehouse.duckdb'}"
    assert deployment.lake_uri == str(home / "lake")
    assert deployment.models_uri == str(home / "models")


def test_a_notebook_in_a_subfolder_finds_the_state_of_the_root(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(clone(tmp_path))
    in_root = Deployment()
    monkeypatch.chdir(tmp_path / "notebooks" / "drafts")
    assert Deployment() == in_root


def test_outside_of_any_project_the_state_lies_in_the_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    assert Deployment().home == tmp_path / ".tilth"


def test_the_home_moves_all_stores_but_the_one_that_has_a_variable_of_its_own(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTH_HOME", str(tmp_path / "elsewhere"))
    monkeypatch.setenv("TILTH_LAKE_URI", "s3://bucket/lake")
    deployment = Deployment()
    assert deployment.lake_uri == "s3://bucket/lake"
    assert deployment.landing_uri == str(tmp_path / "elsewhere" / "landing")
    assert deployment.warehouse_uri.get_secret_value() == f"duckdb:///{tmp_path / 'elsewhere' / 'warehouse.duckdb'}"
    assert deployment.models_uri == str(tmp_path / "elsewhere" / "models")


@pytest.mark.parametrize(
    ("variable", "field"), [("TILTH_LANDING_URI", "landing_uri"), ("TILTH_MODELS_URI", "models_uri")]
)
def test_a_store_is_where_its_variable_says(variable: str, field: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(variable, "s3://bucket/there")
    assert getattr(Deployment(), field) == "s3://bucket/there"


@pytest.mark.parametrize("name", ["HOME", "LANDING_URI", "WAREHOUSE_URI", "LAKE_URI", "MODELS_URI"])
def test_a_variable_that_is_empty_is_as_one_that_is_not_set(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As `${LAKE:-}` in a compose file, or a value left blank in a chart, arrives.
    monkeypatch.chdir(clone(tmp_path))
    unset = Deployment()
    monkeypatch.setenv(f"TILTH_{name}", "")
    assert Deployment() == unset


def test_a_home_that_is_relative_or_of_the_user_is_made_absolute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("HOME", str(tmp_path / "ada"))
    monkeypatch.setenv("TILTH_HOME", "state")
    assert Deployment().lake_uri == str(tmp_path / "state" / "lake")
    monkeypatch.setenv("TILTH_HOME", "~/state")
    assert Deployment().lake_uri == str(tmp_path / "ada" / "state" / "lake")


@pytest.mark.parametrize("field", ["warehouse_uri", "alerts_uri"])
@pytest.mark.parametrize("show", [repr, str, Deployment.model_dump_json, lambda d: repr(d.model_dump())])
def test_what_holds_a_secret_is_never_shown(
    show: Callable[[Deployment], str], field: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(f"TILTH_{field.upper()}", POSTGRES)
    deployment = Deployment()
    assert getattr(deployment, field).get_secret_value() == POSTGRES
    assert PASSWORD not in show(deployment)
    assert "branch" in show(deployment)


def test_without_an_address_for_alerts_there_is_none() -> None:
    assert Deployment().alerts_uri.get_secret_value() == ""


@pytest.mark.parametrize("branch", ["review-17", "Main", "../main", "main\n", " "])
def test_a_branch_which_would_overwrite_the_warehouse_of_main_is_refused_with_what_to_do(
    branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TILTH_WAREHOUSE_URI", POSTGRES)
    monkeypatch.setenv("TILTH_BRANCH", branch)
    with pytest.raises(ValidationError, match="Leave TILTH_BRANCH out, and give a trial a TILTH_HOME") as refused:
        Deployment()
    assert [error["loc"] for error in refused.value.errors()] == [("branch",)]
    assert PASSWORD not in str(refused.value)


def test_a_variable_of_another_tool_that_starts_alike_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    usual = Deployment()
    monkeypatch.setenv("TILTH_DBT_TARGET", "duckdb")
    monkeypatch.setenv("TILTH_NO_SUCH_SETTING", "1")
    assert Deployment() == usual


def test_settings_do_not_change_once_read() -> None:
    deployment = Deployment()
    with pytest.raises(ValidationError, match="frozen"):
        deployment.branch = "other"
    assert deployment.branch == "main"
