"""What of the dbt project would lose rows, or be no asset, is refused when definitions load."""

import re
import shutil
from datetime import datetime
from pathlib import Path

import dagster as dg
import pyarrow as pa
import pytest
from dagster_dbt import DbtProject
from pydantic import SecretStr

from assets.flights.dbt_models import project
from resources.dbt import Dbt, dbt_project
from resources.dbt_assets import by_day, checked, unpartitioned_dbt_assets
from resources.warehouse import Warehouse
from tests.conftest import QUIET

DAILY, REFERENCE = "models/marts/daily", "models/marts/reference"
SELECT = "select date '2013-01-01' as flight_date, 1 as n"
# By file, its settings, and the words of the refusal; None where it is right.
CASES = {
    f"{DAILY}/by_table.sql": ("materialized='table'", "materialized: table"),
    "models/plain.sql": (
        "materialized='incremental', tags=['daily'], meta={'partition_expr': 'flight_date'}",
        "no incremental_strategy",
    ),
    f"{DAILY}/appended.sql": ("incremental_strategy='append'", "incremental_strategy: append"),
    f"{DAILY}/by_key.sql": (
        "incremental_strategy='delete+insert', unique_key='flight_date'",
        "incremental_strategy: delete+insert",
    ),
    f"{DAILY}/batches.sql": (
        "incremental_strategy='microbatch', event_time='flight_date', begin='2013-01-01', batch_size='day'",
        "incremental_strategy: microbatch",
    ),
    "models/no_column.sql": ("materialized='view', tags=['daily']", "no meta: {partition_expr"),
    f"{DAILY}/refreshed.sql": ("full_refresh=true", "full_refresh: True"),
    f"{DAILY}/synced.sql": ("on_schema_change='sync_all_columns'", "on_schema_change: sync_all_columns"),
    f"{DAILY}/ignoring.sql": ("on_schema_change='ignore'", "on_schema_change: ignore"),
    f"{DAILY}/vacuumed.sql": (
        "post_hook=[{'sql': 'vacuum', 'transaction': False}]",
        "a hook with transaction: false",
    ),
    f"{DAILY}/hooked.sql": ("post_hook='analyze'", None),
    f"{DAILY}/right.sql": ("on_schema_change='fail'", None),
    f"{DAILY}/seen.sql": ("materialized='view'", None),
    f"{DAILY}/inlined.sql": ("materialized='ephemeral'", None),
    f"{REFERENCE}/kept.sql": ("materialized='incremental'", None),
    "models/elsewhere.sql": ("materialized='table'", "has neither of the tags daily and reference"),
    "models/other/nested/lost.sql": ("materialized='view'", "has neither of the tags daily and reference"),
    "models/both.sql": ("materialized='table', tags=['daily', 'reference']", "has both of the tags"),
    "models/tagged.sql": ("materialized='table', tags=['reference']", None),
    "tests/kept_failures.sql": ("tags=['daily'], store_failures=true", "store_failures: true"),
    "tests/counted_failures.sql": ("tags=['daily']", None),
}
PYTHON = ("models/marts/reference/in_python.py", "is in Python")
SEEDS = {"codes": None, "lost_codes": "has neither of the tags", "daily_codes": "a seed has no partitions"}
SNAPSHOTS = {
    "history": None,
    "lost_history": "has neither of the tags",
    "daily_history": "a snapshot has no partitions",
}
TAGS = {"lost": "", "daily": "daily"}


