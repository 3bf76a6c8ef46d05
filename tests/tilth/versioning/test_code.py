"""A code version changes when what makes an asset changes, wherever in the project it stands, and else it does not."""

import importlib
import linecache
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tilth.versioning import code as code_versions
from tilth.versioning.code import code_version, declaration_version

FILES = {
    "shop/__init__.py": "",
    "shop/assets.py": '''
"""What the shop makes."""
import json

import dagster as dg
import shop.far
import shop.prices as catalogue
import toolbox
from shop import limits
from shop.prices import net
from .near import step

RATE = 3
UNUSED = 1

class Settings(dg.Config):
    """What can be tried."""
    factor: int = 2

    def scaled(self, number: int) -> int:
        return number * self.factor

@dg.asset(description="A table.")
def table(config: Settings, most: int = limits.MOST) -> str:
    """One row."""
    from shop.late import rounded
    # A comment.
    prices = [net(RATE), catalogue.gross(RATE), step(1), shop.far.away(1), toolbox.half(2)]
    return json.dumps(rounded(config.scaled(sum(prices)) + most))

def unused() -> int:
    return UNUSED
''',
    "shop/prices.py": """
from shop.taxes import TAX as SHARE

def net(price: int) -> int:
    return price

def gross(price: int) -> float:
    return price * (1 + SHARE)

def never_mentioned() -> int:
    return 1
""",
    "shop/taxes.py": "TAX = 0.19\n",
    "shop/limits.py": "MOST = 100\nLEAST = 0\n",
    "shop/near.py": "def step(n): return n + 1\n",
    "shop/far.py": "def away(n): return n + 2\n",
    "shop/late.py": "def rounded(n): return round(n)\n",
    "shop/made.py": '''
import importlib

import dagster as dg
from shop.prices import gross, net

LABELS = {"a": 1}

def maker(name, price, sizes):
    """Makes an asset."""
    @dg.asset(name=name, description=f"By {price}")
    def made() -> list:
        return [name, price(1), sizes]
    return made

first = maker("first", net, [1])
same = maker("first", net, [1])
second = maker("second", net, [1])
grossly = maker("first", gross, [1])
larger = maker("first", net, [2])
elsewhere = maker("first", importlib.import_module("shop.far").away, [1])
''',
    "toolbox/__init__.py": "def half(n): return n / 2\n",
}


@pytest.fixture
def project(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """A project `shop` and a library `toolbox` that Python can import."""
    for name, text in FILES.items():
        path = tmp_path / name
        path.parent.mkdir(exist_ok=True)
        path.write_text(text)
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setattr(sys, "dont_write_bytecode", True)
    yield tmp_path
    forget()


def forget() -> None:
    """As in a new process."""
    for name in [name for name in sys.modules if name.partition(".")[0] in ("shop", "toolbox")]:
        del sys.modules[name]
    importlib.invalidate_caches()
    linecache.clearcache()
    code_versions._module.cache_clear()


def version(name: str = "shop.assets.table") -> str:
    forget()
    module, _, asset = name.rpartition(".")
    return code_version(getattr(importlib.import_module(module), asset).op.compute_fn.decorated_fn)


def edited(project: Path, file: str, before: str, after: str, name: str = "shop.assets.table") -> bool:
    """Whether an edit of a file changes the version."""
    was, path = version(name), project / file
    text = path.read_text()
    assert text.count(before) == 1
    path.write_text(text.replace(before, after))
    return version(name) != was


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("shop/assets.py", "    # A comment.\n", "    # Another comment.\n\n"),
        ("shop/assets.py", '    """One row."""\n', '    """One row per shop."""\n'),
        ("shop/assets.py", '    """One row."""\n', ""),
        ("shop/assets.py", '    """What can be tried."""\n', ""),
        ("shop/assets.py", "config.scaled(sum(prices)) + most", "(\n        config.scaled(sum(prices)) + most\n    )"),
        ("shop/made.py", "LABELS", "MARKS"),
        ("toolbox/__init__.py", "n / 2", "n / 3"),
    ],
    ids=[
        "a comment", "a docstring", "a docstring removed", "a config's docstring", "layout",
        "a module that it does not import", "a library",
    ],
)  # fmt: skip
def test_what_makes_no_difference_to_the_asset_leaves_its_version(
    project: Path, file: str, before: str, after: str
) -> None:
    assert not edited(project, file, before, after)


