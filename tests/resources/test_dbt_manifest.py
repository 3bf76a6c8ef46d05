"""A dbt project is parsed once after an edit, by one process, and a manifest that is not whole is never used."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import orjson
import pytest

from resources.dbt_manifest import FILES, RECORD, prepared
from tests.resources.test_dbt import project as project

ROOT = Path(__file__).parents[2]


def sql(made: Path, model: str) -> str:
    """The model's text in the manifest."""
    return orjson.loads((made / "manifest.json").read_bytes())["nodes"][f"model.shop.{model}"]["raw_code"]


def test_after_an_edit_it_is_of_the_edited_files_whatever_their_dates(project: Path) -> None:
    made = prepared(project, "duckdb")
    model, dates = project / "models/things.sql", [path.stat().st_mtime_ns for path in made.iterdir()]
    assert prepared(project, "duckdb") == made
    assert [path.stat().st_mtime_ns for path in made.iterdir()] == dates

    before = model.stat()
    model.write_text(model.read_text().replace("select n", "select 7 * n as n"))
    os.utime(model, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert "7 * n" in sql(prepared(project, "duckdb"), "things")


def test_after_an_edit_of_what_dbt_does_not_parse_it_is_there_all_the_same(project: Path) -> None:
    made = prepared(project, "duckdb")
    before = {name: (made / name).stat().st_mtime_ns for name in (*FILES, RECORD)}
    (project / "profiles.yml").write_text((project / "profiles.yml").read_text() + "# a comment\n")

    assert prepared(project, "duckdb") == made
    assert (made / RECORD).stat().st_mtime_ns > before[RECORD]
    assert all((made / name).is_file() for name in FILES)


def test_two_processes_that_find_no_whole_manifest_parse_once(project: Path) -> None:
    made = prepared(project, "duckdb")
    (made / FILES[1]).write_bytes((made / FILES[1]).read_bytes()[:1000])
    (made / "parse-of-one-that-was-killed").mkdir()
    command = [sys.executable, "-m", "resources.dbt_manifest", project, "duckdb"]
    both = [subprocess.Popen(command, cwd=ROOT, stderr=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate()[1] for process in both]

    assert [process.returncode for process in both] == [0, 0]
    assert "".join(said).count("preparing the dbt project") == 1
    assert len((made / FILES[1]).read_bytes()) > 1000
    assert {path.name for path in made.iterdir()} == {*FILES, RECORD, "lock"}


def test_what_dbt_cannot_parse_is_said_and_the_manifest_stays(project: Path) -> None:
    made = prepared(project, "duckdb")
    before = (made / FILES[0]).read_bytes()
    broken = project / "models/broken.sql"
    broken.write_text("select {{ ref('no_such_model') }}")
    try:
        with pytest.raises(RuntimeError, match=r"(?s)models/broken\.sql.*no_such_model"):
            prepared(project, "duckdb")
    finally:
        broken.unlink()
    assert (made / FILES[0]).read_bytes() == before
    assert prepared(project, "duckdb") == made


def test_where_nothing_can_be_written_a_missing_manifest_is_an_error_that_says_how_to_prepare_it(
    project: Path, tmp_path: Path
) -> None:
    copy = tmp_path / "dbt"
    shutil.copytree(project, copy, ignore=shutil.ignore_patterns("target"))
    (copy / "target").write_text("in place of the folder")
    with pytest.raises(RuntimeError, match=rf"python -m resources.dbt_manifest {copy} duckdb"):
        prepared(copy, "duckdb")
