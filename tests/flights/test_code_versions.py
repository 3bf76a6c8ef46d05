"""Every asset has a code version."""

import hashlib
import json
from pathlib import Path

from assets.flights.dbt_models import project as dbt
from assets.flights.definitions import definitions
from tilth.settings import Deployment


def test_every_asset_has_a_code_version_and_dbts_have_dbts_own(tmp_path: Path) -> None:
    specs = definitions(Deployment(home=tmp_path)).resolve_all_asset_specs()
    assert [spec.key for spec in specs if not spec.code_version] == []

    manifest = json.loads(dbt.manifest_path.read_text())
    models = [node for node in manifest["nodes"].values() if node["resource_type"] == "model"]
    own = {(node["schema"], node["alias"]): hashlib.sha1(node["raw_code"].encode()) for node in models}  # noqa: S324
    assert len(own) > 5
    found = {tuple(spec.key.path): spec.code_version for spec in specs}
    assert {key: found[key] for key in own} == {key: version.hexdigest() for key, version in own.items()}
    others = [version for key, version in found.items() if key not in own]
    assert len(set(others)) == len(others)
