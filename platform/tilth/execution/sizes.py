"""Sizes that are functions of the partition: `compute` writes into op tags, which are text, a name for each.

The process that runs the step loads the same definitions, so a function is found by its place; and where several have
one, two lambdas of a line or those that a function made, by their order.
"""

from collections.abc import Mapping
from functools import partial
from itertools import count
from typing import Any

_functions: dict[str, Any] = {}


def encoded(value: Any) -> Any:
    """The value as it is, or what stands for a function."""
    if not callable(value):
        return value
    plain = _plain(value)
    line = getattr(getattr(plain, "__code__", None), "co_firstlineno", "")
    place = f"{plain.__module__}:{getattr(plain, '__qualname__', type(plain).__qualname__)}:{line}"
    names = (f"{place}#{number}" if number else place for number in count())
    name = next(name for name in names if name not in _functions or _is_again(value, _functions[name]))
    _functions[name] = value
    return {"function of": name}


def decoded(value: Any) -> Any:
    """What was encoded.

    Raises:
        ValueError: this process did not define the function.
    """
    if not isinstance(value, Mapping) or "function of" not in value:
        return value
    if value["function of"] not in _functions:
        raise ValueError(
            f"compute(...): a size is given by the function {value['function of']}, which this process did not define. "
            "Define it whenever its module is loaded, in the same order."
        )
    return _functions[value["function of"]]


def _is_again(function: Any, known: Any) -> bool:
    """Whether it is the same function, or that of a file that was loaded once more."""
    modules = [getattr(_plain(found), "__globals__", None) for found in (function, known)]
    return function == known or modules[0] is not modules[1]


def _plain(function: Any) -> Any:
    while isinstance(function, partial):
        function = function.func
    return function
