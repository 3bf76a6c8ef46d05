"""Under a real daemon: dynamic partitions are made by themselves, and a sensor that fails is told of once."""

import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.scheduler.instigation import TickStatus

from tests.alerts import Webhook

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    with webhook.up():
        yield webhook


@pytest.fixture
def instance(tmp_path: Path, webhook: Webhook, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    """Of a daemon that runs, with two shops; one sensor of it fails."""
    home = tmp_path / "home"
    home.mkdir()
    (home / "dagster.yaml").write_text((ROOT / "platform/dagster.yaml").read_text())
    (tmp_path / "broken").touch()
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    environment = os.environ | {"SHOPS": str(tmp_path), "SHOPS_WEBHOOK": webhook.address.get_secret_value()}
    with dg.DagsterInstance.from_config(str(home)) as instance, (tmp_path / "daemon.log").open("wb") as log:
        instance.add_dynamic_partitions("shops", ["Łódź", "a b"])
        command = [Path(sys.executable).with_name("dagster-daemon"), "run", "-m", "tests.live.shops"]
        daemon = subprocess.Popen(command, cwd=ROOT, env=environment, stdout=log, stderr=log)
        yield instance
        daemon.terminate()
        daemon.wait(60)


def until(what: str, found: Callable[[], object], folder: Path) -> None:
    began = time.monotonic()
    while not found():
        log = (folder / "daemon.log").read_text()[-5000:]
        assert time.monotonic() - began < PATIENCE_SECONDS, f"{what} did not come\n{log}"
        time.sleep(0.2)


def failed_ticks(instance: dg.DagsterInstance) -> dict[str, int]:
    states = instance.all_instigator_state()
    ticks = {s.name: instance.get_ticks(s.instigator_origin_id, s.selector_id) for s in states}
    failed = {name: sum(tick.status == TickStatus.FAILURE for tick in of_one) for name, of_one in ticks.items()}
    return {name: count for name, count in failed.items() if count}


def test_dynamic_partitions_flow_by_themselves_and_a_sensor_that_fails_is_told_of_until_it_succeeds(
    instance: dg.DagsterInstance, webhook: Webhook, tmp_path: Path
) -> None:
    until("the first look", lambda: failed_ticks(instance).get("arrivals", 0) >= 2, tmp_path)
    for shop in ("Łódź", "a b"):
        instance.report_runless_asset_event(dg.AssetMaterialization("sales", partition=shop))
    instance.report_runless_asset_event(dg.AssetMaterialization("other"))

    def made(key: str) -> set[str | None]:
        records = instance.fetch_materializations(dg.AssetKey(key), limit=100).records
        return {record.partition_key for record in records}

    until("what is beside", lambda: made("beside"), tmp_path)
    until("each shop's", lambda: made("cleaned") == {"Łódź", "a b"}, tmp_path)
    until("what reads all shops", lambda: made("total"), tmp_path)
    both = {f"{day}|{shop}" for day in ("monday", "tuesday") for shop in ("Łódź", "a b")}
    until("what has shops as a dimension", lambda: made("visits") == both, tmp_path)
    instance.add_dynamic_partitions("shops", ["new"])
    instance.report_runless_asset_event(dg.AssetMaterialization("sales", partition="new"))
    until("the new shop's", lambda: "tuesday|new" in made("visits"), tmp_path)

    until("the alert", lambda: webhook.texts, tmp_path)
    (tmp_path / "broken").unlink()
    until("its end", lambda: len(webhook.texts) > 1, tmp_path)
    began, ended = webhook.texts
    assert began.splitlines()[:2] == ["ERROR: The sensor arrivals fails", "ConnectionError: the shop's door is shut"]
    assert ended.startswith("RECOVERED after ")
    assert failed_ticks(instance).keys() == {"arrivals"}
    assert not instance.get_runs(dg.RunsFilter(statuses=[dg.DagsterRunStatus.FAILURE]))
