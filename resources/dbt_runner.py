"""dbt in this process, by what is not public in dbt; docs/upgrading.md names it.

The process that steps are forked from imports this, for dbt takes seconds to load. It starts no threads then.
"""

import importlib
import json
import sys
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from pathlib import Path
from typing import Any

import dagster as dg
from dagster_dbt import DbtProject
from dbt.adapters.duckdb.connections import DuckDBConnectionManager
from dbt.adapters.factory import reset_adapters
from dbt.cli.main import dbtRunner
from dbt.contracts.graph.manifest import Manifest
from dbt.parser.manifest import extended_mashumuro_decoder
from dbt_common.events.event_manager_client import cleanup_event_logger
from dbt_common.events.functions import msg_to_json

from resources.dbt_manifest import DATABASE, RECORD
from resources.dbt_transaction import one_transaction
from tilth._dagster.dbt_events import DbtEvent, as_text, dbt_step, keyboard_interrupts

# dbt imports these only when it runs.
_LATER = ("task.build", "adapters.postgres", "adapters.duckdb.environments.local")
for _name in (*(f"dbt.{name}" for name in _LATER), "dbt_common.clients.agate_helper"):
    importlib.import_module(_name)


def run(
    context: dg.AssetExecutionContext, command: Sequence[str], project: DbtProject, database: str, target_path: Path
) -> tuple[list[DbtEvent], list[str], list[str], list[str]]:
    """One dbt command, such as `build`, on what the step selects of its `@dbt_assets`; when it returns, dbt has ended.

    It is one transaction, which is committed where nothing failed (resources/dbt_transaction.py).

    Args:
        project: one whose target folder `dbt_manifest.prepared` gave.
        database: the warehouse's name for itself.
        target_path: a folder for what dbt compiles and logs.

    Returns:
        Dagster's events of it, in their order; the messages of dbt's errors, none where it succeeded; the names of the
        tests of rows that failed; those of the models that failed, a test of which did, or which a test compares with
        one of these.

    Raises:
        DagsterExecutionInterruptedError: the step was told to end. dbt has cancelled its queries.
    """
    step = dbt_step(context)
    arguments = [
        *command,
        "--threads",
        "1",
        *step.arguments,
        *_options(step.project_dir or project.project_dir, project, target_path),
    ]
    messages: list[dict[str, Any]] = []

    def said(event: Any) -> None:
        if event.info.level == "debug":  # in dbt.log
            return
        message = json.loads(msg_to_json(event))
        sys.stdout.write(f"{as_text(message)}\n")
        sys.stdout.flush()
        # Once an error has ended the transaction, dbt goes on with what cannot be done any more.
        of = message["data"].get("node_info", {}).get("unique_id")
        if not of or transaction.failed_in in ("", of):
            messages.append(message)

    context.log.info(f"Running dbt in this process: dbt {' '.join(arguments)}")
    manifest = _manifest(project.manifest_path.parent, database)
    # Of an interrupt dbt knows Python's own: it cancels its queries then, and its threads end.
    with _connections_closed(), keyboard_interrupts(), one_transaction() as transaction:
        ended = dbtRunner(manifest, [said]).invoke(arguments)
        if isinstance(ended.exception, KeyboardInterrupt):
            raise ended.exception
        if ended.success:
            transaction.commit()
    failed = [] if ended.success else _failed(ended.result, transaction.failed_in)
    errors = [as_text(message) for message in messages if message["info"]["level"] == "error"]
    if not ended.success and not errors:
        errors = [str(ended.exception or "dbt failed and said nothing; look at the step's output.")]
    return (
        [event for message in messages for event in step.events(message, target_path)],
        errors,
        # Rows of other days may pass a test of rows, but no test of the SQL.
        []
        if any(node.resource_type == "unit_test" for node in failed)
        else [node.name for node in failed if node.resource_type == "test"],
        sorted(
            manifest.nodes[one].name
            for one in _held_back({one for node in failed for one in _about(node)}, manifest)
            if one in manifest.nodes
        ),
    )


