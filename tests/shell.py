"""The programs of the environment, as from a shell in which it is not activated."""

import os
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).parents[1]
BIN = Path(sys.executable).parent


@dataclass
class Shell:
    """A shell in the repository's root that knows nothing but where the state is; the environment is not activated."""

    home: Path

    def run(self, program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
        """Run a program of the virtual environment, named by its path."""
        # No folder of PATH offers a dbt: only one that is found beside the interpreter can run.
        path = [d for d in os.environ.get("PATH", os.defpath).split(os.pathsep) if not Path(d, "dbt").exists()]
        environment = {
            "PATH": os.pathsep.join(path),
            "HOME": str(self.home),
            "TILTH_HOME": str(self.home / "state"),
            "DAGSTER_HOME": str(self.home / "dagster"),
        }
        return subprocess.run(
            [str(BIN / program), *arguments], cwd=ROOT, env=environment, capture_output=True, text=True
        )


def shell_in(home: Path) -> Shell:
    """A shell whose state lies in `home`."""
    (home / "dagster").mkdir()
    (home / "dagster" / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    return Shell(home)
