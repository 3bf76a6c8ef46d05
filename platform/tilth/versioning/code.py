"""Code versions that mean something: a hash of the modules that an asset's function is made of.

Dagster's UI shows as stale what other code made. Its own default, the run's id, would make that everything, always.
"""

import ast
import hashlib
import importlib.util
import inspect
import re
import sys
import textwrap
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import suppress
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg

from tilth._dagster.asset_graph import function_of

_LENGTH = 16  # hexadecimal digits


def with_code_versions(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets with the hash of what makes them as `code_version`, where they do not name one themselves.

    dbt's assets do: theirs is the hash of their SQL.
    """
    versioned = []
    for definition in assets:
        function = function_of(definition)
        version = code_version(function) if function else None
        versioned.append(
            definition.map_asset_specs(
                lambda spec, version=version: spec.replace_attributes(code_version=spec.code_version or version)
            )
        )
    return versioned


def code_version(function: Callable[..., Any]) -> str:
    """A hash of the function's name and module, and of all modules of its project that this imports, however far away.

    Comments, docstrings and layout do not count. The project is the top-level package of the function's module; what
    comes from libraries is the lock's business. A function that another one makes differs from its siblings by what it
    was made with. In a notebook, whose module is no file, the function's own source counts, where it can be had.
    """
    made_with = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    found, left = [f"{function.__module__}.{function.__qualname__}"], [function.__module__]
    for name, value in sorted(made_with.items()):
        if inspect.isfunction(value) or inspect.isclass(value):
            found.append(f"{name}={value.__module__}.{value.__qualname__}")
            left.append(value.__module__)
        elif isinstance(value, bool | int | float | str | tuple | list | dict | None):
            found.append(f"{name}={value!r}")
    if not _module(function.__module__)[0]:
        with suppress(OSError, SyntaxError):  # typed into a prompt; with a text whose lines begin further left
            found.append(_without_docstrings(ast.parse(textwrap.dedent(inspect.getsource(function)))))
    return _hash(found, left)


def declaration_version(module: str, name: str) -> str:
    """As `code_version`, of what a module binds to a name, such as a schema; the module is not imported.

    Raises:
        LookupError: there is no such module, or nothing of that name in it.
    """
    if not re.search(rf"\bid='{re.escape(name)}', ctx=Store\(\)", _module(module)[0]):
        raise LookupError(f"{module!r} declares no {name!r}")
    return _hash([f"{module}.{name}"], [module])


def _hash(said: Sequence[str], left: list[str]) -> str:
    """Of what is said, and of the modules that are left with all that they import of the first one's project."""
    project, modules = _project(left[0]), {}
    while left:
        module = left.pop()
        if module not in modules and _project(module) == project:
            modules[module], imported = _module(module)
            left += imported
    text = "\n".join([*said, *(f"{module}={modules[module]}" for module in sorted(modules))])
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _project(module: str) -> str:
    return module.partition(".")[0]


@cache
def _module(name: str) -> tuple[str, list[str]]:
    """What a module says, and what it imports; nothing of a name that is no module in a file."""
    path, package = _file(name)
    if path is None:
        return "", []
    tree = ast.parse(path.read_text(encoding="utf-8"))
    imported = [*_imports(tree, package)]
    return _without_docstrings(tree), imported


def _file(module: str) -> tuple[Path | None, str]:
    """Where a module is written, and the package that it is in."""
    try:
        # Not by `inspect`: a module that is imported inside of a function may not have been yet.
        spec = importlib.util.find_spec(module)
    except ValueError:  # one that nobody imported: what `python file.py` runs, or a notebook
        path = Path(getattr(sys.modules[module], "__file__", None) or "")
        return (path, "") if path.is_file() else (None, "")
    return (Path(spec.origin), spec.parent or "") if spec and spec.origin else (None, "")


def _without_docstrings(tree: ast.AST) -> str:
    for node in ast.walk(tree):
        if isinstance(node, ast.Module | ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef) and (
            ast.get_docstring(node) is not None
        ):
            node.body = node.body[1:]
    return ast.dump(tree)


def _imports(tree: ast.AST, package: str) -> Iterator[str]:
    """The modules of its project that are imported anywhere in a module of this package."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            source = importlib.util.resolve_name("." * node.level + (node.module or ""), package)
            if _project(source) != _project(package):
                continue
            yield source
            # Of a module that is no package, no name is a module; to look for one would import it, and what trains.
            if (found := importlib.util.find_spec(source)) and found.submodule_search_locations is not None:
                modules = [f"{source}.{alias.name}" for alias in node.names]
                yield from (module for module in modules if importlib.util.find_spec(module))
