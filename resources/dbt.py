"""dbt on the deployment's warehouse: which target, and the connection by environment."""

import os
import shutil
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from urllib.parse import parse_qsl, unquote, urlsplit

from dagster_dbt import DbtCliResource, DbtProject

from resources.warehouse import Warehouse


def connection_environment(warehouse: Warehouse) -> dict[str, str]:
    """The variables that a dbt profile reads to reach this warehouse.

    Raises:
        ValueError: the warehouse is of an engine that the dbt profile has no target for.
    """
    uri = warehouse.uri.get_secret_value()
    if warehouse.engine == "duckdb":
        return {"TILTH_DBT_TARGET": "duckdb", "TILTH_DUCKDB_PATH": uri.removeprefix("duckdb://")}
    if warehouse.engine != "postgresql":
        raise ValueError(
            "dbt's profile knows DuckDB and PostgreSQL only, and TILTH_WAREHOUSE_URI starts with "
            f"{warehouse.engine}://. Add a target for it to profiles.yml and its variables to resources/dbt.py, or "
            "give another address."
        )
    parts = urlsplit(uri)
    # What libpq knows as a variable, sslmode and sslrootcert above all, reaches dbt's driver as well.
    options = {f"PG{name.upper()}": value for name, value in parse_qsl(parts.query)}
    return options | {
        "TILTH_DBT_TARGET": "postgres",
        "PGHOST": parts.hostname or options.get("PGHOST", "127.0.0.1"),
        "PGPORT": str(parts.port or 5432),
        "PGUSER": unquote(parts.username or ""),
        "PGPASSWORD": unquote(parts.password or ""),
        "PGDATABASE": unquote(parts.path.lstrip("/")),
    }


def dbt_project(folder: Path) -> DbtProject:
    """The dbt project in `folder`; its manifest is prepared by `make` and in images, and by `dagster dev` itself.

    Raises:
        FileNotFoundError: nothing has prepared the manifest yet.
    """
    # dagster-dbt looks for tilth-dbt on the PATH; this interpreter's own, also where its environment is not activated.
    os.environ["PATH"] = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", os.defpath)])
    project = DbtProject(project_dir=folder, profiles_dir=folder)
    project.prepare_if_dev()
    if not project.manifest_path.is_file():
        raise FileNotFoundError(f"{project.manifest_path} is not there yet; `make setup` prepares it (dbt parse).")
    return project


@contextmanager
def target_folder() -> Iterator[Path]:
    """A folder for what dbt compiles; it goes, unless the work in it fails: then somebody will want to read it."""
    folder = Path(tempfile.mkdtemp(prefix="dbt-"))
    yield folder
    shutil.rmtree(folder)


def dbt_resource(project: DbtProject, warehouse: Warehouse) -> DbtCliResource:
    """dbt's command line, connected to `warehouse`.

    The connection goes through this process' environment because DbtCliResource hands dbt no other; a password is
    thereby neither in a file nor in the resource's config.
    """
    os.environ.update(connection_environment(warehouse))
    return DbtCliResource(project_dir=project, profiles_dir=str(project.profiles_dir), dbt_executable="tilth-dbt")
