"""A database of Dagster's own that goes away and comes back, under a run."""

import threading
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, event
from sqlalchemy.engine import Engine
from sqlalchemy.exc import OperationalError

from tests.postgres.server import dagster_address, restartable_server
from tilth._dagster import connections

AWAY_SECONDS = 15  # twice of what Dagster waits


@pytest.fixture
def patient() -> Iterator[None]:
    connections.outlast_database_outages()
    yield
    event.remove(Engine, "do_connect", connections._connect)


@pytest.mark.usefixtures("patient")
def test_a_run_outlasts_a_restart_of_its_database(tmp_path: Path) -> None:
    with restartable_server(["fsync=off"]) as server:
        back = threading.Timer(AWAY_SECONDS, server.start)

        @dg.asset
        def in_hand() -> None:
            server.stop()
            back.start()

        (tmp_path / "dagster.yaml").write_text(
            f"storage: {{postgres: {{postgres_url: '{dagster_address(server.uri)}'}}}}"
        )
        with dg.DagsterInstance.from_config(str(tmp_path)) as instance:
            made = dg.materialize([in_hand], instance=instance, raise_on_error=False)
            back.join()
            assert made.success
            kinds = [
                record.event_log_entry.dagster_event_type
                for record in instance.get_records_for_run(made.run_id).records
            ]
        assert kinds.count(dg.DagsterEventType.ASSET_MATERIALIZATION) == 1
        assert kinds[-1] == dg.DagsterEventType.RUN_SUCCESS


@pytest.mark.usefixtures("patient")
def test_a_wrong_password_is_no_outage(postgres_uri: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(connections, "WAIT_SECONDS", float("inf"))
    wrong = create_engine(dagster_address(postgres_uri).replace("only-for", "not-for"))
    with pytest.raises(OperationalError, match="password authentication failed"):
        wrong.connect()
