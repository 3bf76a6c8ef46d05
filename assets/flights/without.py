"""`make without-example`: the repository without the example, and a small domain, the README's, in its place.

without.toml names what goes and what is rewritten. Tests and benchmarks that need the example are found by what they
import.
"""

import ast
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[2]
PLAN = Path(__file__).with_suffix(".toml")
OURS = ("tests", "benchmarks")
DOMAIN = Path("assets/example")

DEMO = '''"""What `make demo` shows: the example's assets for a day, and the rows that came of it."""

import subprocess
import sys
from pathlib import Path

import dagster as dg

from resources.lake import Lake
from tilth.settings import Deployment

DAY = "2026-01-01"


def main() -> None:
    """Materialize all assets by Dagster's own command, and print the last one."""
    dagster = Path(sys.executable).with_name("dagster")
    command = ["asset", "materialize", "-m", "assets.example.definitions", "--select", "*", "--partition", DAY]
    subprocess.run([dagster, *command], check=True)
    revenue = Lake.of(Deployment()).read(dg.AssetKey("revenue"))
    print(f"\\nrevenue in the lake:\\n{revenue.to_pandas().to_string(index=False)}")
    print("\\n`make dev` shows it at http://127.0.0.1:3000; assets/example/definitions.py is where it is made.")


if __name__ == "__main__":
    main()
'''


def needed(source: str) -> set[str]:
    """The modules of this repository that a module imports, as it may call them, and names in its strings."""
    found: set[str] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found |= {node.module, *(f"{node.module}.{alias.name}" for alias in node.names)}
        elif isinstance(node, ast.Constant) and isinstance(node.value, str):
            found |= set(re.findall(r"assets[./]flights", node.value))
    return {name.replace("/", ".") for name in found}


def dependents(root: Path) -> list[Path]:
    """Tests and benchmarks, relative to the root, that need the example themselves or by a module that does."""
    files = [path.relative_to(root) for folder in OURS for path in sorted((root / folder).rglob("*.py"))]
    needs = {path: needed((root / path).read_text()) for path in files if path.name != "conftest.py"}
    gone = {"assets.flights"}
    while found := {
        path
        for path, names in needs.items()
        if any(f"{name}.".startswith(f"{lost}.") for name in names for lost in gone)
    }:
        gone |= {".".join(path.with_suffix("").parts) for path in found}
        needs = {path: names for path, names in needs.items() if path not in found}
    return [path for path in files if ".".join(path.with_suffix("").parts) in gone]


def rewritten(root: Path, edits: Sequence[Mapping[str, Any]]) -> dict[str, str]:
    """The new text of each file that is edited.

    Raises:
        LookupError: files no longer have what is to be replaced in them; a line for each.
    """
    texts: dict[str, str] = {}
    absent = []
    for edit in edits:
        for path in edit["paths"]:
            text, begin, end = texts.get(path) or (root / path).read_text(), edit["from"], edit.get("to", "")
            at = text.find(begin)
            until = text.find(end, at + len(begin))
            if min(at, until) < 0:
                absent.append(f"{path} has no {(begin if at < 0 else end)!r}")
                continue
            old = text[at : until + len(end)]
            texts[path] = text.replace(old, edit["new"])
    if absent:
        raise LookupError("\n".join(absent))
    return texts


def main() -> None:
    """Rewrite this repository; nothing is changed where something is not as without.toml has it."""
    changed = subprocess.run(["git", "status", "--porcelain"], cwd=ROOT, capture_output=True, text=True, check=True)
    if changed.stdout:
        sys.exit(f"There are uncommitted changes; commit or stash them, then try again:\n{changed.stdout.rstrip()}")
    plan = tomllib.loads(PLAN.read_text())
    if absent := [path for path in plan["gone"] if not (ROOT / path).exists()]:
        sys.exit(f"There is no {', '.join(absent)}. Nothing was changed; take it out of {PLAN.relative_to(ROOT)}.")
    try:
        texts = rewritten(ROOT, plan["edits"])
    except LookupError as error:
        sys.exit(
            f"{error.args[0]}\nNothing was changed. Correct these edits in {PLAN.relative_to(ROOT)}, or take them out."
        )
    (definitions,) = re.findall(r"```python\n(.*?)```", texts["README.md"], re.DOTALL)
    texts[f"{DOMAIN}/__init__.py"] = '"""A small domain to begin from."""\n'
    texts[f"{DOMAIN}/definitions.py"] = definitions
    texts[f"{DOMAIN}/demo.py"] = DEMO

    gone = [*map(Path, plan["gone"]), *dependents(ROOT)]
    gone += [Path(f"benchmarks/results/{path.stem}.json") for path in gone if path.parent == Path("benchmarks")]
    for path in gone:
        shutil.rmtree(ROOT / path) if (ROOT / path).is_dir() else (ROOT / path).unlink(missing_ok=True)
    for path, text in texts.items():
        (ROOT / path).parent.mkdir(exist_ok=True)
        (ROOT / path).write_text(text)
    page = [sys.executable, "-m", "tilth.automation.page", "assets.example.definitions"]
    printed = subprocess.run(page, cwd=ROOT, capture_output=True, text=True, check=True).stdout
    (ROOT / "docs/automation.md").write_text(printed)
    print("assets/example is in the example's place. `git status` shows what changed; `make test`, then commit.")


if __name__ == "__main__":
    main()