@pytest.fixture(scope="module")
def spoilt(tmp_path_factory: pytest.TempPathFactory) -> DbtProject:
    """The project with all of these added, parsed once."""
    folder = tmp_path_factory.mktemp("spoilt") / "dbt"
    shutil.copytree(project.project_dir, folder, ignore=shutil.ignore_patterns("target", "logs"))
    for name, (settings, _) in CASES.items():
        file = folder / name
        file.parent.mkdir(parents=True, exist_ok=True)
        contract = "" if name.startswith("tests/") else "contract={'enforced': false}, "
        file.write_text(f"{{{{ config({contract}{settings}) }}}}\n{SELECT}\n")
    (folder / PYTHON[0]).write_text(
        "def model(dbt, session):\n    dbt.config(materialized='table')\n    return dbt.ref('airports')\n"
    )
    (folder / "seeds").mkdir()
    (folder / "snapshots").mkdir()
    tag_of = {name: TAGS.get(name.partition("_")[0], "reference") for name in (*SEEDS, *SNAPSHOTS)}
    for name in SEEDS:
        (folder / f"seeds/{name}.csv").write_text("code\nA\n")
    entries = [f"  - name: {name}\n    config: {{tags: [{tag_of[name]}], schema: staging}}\n" for name in SEEDS]
    (folder / "seeds/seeds.yml").write_text("seeds:\n" + "".join(entries))
    for name in SNAPSHOTS:
        (folder / f"snapshots/{name}.sql").write_text(
            f"{{% snapshot {name} %}}\n{{{{ config(tags=[{tag_of[name]!r}], schema='marts', unique_key='faa', "
            "strategy='check', check_cols='all') }}\nselect * from {{ ref('airports') }}\n{% endsnapshot %}\n"
        )
    return dbt_project(folder, Warehouse(SecretStr(f"duckdb:///{folder}/warehouse.duckdb")))


@pytest.fixture(scope="module")
def refusal(spoilt: DbtProject) -> list[str]:
    with pytest.raises(ValueError, match="cannot be made into assets") as raised:
        checked(spoilt)
    return str(raised.value).splitlines()[1:]


@pytest.mark.parametrize(
    ("name", "words"),
    [
        *((Path(file).stem, words) for file, (_, words) in CASES.items()),
        (Path(PYTHON[0]).stem, PYTHON[1]),
        *SEEDS.items(),
        *SNAPSHOTS.items(),
    ],
)
def test_what_would_lose_rows_or_be_no_asset_is_refused_by_its_name(
    refusal: list[str], name: str, words: str | None
) -> None:
    said = [line for line in refusal if re.search(rf" {name} \(", line)]

    assert len(said) == (0 if words is None else 1)
    assert words is None or words in said[0]


def test_what_a_transaction_cannot_hold_is_refused_though_nobody_checked_the_project(spoilt: DbtProject) -> None:
    with pytest.raises(ValueError, match="a build is one transaction"):
        unpartitioned_dbt_assets(spoilt, select="codes history")


def test_seeds_and_snapshots_with_the_tag_are_assets_that_are_made(spoilt: DbtProject, tmp_path: Path) -> None:
    shutil.copytree(spoilt.project_dir, tmp_path / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    for name in (PYTHON[0], f"{DAILY}/vacuumed.sql", "tests/kept_failures.sql"):
        (tmp_path / "dbt" / name).unlink()
    warehouse = Warehouse(SecretStr(f"duckdb:///{tmp_path}/warehouse.duckdb"))
    warehouse.replace("marts.airports", pa.table({"faa": ["EWR"]}))
    kept = dbt_project(tmp_path / "dbt", warehouse)

    made = unpartitioned_dbt_assets(kept, select="codes history")
    result = dg.materialize([made], resources={"dbt": Dbt(kept, warehouse)}, run_config=QUIET)

    assert result.success
    assert made.keys == {dg.AssetKey(["staging", "codes"]), dg.AssetKey(["marts", "history"])}
    assert warehouse.read("staging.codes")["code"].to_pylist() == ["A"]
    assert warehouse.read("marts.history")["faa"].to_pylist() == ["EWR"]


def test_a_mart_whose_partition_column_is_a_time_is_refused_by_its_name(tmp_path: Path) -> None:
    warehouse = Warehouse(SecretStr(f"duckdb:///{tmp_path}/warehouse.duckdb"))
    warehouse.replace("marts.seen", pa.table({"at": [datetime(2013, 1, 1, 9)], "n": [1]}))
    with pytest.raises(
        ValueError, match=r"^marts/seen, column at: timestamp\[us\] does not tell the day.*Cast it to date"
    ):
        by_day(warehouse, dg.AssetKey(["marts", "seen"]), "at", ["2013-01-01"])
