"""What assets talk to, and `code_location`, which wires it, imported when it is used: the stores take a second."""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from resources.location import code_location

__all__ = ["code_location"]


def __getattr__(name: str) -> object:
    if name != "code_location":
        raise AttributeError(f"module 'resources' has no attribute {name!r}")
    from resources.location import code_location

    return code_location
