"""What a step used of its process is noted for that step: at least what it did use, and nothing of its neighbours'."""

import resource
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import dagster as dg
import pytest

from tests.conftest import QUIET
from tilth.observability import usage
from tilth.observability.usage import step_usage, watch

MB = 2**20
ALLOCATED = 200 * MB
INTERVAL = 0.1  # seconds between two looks at the process


class Recorder(dg.IOManager):
    """Attaches what each step used."""

    def __init__(self) -> None:
        watch()

    def handle_output(self, context: dg.OutputContext, obj: Any) -> None:
        del obj
        context.add_output_metadata(dict(step_usage(context)))

    def load_input(self, context: dg.InputContext) -> None: ...


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


def used(instance: dg.DagsterInstance, *steps: Callable[[], object]) -> list[dict[str, Any]]:
    """The steps run one after another in one run of this process; what each recorded."""
    made: list[dg.AssetsDefinition] = []
    for number, step in enumerate(steps):
        made.append(asset(f"step_{number}", step, after=made[-1:]))
    assert dg.materialize(made, instance=instance, resources={"io_manager": Recorder()}, run_config=QUIET).success
    found = [instance.get_latest_materialization_event(step.key) for step in made]
    return [
        {name: value.value for name, value in event.asset_materialization.metadata.items()}
        for event in found
        if event and event.asset_materialization
    ]


def asset(name: str, step: Callable[[], object], after: list[dg.AssetsDefinition]) -> dg.AssetsDefinition:
    @dg.asset(name=name, deps=after)
    def made() -> int:
        step()
        return 0

    return made


def burn(seconds: float = 0.5) -> None:
    until = time.process_time() + seconds
    while time.process_time() < until:
        pass


def allocate(size: int = ALLOCATED, held_for: float = 3 * INTERVAL) -> None:
    """Hold so many bytes, for so long that the process is looked at in the meantime."""
    block = bytearray(size)
    block[:: 2**12] = b"x" * len(block[:: 2**12])  # every page, or the system would not give any
    time.sleep(held_for)


def nothing() -> None: ...


def test_a_step_reports_the_cpu_and_the_memory_that_it_used(instance: dg.DagsterInstance) -> None:
    def busy() -> None:
        burn()
        allocate()

    small, heavy = used(instance, nothing, busy)
    # At least what it did. At most: a look at the clock before it began, Dagster's own work around it, and slack for a
    # process that is not alone on its cores, to which filling pages costs more.
    assert 0.5 <= heavy["step/cpu_seconds"] <= 0.5 + INTERVAL + 1
    assert heavy["step/cpu_seconds"] <= heavy["step/seconds"] + 1  # one thread, and the libraries' own
    assert 0.5 <= heavy["step/seconds"] <= 20
    grown = heavy["step/peak_memory_bytes"] - small["step/peak_memory_bytes"]
    # What Python had free before is used again first; what it holds elsewhere may grow at the same time.
    assert ALLOCATED - 20 * MB <= grown <= ALLOCATED + 60 * MB
    assert heavy["step/partitions"] == 1


@pytest.mark.parametrize("pause", [0.0, 3 * INTERVAL], ids=["at once", "after a pause"])
def test_the_next_step_of_the_process_does_not_inherit_it(instance: dg.DagsterInstance, pause: float) -> None:
    def busy() -> None:
        burn()
        allocate()
        time.sleep(pause)

    small, heavy, next_small = used(instance, nothing, busy, nothing)
    assert next_small["step/cpu_seconds"] < 0.4
    assert next_small["step/seconds"] < heavy["step/seconds"]
    assert next_small["step/peak_memory_bytes"] <= small["step/peak_memory_bytes"] + 60 * MB


def test_a_peak_between_two_looks_at_the_process_is_seen_and_not_inherited(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    # As a step of a few milliseconds is: no look at the process falls into it.
    monkeypatch.setattr(usage, "_INTERVAL_SECONDS", 3600)
    monkeypatch.setattr(usage, "_sampler", usage._Sampler())
    (before,) = used(instance, nothing)
    # More than this process ever held: the system's own record of that is all there is to see it by.
    ever = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)
    size = ever - before["step/peak_memory_bytes"] + ALLOCATED

    small, tall, next_small = used(instance, nothing, lambda: allocate(size, held_for=0), nothing)
    assert tall["step/peak_memory_bytes"] >= ever + ALLOCATED - 60 * MB
    assert next_small["step/peak_memory_bytes"] <= small["step/peak_memory_bytes"] + 60 * MB


def test_a_program_that_the_step_ran_counts_with_its_cpu_seconds(instance: dg.DagsterInstance) -> None:
    program = "import time\nwhile time.process_time() < 0.5: pass"
    (found,) = used(instance, lambda: subprocess.run([sys.executable, "-c", program], check=True))
    assert 0.5 <= found["step/cpu_seconds"] <= 2.5


def test_a_step_over_a_range_says_how_many_partitions_it_made(instance: dg.DagsterInstance) -> None:
    @dg.asset(
        partitions_def=dg.StaticPartitionsDefinition(["a", "b", "c"]), backfill_policy=dg.BackfillPolicy.single_run()
    )
    def things() -> int:
        return 0

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    resources = {"io_manager": Recorder()}
    assert dg.materialize([things], instance=instance, tags=tags, resources=resources, run_config=QUIET).success
    found = instance.fetch_materializations(things.key, limit=10).records
    assert [event.asset_materialization.metadata["step/partitions"].value for event in found] == [3, 3, 3]


def test_watching_again_starts_no_other_thread() -> None:
    watch()
    threads = threading.enumerate()
    for _ in range(3):
        watch()
    assert threading.enumerate() == threads


def test_a_step_whose_process_is_forked_for_it_counts_from_the_fork() -> None:
    program = """if True:
        import os
        import dagster as dg
        from tests.tilth.observability.test_usage import burn, used
        from tilth.observability.usage import watch

        watch()  # as a code location's IO managers do, before the fork
        burn(1.5)
        child = os.fork()
        if child == 0:
            with dg.DagsterInstance.ephemeral() as instance:
                (found,) = used(instance, burn)
            print(found["step/cpu_seconds"], flush=True)
            os._exit(0)
        os.waitpid(child, 0)
    """
    printed = subprocess.run([sys.executable, "-c", program], check=True, stdout=subprocess.PIPE, text=True).stdout
    assert 0.5 <= float(printed) <= 1.5
