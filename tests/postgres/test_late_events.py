"""Events of a run that PostgreSQL shows in another order than it numbered them."""

from pathlib import Path

import dagster as dg
import pytest
from sqlalchemy import create_engine, text

from tests.postgres.server import dagster_address
from tilth._dagster.delegating_executor import DelegatingExecutor
from tilth.execution.steps import _Steps
from tilth.settings import Deployment

OFFSET = "DAGSTER_EXECUTOR_POP_EVENTS_OFFSET"
# As another process stores one: it has its number before it is committed.
STORE = text(
    "INSERT INTO event_logs (run_id, event, dagster_event_type, timestamp, step_key) "
    "SELECT run_id, event, dagster_event_type, timestamp, step_key FROM event_logs "
    "WHERE run_id = :run AND dagster_event_type = 'STEP_SUCCESS' LIMIT 1"
)


@dg.asset
def ends() -> None: ...


def heard(postgres_uri: str, folder: Path) -> list[int]:
    """How many events a run's executor is told of: at first, when a later one is committed, and then an earlier one."""
    address = dagster_address(postgres_uri)
    (folder / "dagster.yaml").write_text(f"storage: {{postgres: {{postgres_url: '{address}'}}}}")
    engine, seen = create_engine(address), set[int]()
    with dg.DagsterInstance.from_config(str(folder)) as instance:
        run = dg.materialize([ends], instance=instance).run_id
        executor = DelegatingExecutor("kubernetes", _Steps(Deployment()), poll_seconds=1.0, health_seconds=1)
        counts = [len(executor._pop_events(instance, run, seen))]
        with engine.connect() as earlier:
            earlier.execute(STORE, {"run": run})
            with engine.begin() as later:
                later.execute(STORE, {"run": run})
            counts.append(len(executor._pop_events(instance, run, seen)))
            earlier.commit()
        return [*counts, len(executor._pop_events(instance, run, seen))]


def test_a_run_hears_of_an_event_that_is_committed_after_a_later_one(
    postgres_uri: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(OFFSET, "0")
    assert heard(postgres_uri, tmp_path)[1:] == [1, 0], (
        "Dagster hears of it by itself: DelegatingExecutor need not read again."
    )
    monkeypatch.delenv(OFFSET)
    assert heard(postgres_uri, tmp_path)[1:] == [1, 1]
