"""dbt in the step's own process tells Dagster what its program tells it, and leaves the warehouse to the next one."""

import os
import shutil
import signal
import sys
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import dagster as dg
import pyarrow as pa
import pytest
from dagster_dbt import DbtCliResource, dbt_assets
from pydantic import SecretStr

from resources.dbt import Dbt, connection_environment, dbt_project, target_folder
from resources.warehouse import Warehouse
from tests.conftest import QUIET
from tests.signals_in_dbt import signal_after

PROFILES = Path(__file__).parents[2] / "resources/profiles.yml"
FILES = {
    "dbt_project.yml": """
name: shop
profile: warehouse
models: {+schema: marts}
""",
    "macros/schemas.sql": "{% macro generate_schema_name(name, node) %}{{ name or target.schema }}{% endmacro %}",
    "models/things.sql": "{{ config(materialized='table') }}\nselect n from {{ source('raw', 'things') }}\n",
    "models/more.sql": "{{ config(materialized='table') }} select n + {{ var('plus', 1) }} n from {{ ref('things') }}",
    "models/models.yml": """
sources:
  - name: raw
    tables:
      - name: things
models:
  - name: things
    description: One row per number.
    columns:
      - name: n
        data_type: integer
        data_tests: [not_null, {unique: {config: {severity: warn}}}]
  - name: more
    columns:
      - name: n
        data_tests:
          - accepted_values: {arguments: {values: [2, 3, 4], quote: false}}
""",
}


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A dbt project of two models, parsed once."""
    folder = tmp_path_factory.mktemp("dbt")
    for name, content in FILES.items():
        (folder / name).parent.mkdir(exist_ok=True)
        (folder / name).write_text(content)
    shutil.copy(PROFILES, folder)
    return folder


@pytest.fixture
def warehouse(tmp_path: Path) -> Warehouse:
    """Holds the numbers 1, 2 and 2, in a database whose name is not the one that the project was parsed with."""
    warehouse = Warehouse(SecretStr(f"duckdb:///{tmp_path / 'of its own.duckdb'}"), wait_seconds=0)
    warehouse.replace("raw.things", pa.table({"n": pa.array([1, 2, 2], pa.int64())}))
    return warehouse


def step(
    folder: Path,
    warehouse: Warehouse,
    *selected: str,
    by_program: bool = False,
    variables: Mapping[str, str] | None = None,
) -> dg.ExecuteInProcessResult:
    """A step of all the project's assets, or those selected, with dbt in its process or as a program."""
    project = dbt_project(folder, warehouse)

    @dbt_assets(manifest=project.manifest_path, project=project)
    def models(context: dg.AssetExecutionContext) -> Iterator[Any]:
        if by_program:
            yield from (
                DbtCliResource(project_dir=project, profiles_dir=str(folder)).cli(["build"], context=context).stream()
            )
        else:
            with target_folder() as target:
                yield from Dbt(project, warehouse).build(context, target, variables).stream()

    with dg.DagsterInstance.ephemeral() as instance:
        return dg.materialize(
            [models],
            instance=instance,
            selection=[*selected] or None,
            run_config=QUIET,
            raise_on_error=False,
        )


def events(result: dg.ExecuteInProcessResult) -> list[Any]:
    """Materializations, check results and observations in their order, without what differs from run to run."""

    def metadata(found: Mapping[str, Any]) -> dict[str, Any]:
        return {name: v.value for name, v in found.items() if name not in ("Execution Duration", "invocation_id")}

    told = []
    for event in result.all_events:
        if event.is_step_materialization:
            made = event.step_materialization_data.materialization
            told.append((made.asset_key, metadata(made.metadata)))
        elif event.event_type == dg.DagsterEventType.ASSET_CHECK_EVALUATION:
            check: Any = event.event_specific_data
            told.append((check.asset_check_key, check.passed, check.severity, metadata(check.metadata)))
        elif event.event_type == dg.DagsterEventType.ASSET_OBSERVATION:
            told.append(event.event_specific_data)
    return told


def error(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure)


@contextmanager
def changed(path: Path, content: str) -> Iterator[None]:
    before = path.read_text()
    path.write_text(content)
    try:
        yield
    finally:
        path.write_text(before)


def test_dagster_is_told_what_dbts_program_tells_it(
    project: Path, warehouse: Warehouse, monkeypatch: pytest.MonkeyPatch
) -> None:
    told = events(step(project, warehouse))
    for name, value in connection_environment(warehouse).items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("PATH", str(Path(sys.executable).parent), prepend=os.pathsep)

    assert told == events(step(project, warehouse, by_program=True))
    checks = {check.name: (passed, severity.value) for check, passed, severity, _ in (t for t in told if len(t) == 4)}
    assert checks == {
        "not_null_things_n": (True, "ERROR"),
        "unique_things_n": (False, "WARN"),
        "accepted_values_more_n__False__2__3__4": (True, "ERROR"),
    }


