"""Files go that no kept version needs, small ones become one, and one bad table holds no other back."""

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import dagster as dg
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pytest
from pydantic import ValidationError

import resources.lake
import resources.lake_maintenance
from resources.lake import Lake
from resources.lake_errors import LakeError
from resources.lake_maintenance import Maintenance, compact, vacuum
from tests.s3 import S3

KEY, OTHER = dg.AssetKey("things"), dg.AssetKey(["features", "others"])
SMALL = 30_000


@pytest.fixture
def disk(tmp_path: Path) -> Lake:
    return Lake(str(tmp_path / "lake"))


@pytest.fixture(params=["disk", "s3"])
def lake(request: pytest.FixtureRequest, disk: Lake) -> Lake:
    """The same tests on both stores."""
    if request.param == "disk":
        return disk
    s3: S3 = request.getfixturevalue("s3")
    reached = {"aws_endpoint_url": s3.endpoint_url, "aws_region": s3.region, "aws_allow_http": "true"}
    return Lake(f"s3://{s3.bucket()}/lake", storage_options=reached)


def rows(value: int) -> pa.Table:
    return pa.table({"day": ["a", "b"], "value": [value, value]})


def overwritten(lake: Lake, key: dg.AssetKey = KEY, times: int = 4) -> None:
    """Versions 1 to `times` of two partitions, each a file."""
    for value in range(1, times + 1):
        lake.replace(key, rows(value), ["a", "b"], ["day"])


def files(lake: Lake, key: dg.AssetKey = KEY) -> list[Path]:
    return sorted(Path(lake.path(key)).rglob("*.parquet"))


def value_of(lake: Lake, version: int) -> list[int] | None:
    """The version's values; None where its files are gone."""
    try:
        return lake.read(KEY, version=version)["value"].to_pylist()
    except LakeError as error:
        return None if "damaged or gone" in str(error) else pytest.fail(str(error))


# Vacuum


@pytest.mark.parametrize("deeper", [["things", "daily"], ["things", "of", "a", "day"]])
def test_a_table_whose_key_begins_with_anothers_loses_nothing(disk: Lake, deeper: list[str]) -> None:
    inner = dg.AssetKey(deeper)
    overwritten(disk, KEY, times=1)
    overwritten(disk, inner, times=2)
    for file in Path(disk.path(KEY)).rglob("*"):
        os.utime(file, (0, 0))
    assert vacuum(disk, KEY, 1) == 0
    assert disk.read(inner).equals(rows(2))
    assert disk.read(inner, version=1).equals(rows(1))
    overwritten(disk, KEY, times=2)
    for file in Path(disk.path(KEY)).rglob("*.parquet"):
        os.utime(file, (0, 0))
    vacuum(disk, inner, 1)
    assert disk.read(KEY).equals(rows(2))


def test_a_vacuum_leaves_the_latest_and_the_kept_versions_and_takes_the_others(lake: Lake) -> None:
    overwritten(lake)
    assert vacuum(lake, KEY, 0, [1, 3]) == 2
    assert [value_of(lake, version) for version in range(1, 5)] == [[1, 1], None, [3, 3], [4, 4]]
    vacuum(lake, KEY, 0)
    assert [value_of(lake, version) for version in range(1, 5)] == [None, None, None, [4, 4]]


def test_a_vacuum_leaves_versions_of_the_last_days(disk: Lake) -> None:
    overwritten(disk)
    assert vacuum(disk, KEY, 1) == 0
    assert [value_of(disk, version) for version in range(1, 5)] == [[version] * 2 for version in range(1, 5)]


def test_a_kept_version_survives_one_vacuum_after_another_and_new_writes(disk: Lake) -> None:
    overwritten(disk)
    for _ in range(3):
        vacuum(disk, KEY, 0, [2])
        overwritten(disk, times=1)
    assert value_of(disk, 2) == [2, 2]


def test_a_vacuum_takes_the_files_that_killed_writers_left(disk: Lake) -> None:
    overwritten(disk, times=1)
    left = Path(disk.path(KEY), "day=a", "part-00000-left-by-a-killed-writer.zstd.parquet")
    left.write_bytes(b"half a file")
    assert vacuum(disk, KEY, 0, [1]) == 1
    assert not left.exists()
    assert disk.read(KEY)["value"].to_pylist() == [1, 1]


def test_a_version_to_keep_that_does_not_exist_is_an_error_and_nothing_goes(disk: Lake) -> None:
    overwritten(disk)
    before = files(disk)
    with pytest.raises(LakeError, match=r"^things has no version \[9\] to keep: it has 0 to 4\.$"):
        vacuum(disk, KEY, 0, [1, 9])
    assert files(disk) == before


# Compaction


def in_small_files(lake: Lake, monkeypatch: pytest.MonkeyPatch, key: dg.AssetKey = KEY) -> pa.Table:
    """Two partitions in many files each; their rows."""
    random = np.random.default_rng(0)
    keys = pa.array(["a", "b"]).take(pa.array(random.integers(0, 2, 30_000)))
    whole = pa.table({"day": keys, "number": random.permutation(30_000), "noise": random.random(30_000)})
    with monkeypatch.context() as small:
        small.setattr(resources.lake, "FILE_BYTES", SMALL)
        lake.replace(key, whole, ["a", "b"], ["day"])
    assert lake.files(key).num_rows > 10
    return whole


