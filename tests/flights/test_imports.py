"""Every process of the platform loads the definitions; what only training and scoring need is not loaded with them."""

import json
import subprocess
import sys

HEAVY = {
    *("sklearn", "scipy", "skops", "matplotlib", "joblib", "duckdb", "boto3", "mlflow", "torch", "IPython", "pytest"),
    *("pandera", "polars"),
}


def test_the_definitions_load_nothing_heavy_that_dagster_and_dbt_do_not_load_already() -> None:
    script = (
        "import dagster, dagster_dbt, json, sys; before = set(sys.modules);"
        "import assets.flights.definitions; print(json.dumps([*{*sys.modules} - before]))"
    )
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    modules = json.loads(printed.splitlines()[-1])
    loaded = {name.partition(".")[0] for name in modules}
    assert {"pandas", "pyarrow", "deltalake", "assets"} <= loaded
    assert loaded & HEAVY == set()
    assert "dbt.cli" not in modules