def test_of_a_selected_asset_only_its_own_tests_run(project: Path, warehouse: Warehouse) -> None:
    assert step(project, warehouse).success
    told = events(step(project, warehouse, "marts/more"))

    assert [t[0].to_user_string() for t in told if len(t) == 2] == ["marts/more"]
    assert [t[0].name for t in told if len(t) == 4] == ["accepted_values_more_n__False__2__3__4"]


def test_variables_change_from_build_to_build(project: Path, warehouse: Warehouse) -> None:
    assert step(project, warehouse).success
    assert step(project, warehouse, variables={"plus": "2"}).success
    assert sorted(warehouse.read("marts.more")["n"].to_pylist()) == [3, 4, 4]
    assert "Got 2 results, configured to fail if != 0" in error(step(project, warehouse, variables={"plus": "5"}))


def test_what_dbt_says_is_in_the_steps_output(
    project: Path, warehouse: Warehouse, capsys: pytest.CaptureFixture[str]
) -> None:
    step(project, warehouse)
    said = capsys.readouterr().out
    assert "1 of 5 START sql table model marts.things" in said
    assert "Done. PASS=4 WARN=1 ERROR=0 SKIP=0" in said


def test_the_error_of_a_model_that_is_no_sql_names_the_model_and_the_line(project: Path, warehouse: Warehouse) -> None:
    with changed(project / "models/more.sql", "select n\nfrom {{ ref('things') }}\nwhre n > 1\n"):
        failed = step(project, warehouse)

    assert "model more (models/more.sql)" in error(failed)
    assert "LINE" in error(failed)
    assert "whre n > 1" in error(failed)
    assert [t[0].to_user_string() for t in events(failed) if len(t) == 2] == []


@pytest.mark.parametrize("ends", ["well", "with an error", "interrupted"])
def test_when_dbt_has_ended_nothing_of_it_is_left(project: Path, warehouse: Warehouse, ends: str) -> None:
    before = dict(os.environ)
    if ends == "well":
        assert step(project, warehouse).success
    elif ends == "with an error":
        warehouse.replace("raw.things", pa.table({"n": pa.array([None], pa.int64())}))
        assert not step(project, warehouse).success
    else:
        with signal_after("marts.things", signal.SIGINT):
            assert "DagsterExecutionInterruptedError" in error(step(project, warehouse))

    # Two connections of one process would lose each other's commits, so the warehouse refuses a second one.
    warehouse.replace("raw.things", pa.table({"n": pa.array([1, 3], pa.int64())}))
    assert step(project, warehouse).success
    assert warehouse.read("marts.things")["n"].to_pylist() == [1, 3]
    assert dict(os.environ) == before
    assert [thread.name for thread in threading.enumerate() if "dbt" in thread.name.lower()] == []


def test_dbt_does_not_begin_within_a_transaction_of_its_own_thread(project: Path, warehouse: Warehouse) -> None:
    with warehouse.transaction() as transaction:
        assert "This thread has a transaction open" in error(step(project, warehouse))
        assert transaction.count("raw.things") == 3
    assert step(project, warehouse).success


def test_dbt_waits_for_a_transaction_of_another_thread(project: Path, warehouse: Warehouse) -> None:
    opened, done = threading.Event(), threading.Event()

    def hold() -> None:
        with warehouse.transaction() as transaction:
            transaction.replace("raw.things", pa.table({"n": pa.array([3], pa.int64())}))
            opened.set()
            done.wait(60)

    holding = threading.Thread(target=hold)
    holding.start()
    assert opened.wait(60)
    threading.Timer(1, done.set).start()
    assert step(project, Warehouse(warehouse.uri, wait_seconds=60)).success
    holding.join()
    assert warehouse.read("marts.things")["n"].to_pylist() == [3]


def test_an_address_of_postgresql_reaches_dbt_whole() -> None:
    uri = "postgresql://me:p%40ss@there:6432/sales?sslmode=verify-full&sslrootcert=/etc/ca.pem"
    assert connection_environment(Warehouse(SecretStr(uri))) == {
        "TILTH_DBT_TARGET": "postgres",
        "TILTH_DBT_HOST": "there",
        "TILTH_DBT_PORT": "6432",
        "TILTH_DBT_USER": "me",
        "TILTH_DBT_PASSWORD": "p@ss",
        "TILTH_DBT_DATABASE": "sales",
        "TILTH_DBT_SSLMODE": "verify-full",
        "TILTH_DBT_SSLROOTCERT": "/etc/ca.pem",
    }


def test_an_option_that_dbt_cannot_pass_on_is_refused_by_its_name() -> None:
    with pytest.raises(ValueError, match="channel_binding") as refused:
        connection_environment(Warehouse(SecretStr("postgresql://me:hunter2@there/db?channel_binding=require")))
    assert "hunter2" not in str(refused.value)
