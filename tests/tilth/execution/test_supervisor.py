"""Runs are forked from a process that is warm: once each, never from old code, and all of it ends together."""

import os
import random
import signal
import socket
import subprocess
import sys
import textwrap
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.definitions.reconstruct import ReconstructableRepository
from dagster._core.launcher.base import LaunchRunContext

from tests.tilth.run_processes import ROOT
from tilth._dagster.fork_protocol import ADDRESS, CANNOT, GO

MODULE = "location_of_test"
PATIENCE_SECONDS = 60.0
CODE = """
    import os, time
    import dagster as dg
    import numpy as np
    from tilth.execution.pools import pool_limits
    from tilth.execution.local import local_executor

    VALUE = {value}

    @dg.asset(pool="numbers")
    def number() -> dg.MaterializeResult:
        return dg.MaterializeResult(metadata={{"value": VALUE, "drawn": float(np.random.random())}})

    @dg.asset
    def endless() -> None:
        open(".tilth/endless.pid", "w").write(str(os.getpid()))
        time.sleep(600)

    defs = dg.Definitions(
        assets=[number, endless],
        jobs=[dg.define_asset_job("numbers", "number"), dg.define_asset_job("endlessly", "endless")],
        executor=local_executor("{module}"),
        metadata=pool_limits(numbers=3 + VALUE),
    )
"""

pytestmark = pytest.mark.skipif(not Path("/proc").exists(), reason="reads /proc")


def until(found: Callable[[], object], what: str) -> None:
    began = time.monotonic()
    while not found():
        assert time.monotonic() - began < PATIENCE_SECONDS, f"not within {PATIENCE_SECONDS:.0f} s: {what}"
        time.sleep(0.02)


def is_there(pid: int) -> bool:
    try:
        return Path("/proc", str(pid), "stat").read_text().rpartition(")")[2].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False


