"""What a run's pod runs, and a step's, as processes here. Pods are in tests/kubernetes."""

import os
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.origin import JobPythonOrigin
from dagster._grpc.types import ExecuteRunArgs, ExecuteStepArgs

LOCATION = "tests.tilth._dagster.imported_location"
NOT_COLLECTING = "False \n"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    monkeypatch.setenv("IMPORTED_LOCATION", str(tmp_path / "imports here"))
    tmp_path.joinpath("dagster.yaml").write_text("telemetry: {enabled: false}\n")
    with dg.DagsterInstance.get() as instance:
        yield instance


@pytest.fixture
def origin() -> JobPythonOrigin:
    return ReconstructableRepository.for_module(LOCATION, "defs").get_reconstructable_job("job").get_python_origin()


@pytest.fixture
def run(instance: dg.DagsterInstance, origin: JobPythonOrigin) -> dg.DagsterRun:
    from tests.tilth._dagster.imported_location import defs

    return instance.create_run_for_job(defs.resolve_job_def("job"), job_code_origin=origin)


def imports(process: str, command: Sequence[str], folder: Path, **environment: str) -> str:
    """What each import of the location said, by the process of a pod."""
    said = folder / "imports"
    subprocess.run(
        [sys.executable, "-c", f"from tilth._dagster.{process} import main; main()", *command],
        env=os.environ | environment | {"IMPORTED_LOCATION": str(said)}, cwd=folder, check=False, timeout=120,
    )  # fmt: skip
    return said.read_text()


def collecting(instance: dg.DagsterInstance, run: dg.DagsterRun) -> Sequence[object]:
    """Whether it was while the run's asset was made."""
    events = instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
    return [event.asset_materialization.metadata["collecting"].value for event in events if event.asset_materialization]


def test_no_garbage_is_looked_for_until_the_code_is_there(
    instance: dg.DagsterInstance, run: dg.DagsterRun, origin: JobPythonOrigin, tmp_path: Path
) -> None:
    command = ExecuteRunArgs(origin, run.run_id, None).get_command_args()
    assert imports("run_process", command, tmp_path) == NOT_COLLECTING
    assert collecting(instance, run) == [True]


def test_nor_in_a_steps_own_pod(
    instance: dg.DagsterInstance, run: dg.DagsterRun, origin: JobPythonOrigin, tmp_path: Path
) -> None:
    of_step = ExecuteStepArgs(origin, run.run_id, ["made"])
    command = [run.run_id, *of_step.get_command_args(skip_serialized_namedtuple=True)]
    variables = {variable["name"]: variable["value"] for variable in of_step.get_command_env()}
    assert imports("step_process", command, tmp_path, **variables) == NOT_COLLECTING
    assert collecting(instance, run) == [True]


def test_code_that_does_not_load_fails_its_run_with_the_reason(
    instance: dg.DagsterInstance, run: dg.DagsterRun, origin: JobPythonOrigin, tmp_path: Path
) -> None:
    imports("run_process", ExecuteRunArgs(origin, run.run_id, None).get_command_args(), tmp_path, BROKEN="yes")
    found = instance.get_run_by_id(run.run_id)
    assert found is not None
    assert found.status is dg.DagsterRunStatus.FAILURE
    assert "no such warehouse" in "".join(str(entry) for entry in instance.all_logs(run.run_id))


def test_a_file_of_variables_is_read_before_the_code(
    run: dg.DagsterRun, origin: JobPythonOrigin, tmp_path: Path
) -> None:
    tmp_path.joinpath(".env").write_text("FROM_A_FILE=read\n")
    command = ExecuteRunArgs(origin, run.run_id, None).get_command_args()
    assert imports("run_process", command, tmp_path) == "True read\n"
