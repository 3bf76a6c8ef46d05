"""What dbt's assets are made of and what its steps run from: the parsed project, prepared once for all processes.

`python -m resources.dbt_manifest <folder of the dbt project> <target> …` prepares it, as an image's build does; so does
whoever loads the definitions first after an edit. A project is parsed for each of its targets, for dbt puts the
engine's macros and what depends on `target` into what it parses.
"""

import fcntl
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from importlib.metadata import version
from pathlib import Path

FILES = ("manifest.json", "partial_parse.msgpack")
# The database's name in what is parsed. Where the warehouse's is another, dbt_runner.py puts it in.
DATABASE = "warehouse"

RECORD = "prepared.json"
_MADE_BY_DBT = ("target", "logs", "dbt_packages")


def prepared(project: Path, target: str) -> Path:
    """The folder of the manifest of the project's files as they are now; dbt parses them first where it is of others.

    One process parses, others wait for it. Nothing is written where nothing has changed, as in an image.

    Raises:
        RuntimeError: dbt cannot parse the project, or the folder for the manifest cannot be written.
    """
    made = project / "target" / target
    if _is_made_of(made, _sources(project)):
        return made
    try:
        made.mkdir(parents=True, exist_ok=True)
        turn = (made / "lock").open("w")
    except OSError as error:
        raise RuntimeError(
            f"The dbt manifest in {made} is missing or not of the project's files, and cannot be prepared there "
            f"({error}). Prepare it where the folder can be written, in an image when it is built: "
            f"python -m resources.dbt_manifest {project} {target}"
        ) from error
    with turn:
        fcntl.flock(turn, fcntl.LOCK_EX)  # it goes with its process
        sources = _sources(project)
        if not _is_made_of(made, sources):
            _parse(project, target, made, sources)
    return made


def _sources(project: Path) -> str:
    """A hash of all that the manifest is made of. Dates would not tell: a copy may keep them, a checkout not."""
    found = hashlib.sha256(f"{project.resolve()} dbt {version('dbt-core')}".encode())
    for folder, folders, files in os.walk(project):
        folders[:] = sorted(d for d in folders if not d.startswith(".") and d not in _MADE_BY_DBT)
        for name in sorted(f for f in files if not f.startswith(".")):
            path = Path(folder, name)
            content = path.read_bytes()
            found.update(f"{path.relative_to(project)} {len(content)} ".encode() + content)
    return found.hexdigest()


def _is_made_of(made: Path, sources: str) -> bool:
    """Whether all files are there, whole, and made of these sources."""
    try:
        return json.loads((made / RECORD).read_bytes()) == _record(made, sources)
    except (OSError, ValueError):
        return False


def _record(made: Path, sources: str) -> dict[str, str]:
    return {"sources": sources} | {name: hashlib.sha256((made / name).read_bytes()).hexdigest() for name in FILES}


def _parse(project: Path, target: str, made: Path, sources: str) -> None:
    for left in made.glob("parse-*"):  # by one that was killed
        shutil.rmtree(left)
    with tempfile.TemporaryDirectory(prefix="parse-", dir=made) as name:
        new = Path(name)
        places = ("--project-dir", project, "--profiles-dir", project, "--target-path", new, "--log-path", new)
        environment = {name: value for name, value in os.environ.items() if not name.startswith("TILTH_DBT_")} | {
            "TILTH_DBT_TARGET": target,
            "TILTH_DBT_DATABASE": DATABASE,
            "TILTH_DBT_PATH": f"{DATABASE}.duckdb",
            "DBT_SEND_ANONYMOUS_USAGE_STATS": "false",
        }

        def dbt(*command: str | Path) -> None:
            done = subprocess.run(
                [
                    Path(sys.executable).with_name("dbt"),
                    *command,
                    "--quiet",
                    *places[: 4 if command[0] == "deps" else 8],
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
            )
            if done.returncode:
                raise RuntimeError(f"dbt {command[0]} of {project} failed:\n{done.stdout.strip()}")

        print(f"preparing the dbt project for {target}", file=sys.stderr, flush=True)
        if any((project / name).is_file() for name in ("packages.yml", "dependencies.yml")):
            dbt("deps")
            sources = _sources(project)
        before = made / "partial_parse.msgpack"
        dbt("parse", *(["--partial-parse-file-path", before] if before.is_file() else []))
        if not (new / before.name).is_file():  # dbt writes none where nothing has changed that it parses
            shutil.copy(before, new)
        record = _record(new, sources)
        (made / RECORD).unlink(missing_ok=True)
        for name in FILES:
            (new / name).replace(made / name)
        (new / RECORD).write_text(json.dumps(record))
        (new / RECORD).replace(made / RECORD)


if __name__ == "__main__":
    for each in sys.argv[2:]:
        prepared(Path(sys.argv[1]).absolute(), each)