class Supervised:
    """A supervisor over a command that only waits, a code location that may be edited, and its runs."""

    def __init__(self, folder: Path) -> None:
        self.folder, self.home = folder, folder / ".tilth"
        self.home.mkdir()
        self.write(0)
        (folder / "workspace.yaml").write_text(f"load_from:\n  - python_module: {MODULE}\n")
        (self.home / "dagster.yaml").write_text((ROOT / "platform" / "dagster.yaml").read_text())
        self.environment = os.environ | {
            "DAGSTER_HOME": str(self.home),
            "PYTHONPATH": os.pathsep.join([str(folder), str(ROOT / "platform"), str(ROOT)]),
        }
        self.process = self.start()
        self.instance = dg.DagsterInstance.from_config(str(self.home))

    def start(self) -> "subprocess.Popen[str]":
        self.log = self.home / "log"
        command = f"import os; print('at ' + os.environ['{ADDRESS}'], flush=True); import time; time.sleep(600)"
        process = subprocess.Popen(
            [sys.executable, "-m", "tilth.execution.supervisor", sys.executable, "-c", command],
            cwd=self.folder, env=self.environment, stdout=subprocess.PIPE, stderr=self.log.open("w"), text=True,
        )  # fmt: skip
        assert process.stdout is not None
        self.address = process.stdout.readline().removeprefix("at ").strip()
        return process

    def write(self, value: object) -> None:
        """Save the location's code, as an editor does: whole, under another name first."""
        new = self.folder / ".new"
        new.write_text(textwrap.dedent(CODE).format(value=value, module=MODULE))
        new.replace(self.folder / f"{MODULE}.py")

    def template(self) -> int:
        """The process that the next run would be forked from, or that is being made."""
        children = Path(f"/proc/{self.process.pid}/task/{self.process.pid}/children").read_text().split()
        found = [pid for pid in children if "tilth.execution.run_template" in Path("/proc", pid, "cmdline").read_text()]
        return int(found[-1])

    def create(self, job: str = "numbers") -> dg.DagsterRun:
        with pytest.MonkeyPatch.context() as path:
            path.syspath_prepend(str(self.folder))
            sys.modules.pop(MODULE, None)
            from importlib import import_module

            definitions = import_module(MODULE).defs
        repository = ReconstructableRepository.for_module(MODULE, "defs", working_directory=str(self.folder))
        return self.instance.create_run_for_job(
            definitions.resolve_job_def(job),
            status=dg.DagsterRunStatus.STARTING,
            job_code_origin=repository.get_reconstructable_job(job).get_python_origin(),
        )

    def launch(self, run: dg.DagsterRun) -> bool:
        """Whether the run was forked; if not, it is Dagster's to start, which needs a workspace."""
        with pytest.MonkeyPatch.context() as environment:
            environment.setenv(ADDRESS, self.address)
            try:
                self.instance.run_launcher.launch_run(LaunchRunContext(dagster_run=run, workspace=None))
            except dg.DagsterInvariantViolationError:
                return False
        return True

    def given_up(self, run: dg.DagsterRun) -> None:
        """Nobody starts it any more, so that later runs do not wait for it."""
        assert self.status(run) is dg.DagsterRunStatus.STARTING
        self.instance.report_run_failed(run)

    def finished(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        until(lambda: self.status(run) in {dg.DagsterRunStatus.SUCCESS, dg.DagsterRunStatus.FAILURE}, "the run's end")
        return self.status(run)

    def status(self, run: dg.DagsterRun) -> dg.DagsterRunStatus:
        found = self.instance.get_run_by_id(run.run_id)
        assert found is not None
        return found.status

    def made(self, run: dg.DagsterRun) -> dict[str, object]:
        """What the run's asset said of itself."""
        assert self.finished(run) is dg.DagsterRunStatus.SUCCESS
        events = self.instance.all_logs(run.run_id, of_type=dg.DagsterEventType.ASSET_MATERIALIZATION)
        (materialization,) = [event.asset_materialization for event in events if event.asset_materialization]
        return {name: value.value for name, value in materialization.metadata.items()}

    def process_of(self, run: dg.DagsterRun) -> int:
        (event,) = [e for e in self.instance.all_logs(run.run_id) if "from a warm one" in e.message]
        assert event.dagster_event is not None
        return int(event.dagster_event.engine_event_data.metadata["pid"].value)

    def run_endlessly(self) -> tuple[dg.DagsterRun, int]:
        """A run that is under way, and the process of its step."""
        pid = self.home / "endless.pid"
        pid.unlink(missing_ok=True)
        run = self.create("endlessly")
        assert self.launch(run)
        until(lambda: pid.exists() and pid.read_text(), "the step's beginning")
        return run, int(pid.read_text())

    def stop(self) -> None:
        if self.process.poll() is None:
            self.process.terminate()
        self.process.wait(60)


@pytest.fixture(scope="module")
def supervised(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Supervised]:
    folder = tmp_path_factory.mktemp("supervised")
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(folder / ".tilth"))
        found = Supervised(folder)
        yield found
        found.stop()
        found.instance.dispose()


def test_a_run_is_a_fork_of_its_locations_template(supervised: Supervised) -> None:
    run = supervised.create()
    assert supervised.launch(run)
    assert supervised.made(run)["value"] == 0
    pools = supervised.instance.event_log_storage.get_pool_limits()
    assert [(pool.name, pool.limit) for pool in pools] == [("numbers", 3)]
    parent = Path(f"/proc/{supervised.template()}/cmdline").read_text().split("\0")
    assert parent[1:4] == ["-m", "tilth.execution.run_template", MODULE]


def test_two_runs_draw_different_random_numbers(supervised: Supervised) -> None:
    runs = [supervised.create() for _ in range(2)]
    for run in runs:
        assert supervised.launch(run)
    first, second = (supervised.made(run)["drawn"] for run in runs)
    assert first != second


def test_a_run_after_an_edit_has_it_whenever_the_edit_was_saved(supervised: Supervised) -> None:
    moments = random.Random(11)  # noqa: S311
    for value in (1, 2, 3):
        supervised.write(value)
        run = supervised.create()
        assert supervised.launch(run)
        # The next edit comes while a template is made, while it forks, or while it waits.
        time.sleep(moments.uniform(0, 1))
        assert supervised.made(run)["value"] == value


def test_an_edit_while_the_template_is_made_is_not_missed(supervised: Supervised) -> None:
    supervised.write(4)
    old = supervised.template()
    until(lambda: supervised.template() != old, "a new template")
    supervised.write(5)
    run = supervised.create()
    assert supervised.launch(run)
    assert supervised.made(run)["value"] == 5


