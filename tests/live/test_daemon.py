"""With a real daemon running, files that land are all it takes: nobody touches anything until predictions are there."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import dagster as dg
import pytest

from assets.flights import replay
from tests.example import DAILY_DBT, DAILY_RAW, FEATURES, REFERENCE, Platform

ROOT = Path(__file__).parents[2]
BIN = Path(sys.executable).parent
PATIENCE_SECONDS = 300  # how fast it is, is not what this proves; a busy machine takes a minute for a step


@pytest.fixture
def live(platform: Platform, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Platform]:
    """The platform with January but its last day made, on an instance that a daemon can share."""
    home = tmp_path / "dagster"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "platform/dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    with dg.DagsterInstance.from_config(str(home)) as instance:
        yield Platform(platform.deployment, instance)


@pytest.fixture
def daemon(live: Platform, tmp_path: Path) -> Iterator[subprocess.Popen[bytes]]:
    log = (tmp_path / "daemon.log").open("wb")
    process = subprocess.Popen(
        [
            sys.executable,
            "-m",
            "tilth.execution.supervisor",
            BIN / "dagster-daemon",
            "run",
            "--workspace",
            "workspace.yaml",
        ],
        cwd=ROOT,
        env=os.environ | {"TILTH_HOME": str(live.deployment.home)},
        stdout=log,
        stderr=subprocess.STDOUT,
    )
    yield process
    process.terminate()
    process.wait(120)


def wait_for(what: str, found: Callable[[], bool], daemon: subprocess.Popen[bytes]) -> None:
    """Until `found`; fails with what was waited for when the daemon died or nothing came for very long."""
    started = time.monotonic()
    while not found():
        assert daemon.poll() is None, f"the daemon ended while waiting for {what}"
        assert time.monotonic() - started < PATIENCE_SECONDS, f"{what} did not appear in {PATIENCE_SECONDS} s"
        time.sleep(1)
    print(f"{what}: after {time.monotonic() - started:.0f} s")


def failed_runs(platform: Platform) -> list[str]:
    runs = platform.instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
    return [f"{run.run_id}: {sorted(run.asset_selection or [])}" for run in runs]


def made_since(platform: Platform, key: list[str], moment: float) -> set[str | None]:
    asked = dg.AssetRecordsFilter(dg.AssetKey(key), after_timestamp=moment)
    return {record.partition_key for record in platform.instance.fetch_materializations(asked, limit=1000).records}


def test_the_last_day_of_january_and_the_first_of_february_flow_by_themselves_to_predictions(
    live: Platform, request: pytest.FixtureRequest
) -> None:
    live.land("2013-01-01", "2013-01-30")
    replay.land_reference(live.landing)
    live.make(REFERENCE)
    live.make([*DAILY_RAW, *DAILY_DBT, *FEATURES], "2013-01-01", "2013-01-30")
    before = {run.run_id for run in live.instance.get_runs()}
    before_daemon = datetime.now(UTC)
    daemon = request.getfixturevalue("daemon")

    live.land("2013-01-31", "2013-02-01")

    def made(key: list[str], partition: str) -> Callable[[], bool]:
        return lambda: live.latest(key, partition) is not None

    wait_for("features of 2013-01-31", made(["features", "departures"], "2013-01-31"), daemon)
    wait_for("the training set of January", made(["features", "training_set"], "2013-01"), daemon)
    for origin in ("EWR", "JFK", "LGA"):
        champion = made(["models", "delay_champion"], f"2013-01|{origin}")
        wait_for(f"January's champion for {origin}", champion, daemon)
    wait_for("predictions of 2013-02-01", made(["predictions", "delays"], "2013-02-01"), daemon)
    wait_for("their quality", made(["reports", "prediction_quality"], "2013-02-01"), daemon)

    assert failed_runs(live) == []
    quality = live.latest(["reports", "prediction_quality"], "2013-02-01")
    assert quality is not None
    arrived = live.rows("raw.flights", "flight_date, arr_delay").dropna()
    assert quality.metadata["rows"].value == (arrived["flight_date"].astype(str) == "2013-02-01").sum() > 800
    # The days that came went on by their names from Python to dbt and on to features, and no other day with them.
    since = before_daemon.timestamp()
    for key in (*DAILY_RAW, *DAILY_DBT):
        assert made_since(live, key, since) == {"2013-01-31", "2013-02-01"}, key
    assert made_since(live, ["features", "departures"], since) == {"2013-01-31", "2013-02-01"}
    # Each model says what set it off, back to the landed files.
    for origin in ("EWR", "JFK", "LGA"):
        champion = live.latest(["models", "delay_champion"], f"2013-01|{origin}")
        assert champion is not None
        causes: Any = champion.metadata["triggered_by"].value
        assert {"models/delay_boosted", "features/training_set", "marts/departures", "raw/flights"} <= causes.keys()
        day = causes["raw/flights"]["2013-01-31"]
        assert day["landed_file"] == live.landing.path_of("flights", "2013-01-31.csv.gz")
        assert day["version"] == live.data_version(["raw", "flights"], "2013-01-31")
        assert causes["marts/departures"]["2013-01-31"]["version"] == live.data_version(
            ["marts", "departures"], "2013-01-31"
        )
    # Every run was forked from the template.
    runs = [run.run_id for run in live.instance.get_runs() if run.run_id not in before]
    assert [run for run in runs if not any("from a warm one" in e.message for e in live.instance.all_logs(run))] == []
    # Nothing was made over and over: January's first thirty days were read once, before the daemon started.
    again = [
        run
        for run in live.instance.get_runs()
        if run.run_id not in before and dg.AssetKey(["raw", "flights"]) in (run.asset_selection or [])
    ]
    assert len(again) == 1
