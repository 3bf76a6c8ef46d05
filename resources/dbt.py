"""dbt on the deployment's warehouse, in the process of the step that asks for it."""

import json
import os
import shutil
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

import dagster as dg
from dagster_dbt import DagsterDbtCliRuntimeError, DbtProject

from resources.dbt_manifest import prepared
from resources.warehouse import Warehouse
from tilth._dagster.dbt_events import DbtEvent

# What profiles.yml takes of a PostgreSQL address's options.
OPTIONS = ("sslmode", "sslrootcert", "sslcert", "sslkey", "application_name", "connect_timeout")


def connection_environment(warehouse: Warehouse) -> dict[str, str]:
    """The variables that a dbt profile reads to reach this warehouse.

    Raises:
        ValueError: the dbt profile has no target for the warehouse's engine, or no key for an option of its address.
    """
    uri = warehouse.uri.get_secret_value()
    if warehouse.engine == "duckdb":
        path = uri.removeprefix("duckdb://")
        return {
            "TILTH_DBT_TARGET": "duckdb",
            "TILTH_DBT_PATH": path,
            # As DuckDB names it.
            "TILTH_DBT_DATABASE": Path(path).name.lstrip(".").split(".")[0],
        }
    if warehouse.engine != "postgresql":
        raise ValueError(
            "dbt's profile knows DuckDB and PostgreSQL only, and TILTH_WAREHOUSE_URI starts with "
            f"{warehouse.engine}://. Add a target for it to profiles.yml and its variables to resources/dbt.py, or "
            "give another address."
        )
    parts = urlsplit(uri)
    of_address = {
        "host": parts.hostname or "",
        "port": str(parts.port or ""),
        "user": unquote(parts.username or ""),
        "password": unquote(parts.password or ""),
        "dbname": unquote(parts.path.lstrip("/")),
    }
    given = dict(parse_qsl(parts.query)) | {name: value for name, value in of_address.items() if value}
    if unknown := sorted(given.keys() - {*of_address, *OPTIONS}):
        raise ValueError(
            f"TILTH_WAREHOUSE_URI has {', '.join(unknown)}, which dbt's profile has no key for: it takes "
            f"{', '.join(OPTIONS)}. Leave it out, or set it for the user or database in PostgreSQL itself."
        )
    known = {"host": "127.0.0.1", "port": "5432", "database": given.pop("dbname", ""), **given}
    return {"TILTH_DBT_TARGET": "postgres"} | {f"TILTH_DBT_{name.upper()}": value for name, value in known.items()}


def dbt_project(folder: Path, warehouse: Warehouse) -> DbtProject:
    """The dbt project in `folder` with the manifest of its files as they are now, for this warehouse's engine.

    Whoever loads the definitions first after an edit has dbt parse them, some 6 s; nobody else does.

    Raises:
        RuntimeError: dbt cannot parse them, or the folder of the manifest is not of them and cannot be written.
        ValueError: the dbt profile has no target for the warehouse.
    """
    made = prepared(folder, connection_environment(warehouse)["TILTH_DBT_TARGET"])
    return DbtProject(project_dir=folder, profiles_dir=folder, target_path=made.relative_to(folder))


@dataclass(frozen=True)
class DbtBuild:
    """What came of one `dbt build`: Dagster's events of its models and tests, in their order, and what dbt had to say.

    `error` is None where all models were built and no test failed; a test with severity `warn` fails nothing. Else
    nothing is in the warehouse of what was built, and `events` tell of tests only. `failed_tests` has those too that
    Dagster has no check for, as one over two models that names neither its `ref`; `failed_models`, what failed itself
    or was failed by a test.
    """

    events: Sequence[DbtEvent]
    error: Exception | None
    failed_tests: Sequence[str] = ()
    failed_models: Sequence[str] = ()

    def stream(self) -> Iterator[DbtEvent]:
        """The events, for a step to yield; then the error is raised, if there is one."""
        yield from self.events
        if self.error:
            raise self.error


@dataclass(frozen=True)
class Dbt:
    """A dbt project that is connected to a warehouse; its commands run in this process and have ended when they return.

    A plain object, as the warehouse is. Nobody who wants dbt as a program needs it: docs/data.md.
    """

    project: DbtProject
    warehouse: Warehouse

    def build(
        self,
        context: dg.AssetExecutionContext,
        target_path: Path,
        variables: Mapping[str, str] | None = None,
        without: Sequence[str] = (),
    ) -> DbtBuild:
        """Build and test what a step of `@dbt_assets` selects; what dbt says is in the step's output.

        That is one transaction, committed when all tests have passed: nobody else reads rows that fail them. On
        PostgreSQL the next build waits for it, and so does who reads a view or a table that it makes whole.

        On DuckDB no transaction of this thread may be open; those of others wait for it.

        Args:
            target_path: a folder for what dbt compiles and logs, as `target_folder` gives.
            variables: of the project, as `--vars` gives them.
            without: models, seeds and snapshots that are left out, with all that is made from them.

        Raises:
            DagsterExecutionInterruptedError: the step was told to end. dbt has cancelled its queries and ended.
            WarehouseBusyError: the DuckDB file is held by another; who, is in the message.
        """
        # A third of what a step of any kind imports, and for those of dbt alone.
        from resources.dbt_runner import run

        command = ["build", *(["--vars", json.dumps(variables)] if variables else [])]
        command += ["--exclude", *(f"{name}+" for name in without)] if without else []
        connection = connection_environment(self.warehouse)
        # Two builds at once on PostgreSQL could wait for each other, for each locks the views that it makes.
        with self.warehouse.turn("a dbt build"), _environment(connection):
            events, errors, failed_tests, failed_models = run(
                context, command, self.project, connection["TILTH_DBT_DATABASE"], target_path
            )
        if not errors:
            return DbtBuild(events, None)
        events = [event for event in events if not isinstance(event, dg.Output | dg.AssetMaterialization)]
        log = f"dbt failed; its debug log is {target_path / 'dbt.log'}."
        error = DagsterDbtCliRuntimeError("\n\n".join([log, "Errors parsed from dbt logs:", *errors]))
        return DbtBuild(events, error, failed_tests, failed_models)

    def preload(self) -> None:
        """What a step's first build would do for itself, done before runs are forked; nothing is connected to.

        dbt's import takes 3 s, a first build another second.
        """
        from resources.dbt_runner import preload

        connection = connection_environment(self.warehouse)
        with _environment(connection):
            preload(self.project, connection["TILTH_DBT_DATABASE"])


@contextmanager
def target_folder() -> Iterator[Path]:
    """A folder for what dbt compiles; it goes, unless the work in it fails: then somebody will want to read it."""
    folder = Path(tempfile.mkdtemp(prefix="dbt-"))
    yield folder
    shutil.rmtree(folder)


@contextmanager
def _environment(variables: Mapping[str, str]) -> Iterator[None]:
    """These variables, and no other that a profile might read, as long as the block runs."""
    before = {name: value for name, value in os.environ.items() if name.startswith("TILTH_DBT_")}
    try:
        for name in before:
            del os.environ[name]
        os.environ.update(variables)
        yield
    finally:
        for name in variables:
            os.environ.pop(name, None)
        os.environ.update(before)
