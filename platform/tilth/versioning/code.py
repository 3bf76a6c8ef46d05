"""Code versions that mean something: a hash of what an asset's function and everything it uses say.

Dagster's UI shows as stale what other code made. Its own default, the run's id, would make that everything, always.
"""

import ast
import hashlib
import importlib.util
import inspect
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from importlib.machinery import ModuleSpec, PathFinder
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
    """A hash of the function's source and of all that it mentions of its own project, however far away: functions,
    classes (a config's defaults among them) and what module-level names are bound to.

    Comments, docstrings, layout and decorators do not count. The project is the top-level package of the function's
    module; what comes from libraries is the lock's business.
    """
    module, name = _place(function)
    project = module.partition(".")[0]
    found: dict[str, str] = {}
    _collect(module, name, project, found)
    # A function that another one makes differs from its siblings by what it was made with.
    made_with = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    for name, value in made_with.items():
        if inspect.isfunction(value) or inspect.isclass(value):
            found[f":{name}"] = ".".join(_place(value))
            if _place(value)[0].partition(".")[0] == project:
                _collect(*_place(value), project, found)
        elif isinstance(value, bool | int | float | str | tuple | list | dict | None):
            found[f":{name}"] = repr(value)
    text = "\n".join(f"{name}={found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _place(made: Callable[..., Any]) -> tuple[str, str]:
    """The module of a function or class and the top-level name that it is found under there."""
    return made.__module__, made.__qualname__.partition(".")[0]


def _collect(module: str, name: str, project: str, found: dict[str, str]) -> None:
    """Add what `name` is bound to in `module`, and everything of the project that this mentions."""
    where = f"{module}.{name}"
    binding = _bindings(module).get(name)
    if binding is None or where in found:
        return
    if isinstance(binding, ast.stmt):
        found[where] = ast.dump(binding)
        inside = {k: v for node in ast.walk(binding) for k, v in _imports(node, module).items()}
        mentions = _mentions(binding)
    else:
        inside, mentions = {name: binding}, iter([[name]])
    for first, *attributes in mentions:
        source = inside.get(first) or _bindings(module).get(first)
        if not isinstance(source, tuple):
            _collect(module, first, project, found)
        elif source[0].partition(".")[0] == project:
            # Of `shop.prices.net`, the module is as much as is one.
            path = [*source, *attributes]
            while len(path) > 1 and _is_module(f"{path[0]}.{path[1]}"):
                path[:2] = [f"{path[0]}.{path[1]}"]
            if len(path) > 1:
                _collect(path[0], path[1], project, found)


def _mentions(statement: ast.AST) -> Iterator[list[str]]:
    """Names, and names with their attributes, that occur in a statement."""
    for node in ast.walk(statement):
        attributes: list[str] = []
        while isinstance(node, ast.Attribute):
            attributes.insert(0, node.attr)
            node = node.value
        if isinstance(node, ast.Name):
            yield [node.id, *attributes]


def _is_module(name: str) -> bool:
    return _spec(name) is not None


@cache
def _spec(module: str) -> ModuleSpec | None:
    """Where a module lies. `importlib.util.find_spec` would import the packages that it lies in, and a module of which
    a name is sought as if it were a package: scikit-learn, with what is trained by it.
    """
    package, _, _ = module.rpartition(".")
    if not package:
        return importlib.util.find_spec(module)
    around = _spec(package)
    if around is None or around.submodule_search_locations is None:
        return None
    return PathFinder.find_spec(module, around.submodule_search_locations)


@cache
def _bindings(module: str) -> dict[str, ast.stmt | tuple[str, ...]]:
    """What each top-level name of a module is: the statement that binds it, or the module, and the name in it, that it
    is imported from.
    """
    # Not by `inspect`: an import inside of a function may not have happened yet.
    spec = _spec(module)
    if spec is None or spec.origin is None:
        return {}
    bindings: dict[str, ast.stmt | tuple[str, ...]] = {}
    for statement in ast.parse(Path(spec.origin).read_text(encoding="utf-8")).body:
        bindings |= _imports(statement, module)
        if isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bindings[statement.name] = _bare(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
            bindings |= dict.fromkeys(names, statement)
    return bindings


def _imports(statement: ast.AST, module: str) -> dict[str, tuple[str, ...]]:
    """The names that an import binds in `module`: by each the module, and the name in it."""
    if isinstance(statement, ast.ImportFrom):
        spec = _spec(module)
        source = "." * statement.level + (statement.module or "")
        source = importlib.util.resolve_name(source, spec.parent if spec else None)
        return {alias.asname or alias.name: (source, alias.name) for alias in statement.names}
    if isinstance(statement, ast.Import):
        return {
            alias.asname or alias.name.partition(".")[0]: (
                alias.name if alias.asname else alias.name.partition(".")[0],
            )
            for alias in statement.names
        }
    return {}


def _bare(statement: ast.stmt) -> ast.stmt:
    """Without docstrings and decorators: when and how often it is made does not change what is made."""
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
            if not isinstance(node, ast.ClassDef):
                node.decorator_list = []
    return statement
