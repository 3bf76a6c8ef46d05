"""Code versions that mean something: a hash of what an asset's function and everything it uses say.

Dagster's UI shows as stale what other code made. Its own default, the run's id, would make that everything, always.
"""

import ast
import hashlib
import inspect
import sys
from collections.abc import Callable, Iterable, Iterator
from functools import cache
from typing import Any

import dagster as dg

_LENGTH = 16  # hexadecimal digits


def with_code_versions(assets: Iterable[dg.AssetsDefinition]) -> list[dg.AssetsDefinition]:
    """The assets with the hash of what makes them as `code_version`, where they do not name one themselves.

    dbt's assets do: theirs is the hash of their SQL.
    """
    versioned = []
    for definition in assets:
        version = code_version(definition.op.compute_fn.decorated_fn)  # pyright: ignore[reportFunctionMemberAccess]
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
    module, name = function.__module__, function.__qualname__.partition(".")[0]
    found: dict[str, str] = {}
    _collect(module, name, module.partition(".")[0], found)
    # A function that another one makes differs from its siblings by what it was made with.
    made_with = inspect.getclosurevars(function).nonlocals if function.__closure__ else {}
    found |= {
        f":{name}": repr(value) for name, value in made_with.items() if isinstance(value, bool | int | float | str)
    }
    text = "\n".join(f"{name}={found[name]}" for name in sorted(found))
    return hashlib.sha256(text.encode()).hexdigest()[:_LENGTH]


def _collect(module: str, name: str, project: str, found: dict[str, str]) -> None:
    """Add what `name` is bound to in `module`, and everything of the project that this mentions."""
    where = f"{module}.{name}"
    statement = _bindings(module).get(name)
    if statement is None or where in found:
        return
    if isinstance(statement, tuple):
        if statement[0].partition(".")[0] == project:
            _collect(*statement, project, found)
        return
    found[where] = ast.dump(statement)
    for owner, mentioned in _mentions(statement):
        binding = _bindings(module).get(owner)
        if mentioned is None:
            _collect(module, owner, project, found)
        elif isinstance(binding, tuple) and binding[0].partition(".")[0] == project:
            # An attribute of an imported module, or of something imported from one.
            inner = f"{binding[0]}.{binding[1]}" if binding[1] else binding[0]
            if inner in sys.modules:
                _collect(inner, mentioned, project, found)


def _mentions(statement: ast.AST) -> Iterator[tuple[str, str | None]]:
    """Names, and attributes of names, that occur in a statement."""
    for node in ast.walk(statement):
        if isinstance(node, ast.Name):
            yield node.id, None
        elif isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name):
            yield node.value.id, node.attr


@cache
def _bindings(module: str) -> dict[str, ast.stmt | tuple[str, str]]:
    """What each top-level name of a module is: the statement that binds it, or the module and name it is imported from
    (an empty name where it is a module itself).
    """
    bindings: dict[str, ast.stmt | tuple[str, str]] = {}
    for statement in ast.parse(inspect.getsource(sys.modules[module])).body:
        if isinstance(statement, ast.ImportFrom) and statement.module and not statement.level:
            bindings |= {alias.asname or alias.name: (statement.module, alias.name) for alias in statement.names}
        elif isinstance(statement, ast.Import):
            bindings |= {alias.asname: (alias.name, "") for alias in statement.names if alias.asname}
        elif isinstance(statement, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            bindings[statement.name] = _bare(statement)
        elif isinstance(statement, ast.Assign | ast.AnnAssign):
            targets = statement.targets if isinstance(statement, ast.Assign) else [statement.target]
            names = [node.id for target in targets for node in ast.walk(target) if isinstance(node, ast.Name)]
            bindings |= dict.fromkeys(names, statement)
    return bindings


def _bare(statement: ast.stmt) -> ast.stmt:
    """Without docstrings and decorators: when and how often it is made does not change what is made."""
    for node in ast.walk(statement):
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            if ast.get_docstring(node):
                node.body = node.body[1:] or [ast.Pass()]
            if not isinstance(node, ast.ClassDef):
                node.decorator_list = []
    return statement