def _failed(result: Any, failed_in: str) -> list[Any]:
    """The nodes of a command that failed, up to the one that ended its transaction: the rest was not run."""
    failed = []
    for one in result.results if result else ():
        if one.status in ("error", "fail"):
            failed.append(one.node)
        if one.node.unique_id == failed_in:
            break
    return failed


def _about(node: Any) -> list[str]:
    """The id of a model, seed or snapshot; of a test, those of what it is about."""
    if node.resource_type not in ("test", "unit_test"):
        return [node.unique_id]
    attached = getattr(node, "attached_node", None) or getattr(node, "tested_node_unique_id", None)
    return [attached] if attached else node.depends_on.nodes


def _held_back(failed: set[str], manifest: Manifest) -> set[str]:
    """What failed, and what only passes tests beside it: left out, it would take those tests with it."""
    nodes: list[Any] = list(manifest.nodes.values())
    tests = [node for node in nodes if node.resource_type == "test"]
    held, before = set(failed), set()
    while held != before:
        before = set(held)
        below = _below(held, nodes)
        for test in tests:
            if not below.isdisjoint(test.depends_on.nodes):
                held.update(one for one in _about(test) if one not in below and one in manifest.nodes)
    return held


def _below(made: set[str], nodes: Sequence[Any]) -> set[str]:
    """What is made of these, however indirectly."""
    below, grows = set(made), True
    while grows:
        new = {
            node.unique_id
            for node in nodes
            if node.resource_type != "test" and not below.isdisjoint(node.depends_on.nodes)
        }
        grows = not new <= below
        below |= new
    return below


def preload(project: DbtProject, database: str) -> None:
    """Do once, before runs are forked from here, what every first command does: half of its time.

    That is reading the manifest, and dbt's classes that check the project and the profile. Nothing is connected to.
    """
    with tempfile.TemporaryDirectory(prefix="dbt-") as folder, _connections_closed():
        options = _options(project.project_dir, project, Path(folder))
        dbtRunner(_manifest(project.manifest_path.parent, database)).invoke(["list", *options])


def _options(folder: Path, project: DbtProject, target_path: Path) -> list[str]:
    places = {"project-dir": folder, "profiles-dir": project.profiles_dir}
    places |= {"target-path": target_path, "log-path": target_path}
    # dbt's own lines go to no console, for `said` writes them. Its artifacts, a fifth of its time, nobody reads here.
    named = [word for name, place in places.items() for word in (f"--{name}", str(place))]
    return [*named, "--log-level", "none", "--no-write-json", "--no-send-anonymous-usage-stats"]


@contextmanager
def _connections_closed() -> Iterator[None]:
    """However the block ends, none of dbt's connections is open then: one to a DuckDB file keeps all others out."""
    try:
        yield
    finally:
        reset_adapters()
        with DuckDBConnectionManager._LOCK:
            if opened := DuckDBConnectionManager._ENV:
                opened.close()
        DuckDBConnectionManager.close_all_connections()
        cleanup_event_logger()  # it holds the standard output of the step


def _manifest(made: Path, database: str) -> Manifest:
    """The project as dbt parsed it; the names in it are those of this database."""
    return _parsed(made, (made / RECORD).read_text(), database)


@cache
def _parsed(made: Path, record: str, database: str) -> Manifest:  # noqa: ARG001 (another record, another manifest)
    parsed: Any = Manifest
    content = (made / "partial_parse.msgpack").read_bytes()
    manifest: Manifest = parsed.from_msgpack(content, decoder=extended_mashumuro_decoder)
    for node in (*manifest.nodes.values(), *manifest.sources.values()):
        if node.database == DATABASE:
            node.database = database
            if node.relation_name:
                node.relation_name = node.relation_name.replace(f'"{DATABASE}"', f'"{database}"', 1)
    manifest.build_flat_graph()
    return manifest
