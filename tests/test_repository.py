"""What the repository promises to whoever clones it: commands that work as they stand, locks that install anywhere."""

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections import defaultdict
from collections.abc import Mapping
from pathlib import Path

import pytest
import yaml
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from tests.shell import Shell, shell_in

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = sorted((ROOT / "requirements").glob("*.lock"))


@pytest.fixture
def shell(tmp_path: Path) -> Shell:
    return shell_in(tmp_path)


def test_platform_holds_sources_and_is_never_a_package() -> None:
    # As a package it would shadow the standard library's module `platform` for every program that has the root on its
    # path: `python -m dagster`, code servers and `python -m pytest` would not even start.
    assert not (ROOT / "platform" / "__init__.py").exists()
    found = subprocess.run(
        [sys.executable, "-c", "import platform; print(platform.python_version())"],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=True,
    )
    assert found.stdout.startswith(f"{sys.version_info.major}.{sys.version_info.minor}")


# Members of Dagster that its documentation does not promise, beside its private modules.
PRIVATE_MEMBERS = {
    *("event_log_storage", "schedule_storage", "run_storage", "daemon_cursor_storage", "run_coordinator"),
    *("asset_graph", "resolve_asset_graph", "asset_layer", "asset_graph_view", "decorated_fn"),
    *("get_step_execution_context", "step_context", "get_step_context", "_step_execution_context"),
    *(
        "_get_output_asset_events",
        "log_failure_or_retry_event_after_error",
        "_evaluation_fn",
        "candidate_subset",
        "instance_ref",
        "optimize_for_webserver",
    ),
    *("get_run_step_stats", "get_run_stats", "get_ticks", "all_instigator_state", "get_freshness_state_records"),
    *("get_execution_plan_snapshot", "get_asset_event_summary_records"),
}


def private_uses(source: str) -> list[str]:
    """What a module uses of Dagster and its libraries that is not their documented API."""
    found = []
    for node in ast.walk(ast.parse(source)):
        names = [node.attr] if isinstance(node, ast.Attribute) else []
        if isinstance(node, ast.Import | ast.ImportFrom):
            names = [node.module or ""] if isinstance(node, ast.ImportFrom) else [alias.name for alias in node.names]
            found += [name for name in names if re.match(r"dagster\._|dagster_shared|dagster_(dbt|k8s)\.", name)]
        found += [name for name in names if name in PRIVATE_MEMBERS]
    return found


def test_what_is_private_of_dagster_is_used_behind_the_fence_alone() -> None:
    files = [path for folder in ("platform/tilth", "resources", "assets") for path in (ROOT / folder).rglob("*.py")]
    uses = {f"{path.relative_to(ROOT)}": private_uses(path.read_text()) for path in files}
    outside = {path: found for path, found in uses.items() if found and not path.startswith("platform/tilth/_dagster/")}
    told = "Move it into platform/tilth/_dagster/, behind a function with types, and name it in docs/upgrading.md."
    assert outside == {}, told


def test_the_page_on_upgrading_names_every_file_behind_the_fence_and_only_what_there_is() -> None:
    text = (ROOT / "docs" / "upgrading.md").read_text()
    fence = (ROOT / "platform" / "tilth" / "_dagster").glob("*.py")
    assert [path.name for path in fence if private_uses(path.read_text()) and f"{path.name}`" not in text] == []
    named = re.findall(r"\b(?:platform|resources|assets|tests)/[\w/.-]+\w", text)
    assert len(named) > 50
    assert [path for path in named if not (ROOT / path).exists()] == []


@pytest.mark.parametrize("command", ["dagster definitions validate", "dg check defs"])
def test_the_definitions_load_where_the_environment_is_not_activated(shell: Shell, command: str) -> None:
    checked = shell.run(*command.split())
    assert checked.returncode == 0, checked.stdout[-2000:] + checked.stderr[-2000:]


def locked(lock: Path) -> list[str]:
    """The lock's requirements, each with its hashes on one line."""
    lines = lock.read_text().replace("\\\n", " ").splitlines()
    return [line for line in lines if line.strip() and not line.lstrip().startswith("#")]


def pins(lock: Path) -> Mapping[str, set[str]]:
    """The pinned versions of each package; several where platforms differ."""
    found: defaultdict[str, set[str]] = defaultdict(set)
    for line in locked(lock):
        requirement = Requirement(line.split(" --hash=")[0])
        found[canonicalize_name(requirement.name)] |= {s.version for s in requirement.specifier if s.operator == "=="}
    return found


@pytest.mark.parametrize("lock", LOCKS, ids=lambda lock: lock.name)
def test_a_lock_pins_everything_by_hash_and_names_no_address(lock: Path) -> None:
    # Without an address it installs behind any company's mirror; with hashes only what was reviewed installs.
    requirements = locked(lock)
    assert len(requirements) > 50
    assert [line for line in requirements if not re.search(r"^[\w.-]+==\S+ .*--hash=sha256:[0-9a-f]{64}", line)] == []
    assert re.findall(r"\S*(?:https?:|file:|git\+|--(?:extra-)?index-url|--find-links)\S*", lock.read_text()) == []


@pytest.mark.parametrize("name", ["runtime", "dev", "gpu"])
def test_a_lock_pins_each_direct_dependency_within_its_bounds(name: str) -> None:
    found = pins(ROOT / "requirements" / f"{name}.lock")
    extra = [] if name == "runtime" else PROJECT["project"]["optional-dependencies"][name]
    for requirement in map(Requirement, PROJECT["project"]["dependencies"] + extra):
        versions = found.get(canonicalize_name(requirement.name), set())
        assert versions, f"{requirement} is not in {name}.lock; `make lock` renews it"
        assert all(requirement.specifier.contains(version) for version in versions), f"{requirement}: {versions}"


@pytest.mark.parametrize(
    ("path", "ignored"),
    [(".tilth/warehouse.duckdb", True), (".tilth/dagster/history/runs.db", True), ("platform/tilth/x.py", False)],
)
def test_git_ignores_local_state_and_not_the_library(path: str, ignored: bool) -> None:
    asked = subprocess.run(["git", "check-ignore", "--quiet", path], cwd=ROOT)
    assert asked.returncode == (0 if ignored else 1)


def test_the_workspace_loads_the_module_that_dg_checks() -> None:
    workspace = yaml.safe_load((ROOT / "workspace.yaml").read_text())
    modules = [location["python_module"] for location in workspace["load_from"]]
    assert PROJECT["tool"]["dg"]["project"]["code_location_target_module"] in modules


def test_make_alone_lists_every_target_with_what_it_does() -> None:
    files = [ROOT / "Makefile", *ROOT.glob("assets/*/targets.mk")]
    texts = "\n".join(path.read_text() for path in files)
    targets = set(re.findall(r"^\.PHONY: (.+)$", texts, flags=re.MULTILINE))
    # Under `make test` the outer make's flags would reach the inner one.
    environment = {
        name: value for name, value in os.environ.items() if name not in ("MAKEFLAGS", "MFLAGS", "MAKELEVEL")
    }
    listed = subprocess.run(["make"], cwd=ROOT, env=environment, capture_output=True, text=True, check=True).stdout
    described = dict(re.findall(r"^ +make (\S+) +(\S.*)$", listed, flags=re.MULTILINE))
    assert len(targets) > 5
    assert set(described) == {target for names in targets for target in names.split()}