def test_code_that_cannot_be_imported_is_dagsters_to_start_and_the_next_edit_is_forked_again(
    supervised: Supervised,
) -> None:
    run, after = supervised.create(), supervised.create()
    supervised.write("(")
    assert not supervised.launch(run)
    supervised.given_up(run)
    supervised.write(6)
    assert supervised.launch(after)
    assert supervised.made(after)["value"] == 6
    assert "SyntaxError" in supervised.log.read_text()


def test_a_template_that_is_killed_while_it_forks_starts_no_run_and_another_takes_its_place(
    supervised: Supervised,
) -> None:
    lost, next_one = supervised.create(), supervised.create()
    template = supervised.template()
    os.kill(template, signal.SIGSTOP)
    with socket.socket(socket.AF_UNIX) as launcher:
        launcher.connect(supervised.address)
        launcher.sendall(f"{MODULE} {lost.run_id}".encode())
        time.sleep(0.1)
        os.kill(template, signal.SIGKILL)
        assert launcher.recv(64) in (b"", CANNOT)
    until(lambda: supervised.launch(next_one), "a new template")
    supervised.given_up(lost)
    assert supervised.made(next_one)


def test_a_run_whose_launcher_dies_before_it_says_go_does_not_begin(supervised: Supervised) -> None:
    run = supervised.create()
    with socket.socket(socket.AF_UNIX) as launcher:
        launcher.connect(supervised.address)
        launcher.sendall(f"{MODULE} {run.run_id}".encode())
        pid = int(launcher.recv(64))
    until(lambda: not is_there(pid), "the end of its process")
    supervised.given_up(run)


def test_a_template_is_as_large_after_many_forks(supervised: Supervised) -> None:
    def fork() -> None:
        with socket.socket(socket.AF_UNIX) as launcher:
            launcher.connect(supervised.address)
            launcher.sendall(f"{MODULE} none".encode())
            pid = int(launcher.recv(64))
            launcher.sendall(GO[:1])  # not "go": it ends
        until(lambda: not is_there(pid), "the end of its process")

    def resident() -> int:
        status = Path(f"/proc/{supervised.template()}/status").read_text()
        return int(status.partition("VmRSS:")[2].split()[0])

    fork()
    before = resident()
    for _ in range(100):
        fork()
    assert resident() - before < 0.01 * before


def test_a_run_that_is_cancelled_ends_with_its_step(supervised: Supervised) -> None:
    run, step = supervised.run_endlessly()
    assert supervised.instance.run_launcher.terminate(run.run_id)
    until(lambda: supervised.status(run) is dg.DagsterRunStatus.CANCELED, "the cancellation's record")
    until(lambda: not is_there(step), "the end of its step")
    assert not supervised.instance.run_launcher.terminate(run.run_id)


def test_a_run_goes_on_while_its_template_is_replaced(supervised: Supervised) -> None:
    run, step = supervised.run_endlessly()
    supervised.write(7)
    after = supervised.create()
    assert supervised.launch(after)
    assert supervised.made(after)["value"] == 7
    assert is_there(step)
    assert supervised.instance.run_launcher.terminate(run.run_id)
    until(lambda: supervised.status(run) is dg.DagsterRunStatus.CANCELED, "the cancellation's record")


def test_a_second_supervisor_of_the_same_state_says_so(supervised: Supervised) -> None:
    command = [sys.executable, "-m", "tilth.execution.supervisor", "true"]
    second = subprocess.run(
        command, cwd=supervised.folder, env=supervised.environment, capture_output=True, text=True, check=False
    )
    assert second.returncode == 1
    assert f"Process {supervised.process.pid} already runs Dagster on the state in {supervised.home}" in second.stderr


# The last: it ends what the others use.
def test_told_to_stop_it_ends_the_command_the_template_and_the_runs(supervised: Supervised) -> None:
    run, step = supervised.run_endlessly()
    template, process = supervised.template(), supervised.process_of(run)
    (command,) = [
        int(pid)
        for pid in Path(f"/proc/{supervised.process.pid}/task/{supervised.process.pid}/children").read_text().split()
        if "time.sleep(600)" in Path("/proc", pid, "cmdline").read_text()
    ]
    supervised.process.terminate()
    assert supervised.process.wait(60) == 0
    assert [pid for pid in (command, template, process, step) if is_there(pid)] == []
    assert supervised.status(run) is dg.DagsterRunStatus.FAILURE