def test_a_partition_in_small_files_becomes_one_file_with_its_rows_in_their_order(
    lake: Lake, monkeypatch: pytest.MonkeyPatch
) -> None:
    whole = in_small_files(lake, monkeypatch)
    assert compact(lake, KEY) == 2
    assert sorted(lake.files(KEY)["partition"].to_pylist()) == ["a", "b"]
    for key in ("a", "b"):
        assert lake.read(KEY, [key])["number"] == whole.filter(pc.field("day") == key)["number"]
        assert lake.read(KEY, [key], version=1)["number"] == lake.read(KEY, [key])["number"]


def test_a_table_without_partitions_is_compacted_in_its_order(disk: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    whole = pa.table({"noise": np.random.default_rng(0).random(30_000)})
    with monkeypatch.context() as small:
        small.setattr(resources.lake, "FILE_BYTES", SMALL)
        disk.replace(KEY, whole)
    assert disk.files(KEY).num_rows > 3
    assert compact(disk, KEY) == 1
    assert disk.files(KEY).num_rows == 1
    assert disk.read(KEY)["noise"] == whole["noise"]


def test_what_needs_several_files_and_what_is_one_already_stays(disk: Lake, monkeypatch: pytest.MonkeyPatch) -> None:
    in_small_files(disk, monkeypatch)
    with monkeypatch.context() as small:
        small.setattr(resources.lake_maintenance, "FILE_BYTES", SMALL)
        assert compact(disk, KEY) == 0
    assert compact(disk, KEY) == 2
    assert compact(disk, KEY) == 0
    assert disk.table(KEY).version() == 3


# The job

LOCATION = """
import dagster as dg
from resources.lake import Lake
from resources.lake_maintenance import lake_maintenance

names = ["things", "never_made"]
assets = [dg.AssetSpec(dg.AssetKey.from_user_string(name)) for name in names]
also = [dg.AssetKey(["features", "others"])]
kept = {dg.AssetKey.from_user_string(name): versions for name, versions in %s.items()}
job = lake_maintenance(Lake(%r), lambda instance: kept, also)
defs = dg.Definitions(assets=assets, jobs=[job], executor=dg.in_process_executor)
"""


def maintain(lake: Lake, home: Path, kept: dict[str, list[int]]) -> subprocess.CompletedProcess[str]:
    """Run the job as Dagster does, of a code location with two assets and a table beside them."""
    (home / "location.py").write_text(LOCATION % (kept, lake.uri))
    (home / "dagster.yaml").write_text("telemetry: {enabled: false}")
    (home / "config.json").write_text(json.dumps({"ops": {"maintain": {"config": {"retention_days": 1}}}}))
    command = [
        "dagster",
        "job",
        "execute",
        "-f",
        home / "location.py",
        "-j",
        "lake_maintenance",
        "-c",
        home / "config.json",
    ]
    return subprocess.run(
        [sys.executable, "-m", *command],
        env=os.environ | {"DAGSTER_HOME": str(home)},
        capture_output=True,
        text=True,
    )


def two_days_pass(lake: Lake, key: dg.AssetKey) -> None:
    """Each file was replaced two days earlier, as the table's log has it."""
    earlier = 2 * 24 * 3600 * 1000
    for log in Path(lake.path(key), "_delta_log").glob("*.json"):
        moved = re.sub(
            r'"deletionTimestamp":(\d+)', lambda m: f'"deletionTimestamp":{int(m[1]) - earlier}', log.read_text()
        )
        log.write_text(moved)


def test_the_job_compacts_every_table_and_keeps_the_versions_that_are_named(
    disk: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    overwritten(disk)
    in_small_files(disk, monkeypatch, OTHER)
    two_days_pass(disk, KEY)

    made = maintain(disk, tmp_path, {"things": [2]})
    assert made.returncode == 0, made.stderr[-3000:]
    assert [value_of(disk, version) for version in range(1, 5)] == [None, [2, 2], None, [4, 4]]
    assert disk.files(OTHER).num_rows == 2
    assert len(files(disk, OTHER)) > 10  # what was compacted just now can still be read
    assert not disk.holds("never_made")


def test_tables_that_cannot_be_maintained_are_named_and_the_others_are_maintained(
    disk: Lake, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    in_small_files(disk, monkeypatch)
    overwritten(disk, OTHER)
    overwritten(disk, dg.AssetKey("never_made"))
    Path(disk.path(OTHER), "_delta_log", f"{2:020}.json").write_text("damaged")

    made = maintain(disk, tmp_path, {"never_made": [40]})
    assert made.returncode != 0
    assert "2 tables could not be maintained; the others were." in made.stderr
    assert f"features/others cannot be read ({disk.path(OTHER)}): " in made.stderr
    assert "restore its folder _delta_log from a backup" in made.stderr
    assert "never_made has no version [40] to keep: it has 0 to 4." in made.stderr
    assert len(files(disk, dg.AssetKey("never_made"))) == 8
    assert disk.files(KEY).num_rows == 2


def test_no_version_can_be_configured_to_go_within_a_day() -> None:
    with pytest.raises(ValidationError, match="retention_days"):
        Maintenance(retention_days=0)
    assert Maintenance().retention_days > 365  # models do not name their versions yet
