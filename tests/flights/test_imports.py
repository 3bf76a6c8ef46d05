"""Every process of the platform loads the definitions; what only training and scoring need is not loaded with them."""

import json
import subprocess
import sys

import pytest

HEAVY = {
    *("sklearn", "scipy", "skops", "matplotlib", "joblib", "duckdb", "boto3", "mlflow", "torch", "IPython", "pytest"),
    *("pandera", "polars"),
}


@pytest.fixture(scope="module")
def loaded() -> tuple[set[str], set[str]]:
    """The modules that a new process has once Dagster and dbt are imported, and those that the definitions add."""
    script = (
        "import dagster, dagster_dbt, json, sys; before = set(sys.modules);"
        "import assets.flights.definitions; print(json.dumps([[*before], [*{*sys.modules} - before]]))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    before, added = json.loads(printed.splitlines()[-1])
    return set(before), set(added)


def test_the_definitions_load_nothing_heavy_that_dagster_and_dbt_do_not_load_already(
    loaded: tuple[set[str], set[str]],
) -> None:
    modules = loaded[1]
    packages = {name.partition(".")[0] for name in modules}
    assert {"pandas", "pyarrow", "deltalake", "assets"} <= packages
    assert packages & HEAVY == set()
    assert "dbt.cli" not in modules


def test_no_process_of_the_platform_loads_pytorch_with_the_definitions(loaded: tuple[set[str], set[str]]) -> None:
    assert "torch" not in set.union(*loaded)
