"""What the README shows works as it stands there."""

import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg

from resources.lake import Lake
from tilth.settings import Deployment

ROOT = Path(__file__).parents[1]
README = (ROOT / "README.md").read_text()


def test_the_domain_in_the_readme_is_a_whole_code_location(tmp_path: Path) -> None:
    (code,) = re.findall(r"```python\n(.*?)```", README, re.DOTALL)
    (tmp_path / "definitions.py").write_text(code)
    state = tmp_path / "state"
    (state / "dagster").mkdir(parents=True)
    done = subprocess.run(
        [
            Path(sys.executable).with_name("dagster"),
            *("asset", "materialize", "-f", tmp_path / "definitions.py"),
            *("--select", "*", "--partition", "2026-01-01"),
        ],
        env=os.environ | {"TILTH_HOME": str(state), "DAGSTER_HOME": str(state / "dagster")},
        capture_output=True,
        text=True,
    )
    assert done.returncode == 0, done.stderr
    revenue = Lake(Deployment(home=state).lake_uri).read(dg.AssetKey("revenue"))
    assert revenue.to_pylist() == [{"day": "2026-01-01", "revenue_eur": 42.0}]


def test_every_path_and_target_in_the_readme_exists() -> None:
    links = re.findall(r"\]\(((?!http)[^)]+)\)", README)
    assert len(links) > 3
    assert [link for link in links if not (ROOT / link).exists()] == []
    targets = set(re.findall(r"make ([a-z-]+)", README)) - {"alone"}
    makefiles = [ROOT / "Makefile", *ROOT.glob("assets/*/targets.mk")]
    phony = {name for file in makefiles for name in re.findall(r"^\.PHONY: (.+)$", file.read_text(), re.MULTILINE)}
    assert targets <= phony
    settings = set(re.findall(r"`(TILTH_[A-Z0-9_]+)`", README))
    assert settings == {f"TILTH_{name.upper()}" for name in Deployment.model_fields}


def test_the_walks_through_the_architecture_lead_past_what_there_is() -> None:
    text = (ROOT / "docs" / "architecture.md").read_text()
    named = re.findall(r"`([\w/]+\.(?:py|md))(?:::(\w+))?`", text)
    assert len(named) > 20
    for path, name in named:
        source = (ROOT / path).read_text()
        assert re.search(rf"^(def|class) {name}\b|^{name}\b.*=", source, re.MULTILINE) if name else source, (path, name)
