"""The cores and processes of this machine."""

from collections import defaultdict
from contextlib import suppress
from multiprocessing import util
from pathlib import Path
from typing import Any


def descendants(pid: int) -> list[int]:
    """The processes that this one started, and those that they did. Without /proc (macOS) none are found."""
    children: dict[int, list[int]] = defaultdict(list)
    for stat in Path("/proc").glob("[0-9]*/stat"):
        with suppress(OSError):
            # The second field is a name in parentheses, which may hold anything; the parent is the fourth.
            children[int(stat.read_text().rpartition(")")[2].split()[1])].append(int(stat.parent.name))
    found, left = [], [pid]
    while left:
        below = children.get(left.pop(), [])
        found += below
        left += below
    return found


def run_finalizers() -> None:
    """What `multiprocessing` does as a program ends, for one that ends by `os._exit`."""
    run: Any = getattr(util, "_run_finalizers")  # noqa: B009 (not in its types)
    run()


def cores() -> int:
    """How many this process may use, by its affinity and its container's limit."""
    from joblib import cpu_count  # 0.2 s to import, which definitions need not pay

    return cpu_count()
