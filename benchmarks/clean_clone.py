"""A newcomer's first minutes: `make demo`, then `make test`, in a fresh clone of what is committed.

The package cache is warm (the current environment filled it); everything else the clone makes for itself.
"""

import os
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

from benchmarks.report import Figure, load_average, report

ROOT = Path(__file__).parents[1]


def make(target: str, clone: Path) -> float:
    """Seconds that a make target takes in the clone, without anything of this environment."""
    ours = str(Path(sys.executable).parent)
    path = os.pathsep.join(part for part in os.environ["PATH"].split(os.pathsep) if part != ours)
    dropped = {"TILTH_HOME", "DAGSTER_HOME", "VIRTUAL_ENV", "MAKEFLAGS", "MFLAGS", "MAKELEVEL"}
    environment = {name: value for name, value in os.environ.items() if name not in dropped} | {"PATH": path}
    started = time.monotonic()
    subprocess.run(["make", target], cwd=clone, env=environment, check=True)
    return time.monotonic() - started


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as folder:
        subprocess.run(["git", "clone", "--quiet", str(ROOT), folder], check=True)
        load = load_average()
        demo = make("demo", Path(folder))
        # The largest of all processes so far; those of the demo are the only ones.
        peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss / (2**30 if sys.platform == "darwin" else 2**20)
        load_of_test = load_average()
        test = make("test", Path(folder))
    report(
        "clean_clone",
        [
            Figure("make demo, warm package cache", demo / 60, "min", "<= 3", load),
            Figure("make demo, peak memory of any process", peak, "GiB", "<= 2", load),
            Figure("make test", test / 60, "min", "<= 5", load_of_test),
        ],
    )