@pytest.mark.parametrize(
    ("file", "before", "after"),
    [
        ("shop/assets.py", "json.dumps(rounded", "str(rounded"),
        ("shop/assets.py", "RATE = 3", "RATE = 4"),
        ("shop/assets.py", "factor: int = 2", "factor: int = 3"),
        ("shop/assets.py", "number * self.factor", "number + self.factor"),
        ("shop/prices.py", "    return price\n", "    return price + 1\n"),
        ("shop/prices.py", "price * (1 + SHARE)", "price * (2 + SHARE)"),
        ("shop/taxes.py", "0.19", "0.2"),
        ("shop/limits.py", "MOST = 100", "MOST = 99"),
        ("shop/near.py", "n + 1", "n + 9"),
        ("shop/far.py", "n + 2", "n + 9"),
        ("shop/late.py", "round(n)", "int(n)"),
    ],
    ids=[
        "the function", "a constant", "a default of its config", "a method of its config", "a helper elsewhere",
        "a helper of an imported module", "a constant two modules away", "the default of an argument",
        "a helper imported relatively", "a helper by its full name", "a helper imported inside of the function",
    ],
)  # fmt: skip
def test_what_the_asset_is_made_by_changes_its_version(project: Path, file: str, before: str, after: str) -> None:
    assert edited(project, file, before, after)


def test_the_version_is_the_same_in_another_process(project: Path) -> None:
    program = "from shop.assets import table; from tilth.versioning.code import code_version as version; "
    program += "print(version(table.op.compute_fn.decorated_fn))"
    paths = os.pathsep.join([str(project), *sys.path])
    other = subprocess.run(
        [sys.executable, "-c", program],
        env=os.environ | {"PYTHONPATH": paths},
        capture_output=True,
        text=True,
        check=True,
    )
    assert other.stdout.strip() == version()


SCRIPT = """
import dagster as dg
from tilth.versioning.code import with_code_versions

@dg.asset
def counted() -> int:
    return 1

print(with_code_versions([counted])[0].code_versions_by_key[counted.key])
"""
# As a notebook runs a cell.
CELL = "import linecache, sys; text = sys.argv[1]; "
CELL += "linecache.cache['<cell>'] = len(text), None, text.splitlines(True), '<cell>'; "
CELL += "exec(compile(text, '<cell>', 'exec'))"


@pytest.mark.parametrize("run_as", ["a script", "a notebook"])
def test_what_no_module_holds_has_a_version_by_its_own_code(tmp_path: Path, run_as: str) -> None:
    def printed(text: str) -> str:
        (tmp_path / "script.py").write_text(text)
        arguments = [str(tmp_path / "script.py")] if run_as == "a script" else ["-c", CELL, text]
        ran = subprocess.run([sys.executable, *arguments], capture_output=True, text=True, check=False)
        assert ran.returncode == 0, ran.stderr
        return ran.stdout

    first = printed(SCRIPT)
    assert printed(SCRIPT.replace("    return 1", "    # One.\n    return 1")) == first
    assert printed(SCRIPT.replace("return 1", "return 2")) != first


def test_what_is_typed_into_a_prompt_has_a_version_too() -> None:
    ran = subprocess.run([sys.executable, "-c", SCRIPT], capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    assert len(ran.stdout.strip()) == 16


def test_assets_of_one_factory_differ_by_what_they_were_made_with(project: Path) -> None:
    found = {name: version(f"shop.made.{name}") for name in ("first", "same", "second", "grossly", "larger")}
    assert found["same"] == found["first"]
    assert len(set(found.values())) == 4


def test_a_function_that_a_factory_was_given_counts_with_all_that_it_uses(project: Path) -> None:
    assert edited(project, "shop/far.py", "n + 2", "n + 3", "shop.made.elsewhere")
    assert not edited(project, "shop/far.py", "n + 3", "n + 4", "shop.made.first")
    assert edited(
        project, "shop/made.py", "return [name, price(1), sizes]", "return [price(1), sizes]", "shop.made.first"
    )


def test_a_declaration_has_a_version_by_all_that_its_module_imports_and_is_not_imported(project: Path) -> None:
    def declared() -> str:
        forget()
        return declaration_version("shop.made", "larger")

    was = declared()
    assert "shop.made" not in sys.modules
    (project / "shop/prices.py").write_text(
        (project / "shop/prices.py").read_text().replace("return price\n", "return 2\n")
    )
    assert declared() != was
    for name in ("shop.made", "shop.nowhere"):
        with pytest.raises(LookupError, match=f"'{name}' declares no 'nothing'"):
            declaration_version(name, "nothing")
