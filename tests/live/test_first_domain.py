"""The README's domain under a real daemon: what has a condition is made by itself."""

import re
import subprocess
import sys
import time
from pathlib import Path

import dagster as dg
import pytest

from resources.lake import Lake
from tilth.settings import Deployment

ROOT = Path(__file__).parents[2]
PATIENCE_SECONDS = 300


def test_the_domain_in_the_readme_runs_by_itself(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", (ROOT / "README.md").read_text(), re.DOTALL)
    domain = tmp_path / "shop" / "orders"
    domain.mkdir(parents=True)
    (domain / "definitions.py").write_text(code)
    home = tmp_path / "state" / "dagster"
    home.mkdir(parents=True)
    (home / "dagster.yaml").write_text((ROOT / "platform/dagster.yaml").read_text())
    monkeypatch.setenv("DAGSTER_HOME", str(home))
    monkeypatch.setenv("TILTH_HOME", str(home.parent))
    location = ["-m", "shop.orders.definitions", "--working-directory", str(tmp_path)]
    programs, log = Path(sys.executable).parent, tmp_path / "daemon.log"
    with dg.DagsterInstance.from_config(str(home)) as instance, log.open("wb") as said:
        daemon = subprocess.Popen(
            [programs / "dagster-daemon", "run", *location], cwd=tmp_path, stdout=said, stderr=said
        )
        try:
            subprocess.run(
                [
                    *(programs / "dagster", "asset", "materialize", *location),
                    *("--select", "orders", "--partition", "2026-01-01"),
                ],
                cwd=tmp_path,
                check=True,
                capture_output=True,
            )
            began, revenue = time.monotonic(), dg.AssetKey("revenue")
            while not instance.get_materialized_partitions(revenue):
                assert time.monotonic() - began < PATIENCE_SECONDS, log.read_text()[-5000:]
                time.sleep(0.5)
        finally:
            daemon.terminate()
            daemon.wait(60)
    assert Lake(Deployment().lake_uri).read(revenue).to_pylist() == [{"day": "2026-01-01", "revenue_eur": 42.0}]
