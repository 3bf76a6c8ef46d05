"""What a step's process needs was imported before it was forked. Seen in the processes of a real run."""

import json
import subprocess
import sys
from pathlib import Path

import dagster as dg
import pytest

from tests.tilth.run_processes import ROOT, execute

# Of a package that the fork server has, a step may import some more: modules of a few lines about its own run.
A_FEW = 12


def steps_of(location: str, folder: Path) -> dict[str, dict[str, list[str]]]:
    """What each step of a run of the location's job found in its process."""
    found = folder / "found"
    found.mkdir()
    run = execute(location, "all_steps", folder / "home", WATCHED_STEPS_FOUND=str(found))
    assert run.status is dg.DagsterRunStatus.SUCCESS, run.printed
    assert "failed beforehand" not in run.printed, run.printed
    return {file.stem: json.loads(file.read_text()) for file in found.glob("*.json")}


def imported_late(step: dict[str, list[str]]) -> dict[str, list[str]]:
    """By package, what the step imported although the fork server should have: a new package, or much of one."""
    late: dict[str, list[str]] = {}
    for name in step["modules"]:
        late.setdefault(name.partition(".")[0], []).append(name)
    light = sys.stdlib_module_names
    return {
        package: names
        for package, names in late.items()
        if package not in light and (package not in step["packages before"] or len(names) > A_FEW)
    }


@pytest.fixture(scope="module")
def preloaded(tmp_path_factory: pytest.TempPathFactory) -> dict[str, dict[str, list[str]]]:
    return steps_of("tests.tilth._dagster.preloaded_steps", tmp_path_factory.mktemp("preloaded"))


def test_a_step_imports_nothing_heavy_after_the_fork(preloaded: dict[str, dict[str, list[str]]]) -> None:
    assert {name: imported_late(step) for name, step in preloaded.items()} == {"numbers": {}, "total": {}}, (
        "Preload it in the fork server: let tilth/_dagster/preload.py do what imports it."
    )


def test_the_asset_graph_is_resolved_before_the_fork(preloaded: dict[str, dict[str, list[str]]]) -> None:
    assert [step["definitions"] for step in preloaded.values()] == ["defs resolved"] * 2


@pytest.mark.skipif(not Path("/proc/self/cmdline").exists(), reason="reads /proc")
def test_the_fork_server_is_a_fork_of_the_run_and_has_its_definitions_without_importing_them(
    preloaded: dict[str, dict[str, list[str]]],
) -> None:
    for step in preloaded.values():
        assert step["server's program"][1:5] == ["-m", "dagster", "job", "execute"]


@pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="reads /proc")
def test_neither_threads_nor_open_databases_cross_the_fork(preloaded: dict[str, dict[str, list[str]]]) -> None:
    for step in preloaded.values():
        assert len(step["server threads"]) == 1
        assert [file for file in step["files"] if ".db" in file] == []


def test_the_same_look_at_dagsters_own_fork_server_finds_what_is_imported_in_each_step(tmp_path: Path) -> None:
    for step in steps_of("tests.tilth._dagster.stock_steps", tmp_path).values():
        assert {"alembic", "mako", "sqlalchemy", "upath"} <= set(imported_late(step))
        assert not step["definitions"]


@pytest.mark.parametrize(("in_a_run", "said"), [(False, ["preloaded"]), (True, [])])
def test_a_resource_is_preloaded_once_where_runs_are_forked_and_not_in_each_run(
    in_a_run: bool, said: list[str]
) -> None:
    call = f"preload('tests.tilth._dagster.preloaded_resource', in_a_run={in_a_run})"
    command = [sys.executable, "-c", f"from tilth._dagster.preload import preload; {call}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines() == said
