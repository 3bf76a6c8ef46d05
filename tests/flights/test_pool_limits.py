"""The warehouse's pool takes as many steps at once as its engine does."""

import sys
from pathlib import Path

import dagster as dg
import pytest

from assets.flights.definitions import definitions, defs
from tilth.execution import pools
from tilth.settings import Deployment


def test_the_command_sets_the_limits_that_the_definitions_declare(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setattr(sys, "argv", ["tilth.execution.pools", "assets.flights.definitions"])
    pools.main()
    assert capsys.readouterr().out == "pool warehouse: 1 step at once\n"
    with dg.DagsterInstance.get() as instance:
        assert instance.event_log_storage.get_concurrency_info("warehouse").slot_count == 1


def test_a_duckdb_file_takes_one_step_at_once_and_a_server_several(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TILTH_WAREHOUSE_URI", "postgresql://reader@127.0.0.1:1/nowhere")
    on_a_server = definitions(Deployment())
    assert defs.metadata["pools"].value == {"warehouse": 1}
    assert on_a_server.metadata["pools"].value == {"warehouse": 4}
