"""dbt's command line as dagster-dbt runs it: `tilth-dbt`, which knows its own version.

dagster-dbt asks `dbt --version` once per run. dbt then imports all of itself and asks the package index for news, which
takes 2.5 s, and longer behind a wall. All else is dbt's.
"""

import sys
from importlib.metadata import version


def main() -> None:
    """Run dbt, or print its version."""
    if sys.argv[1:] == ["--version"]:
        print(version("dbt-core"))
        return
    from dbt.cli.main import cli

    cli()
