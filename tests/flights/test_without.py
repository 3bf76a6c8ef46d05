"""Without the example the repository is whole: it is removed from a copy of what is here, and all checks pass there."""

import os
import shutil
import subprocess
import sys
from collections.abc import Mapping
from pathlib import Path

import pytest

from tests.shell import BIN, ROOT


def environment(copy: Path) -> Mapping[str, str]:
    """In which this environment's programs import the copy's code, not that of this repository."""
    paths = os.pathsep.join(map(str, [copy, copy / "platform"]))
    state = {"TILTH_HOME": str(copy / ".tilth"), "DAGSTER_HOME": str(copy / ".tilth/dagster")}
    outer = {
        name: value for name, value in os.environ.items() if not name.startswith(("COV_", "MAKE", "MFLAGS", "PYTEST"))
    }
    return outer | state | {"PYTHONPATH": paths}


def call(copy: Path, program: str | Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [program, *arguments], cwd=copy, env=environment(copy), capture_output=True, text=True, check=False
    )


def git(copy: Path, *arguments: str) -> str:
    identity = ["-c", "user.name=A", "-c", "user.email=a@example.com"]
    done = call(copy, "git", *identity, *arguments)
    assert done.returncode == 0, done.stderr
    return done.stdout


def copied(folder: Path) -> Path:
    """A repository whose one commit is the files that are here, committed yet or not."""
    copy = folder / "copy"
    listed = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard"], cwd=ROOT, capture_output=True, text=True
    )
    for path in listed.stdout.splitlines():
        if (ROOT / path).exists():
            (copy / path).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / path, copy / path)
    git(copy, "init", "--quiet")
    git(copy, "add", "--all")
    git(copy, "commit", "--quiet", "--message", "All")
    (copy / ".tilth/dagster").mkdir(parents=True)
    shutil.copy(copy / "platform/dagster.yaml", copy / ".tilth/dagster")
    return copy


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return copied(tmp_path_factory.mktemp("whole"))


@pytest.fixture(scope="module")
def without(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A copy from which the example was removed."""
    copy = copied(tmp_path_factory.mktemp("without"))
    done = call(copy, sys.executable, "-m", "assets.flights.without")
    assert done.returncode == 0, done.stdout + done.stderr
    git(copy, "add", "--all")
    return copy


def test_a_tree_with_uncommitted_changes_is_left_as_it_is(whole: Path) -> None:
    (whole / "notes.txt").write_text("of today\n")
    refused = call(whole, sys.executable, "-m", "assets.flights.without")
    assert refused.returncode == 1
    assert "commit or stash them" in refused.stderr
    assert git(whole, "status", "--porcelain") == "?? notes.txt\n"


def test_where_a_text_was_changed_it_is_named_and_nothing_is_removed(whole: Path) -> None:
    makefile = (whole / "Makefile").read_text()
    (whole / "Makefile").write_text(makefile.replace("DOMAIN := flights", "DOMAIN = flights"))
    git(whole, "add", "--all")
    git(whole, "commit", "--quiet", "--message", "Another way to say it")
    refused = call(whole, sys.executable, "-m", "assets.flights.without")
    assert "Makefile has no 'DOMAIN := flights'\nNothing was changed." in refused.stderr
    assert "assets/flights/without.toml" in refused.stderr
    assert git(whole, "status", "--porcelain") == ""


def test_nothing_names_the_example(without: Path) -> None:
    assert call(without, "git", "grep", "--cached", "-inE", "flights|test-gpu|without-example").stdout == ""


def test_every_test_of_the_library_stays(without: Path) -> None:
    gone = git(without, "diff", "--cached", "--name-only", "--diff-filter=D", "HEAD").splitlines()
    assert "tests/example.py" in gone
    library = ("tests/tilth/", "tests/resources/", "tests/helm/", "tests/test_")
    assert [path for path in gone if path.startswith(library)] == []


@pytest.mark.parametrize(
    "command",
    [
        "ruff check --quiet .",
        "ruff format --quiet --check .",
        "lint-imports --no-logo",
        "python -m pytest -q --setup-plan --import-mode=importlib tests",
        # What is in the README is what the demo makes.
        "python -m pytest -q tests/test_readme.py tests/test_repository.py tests/test_automation_page.py "
        "tests/resources/test_location.py --deselect "
        "tests/test_readme.py::test_the_domain_in_the_readme_is_a_whole_code_location",
    ],
)
def test_its_checks_pass(without: Path, command: str) -> None:
    program, *arguments = command.split()
    checked = call(without, BIN / program, *arguments)
    assert checked.returncode == 0, checked.stdout[-4000:] + checked.stderr[-2000:]


def test_its_domain_is_the_one_in_the_readme_and_its_workspace_loads_it(without: Path) -> None:
    code = (without / "assets/example/definitions.py").read_text()
    assert f"```python\n{code}```" in (without / "README.md").read_text()
    assert "assets.example.definitions" in (without / "workspace.yaml").read_text()


def test_its_demo_shows_what_it_made(without: Path) -> None:
    shown = call(without, BIN / "python", "-m", "assets.example.demo")
    assert shown.returncode == 0, shown.stderr[-2000:]
    assert "2026-01-01         42.0" in shown.stdout


def test_make_still_plans_every_target(without: Path) -> None:
    for target in ("demo", "dev", "test", "test-stores", "test-live", "test-postgres", "test-faults", "bench", "clean"):
        planned = call(without, "make", "--dry-run", target)
        assert planned.returncode == 0, planned.stderr
