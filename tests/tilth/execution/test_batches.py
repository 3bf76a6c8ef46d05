"""Many partitions in one step: each stored and recorded once, by itself, and no failure reaches a neighbour."""

import os
import re
import signal
import time
from collections import Counter
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pyarrow as pa
import pytest

from tilth.execution import partitions as batches
from tilth.execution.partitions import for_each_partition
from tilth.execution.shared_frames import Sliced

# The process that workers are forked from imports this module: nothing heavy here at the top.

KEYS = list("abcdef")
LETTERS = dg.StaticPartitionsDefinition(KEYS)
BOTH = dg.MultiPartitionsDefinition({"airport": dg.StaticPartitionsDefinition(["EWR", "JFK"]), "letter": LETTERS})
ONE_RUN = dg.BackfillPolicy.single_run()
Made = dg.MaterializeResult[Any]


class Files(dg.IOManager):
    """A file per partition, which holds a line for each time that it was stored; `full` refuses one partition."""

    def __init__(self, folder: Path, full: str = "") -> None:
        self.folder, self.full = folder, full

    def handle_output(self, context: dg.OutputContext, obj: str) -> None:
        (key,) = context.asset_partition_keys
        assert key == context.asset_partition_key == context.partition_key
        if key == self.full:
            raise OSError("the disk is full")
        with (self.folder / f"{key}.stored").open("a") as file:
            file.write(f"{obj}\n")
        context.add_output_metadata({"stored": True})

    def load_input(self, context: dg.InputContext) -> dict[str, str]:
        return {key: (self.folder / f"{key}.stored").read_text() for key in context.asset_partition_keys}


USED = ["step/seconds", "step/cpu_seconds", "step/peak_memory_bytes", "step/partitions"]


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral(tempdir=str(tmp_path)) as instance:
        yield instance


def batch(fn: Callable[..., Any], partitions: dg.PartitionsDefinition | None = LETTERS, **call: Any) -> Any:
    @dg.asset(partitions_def=partitions, backfill_policy=ONE_RUN if partitions else None)
    def things(context: dg.AssetExecutionContext) -> Made:
        return for_each_partition(context, fn, **{"workers": 2, **call})

    return things


def run(
    instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, first: str = "a", last: str = "f", full: str = ""
) -> dg.ExecuteInProcessResult:
    from tests.conftest import QUIET

    tags = {"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last}
    store = Files(Path(instance.root_directory), full)
    return dg.materialize(
        assets, instance=instance, resources={"io_manager": store}, tags=tags, run_config=QUIET, raise_on_error=False
    )


def recorded(instance: dg.DagsterInstance) -> list[dg.AssetMaterialization]:
    """All that is recorded of the asset, oldest first."""
    records = instance.fetch_materializations(dg.AssetKey("things"), limit=100, ascending=True).records
    return [record.asset_materialization for record in records if record.asset_materialization]


def partitions(instance: dg.DagsterInstance) -> list[str]:
    return sorted(str(event.partition) for event in recorded(instance))


def stored(instance: dg.DagsterInstance) -> dict[str, str]:
    return {path.stem: path.read_text() for path in Path(instance.root_directory).glob("*.stored")}


def failure(result: dg.ExecuteInProcessResult) -> str:
    """All that the step's error says, what it was raised from included."""
    assert not result.success
    (event,) = [event for event in result.all_events if event.is_step_failure]
    return str(event.step_failure_data.error)


def log(instance: dg.DagsterInstance, result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(entry.user_message for entry in instance.all_logs(result.run_id))


def make(key: str) -> Made:
    return dg.MaterializeResult(
        value=f"of {key}",
        metadata={"letter": key, "process": os.getpid()},
        data_version=dg.DataVersion(f"version {key}"),
        tags={"said": key.replace("|", "-")},
    )


def make_unless(key: str, *, told: Path) -> Made:
    """Fail as the file of the partition says, and note each call."""
    with (told / f"{key}.calls").open("a") as file:
        file.write("called\n")
    mark = told / f"{key}.mark"
    how = mark.read_text() if mark.exists() else ""
    if how == "killed once":
        mark.unlink()
    if how.startswith("killed"):
        os.kill(os.getpid(), signal.SIGKILL)
    if how == "exits":
        os._exit(3)
    if how == "fails":
        raise ValueError(f"no {key} today")
    return make(key)


def mark(instance: dg.DagsterInstance, **how: str) -> None:
    for key, says in how.items():
        Path(instance.root_directory, f"{key}.mark").write_text(says.replace("_", " "))


def unless(instance: dg.DagsterInstance) -> Callable[..., Made]:
    return partial(make_unless, told=Path(instance.root_directory))


def calls(instance: dg.DagsterInstance) -> dict[str, int]:
    return {path.stem: len(path.read_text().split()) for path in Path(instance.root_directory).glob("*.calls")}


@pytest.mark.parametrize("workers", [1, 2])
def test_each_partition_is_stored_and_recorded_once_with_what_is_its_own(
    instance: dg.DagsterInstance, workers: int
) -> None:
    result = run(instance, batch(make, workers=workers))
    assert result.success, failure(result)

    assert stored(instance) == {key: f"of {key}\n" for key in KEYS}
    assert partitions(instance) == KEYS
    for event in recorded(instance):
        metadata = {name: value.value for name, value in event.metadata.items() if name != "process"}
        tags, used = event.tags or {}, {name: metadata.pop(name) for name in USED}
        assert metadata == {"letter": event.partition, "stored": True}
        assert 0 <= used["step/seconds"] < 60
        assert used["step/peak_memory_bytes"] > 10**7
        assert used["step/partitions"] == 1
        assert (tags["dagster/data_version"], tags["said"]) == (f"version {event.partition}", event.partition)
        assert tags["dagster/data_version_is_user_provided"] == "true"
    processes = {event.metadata["process"].value for event in recorded(instance)}
    assert processes == {os.getpid()} if workers == 1 else 0 < len(processes - {os.getpid()}) <= 2


def test_it_records_what_an_asset_that_returns_all_at_its_end_records(instance: dg.DagsterInstance) -> None:
    @dg.asset(name="things", partitions_def=BOTH, backfill_policy=ONE_RUN, code_version="1", deps=["upstream"])
    def at_the_end(context: dg.AssetExecutionContext) -> Made:
        return dg.MaterializeResult(data_version=dg.DataVersion("1"))

    @dg.asset(name="things", partitions_def=BOTH, backfill_policy=ONE_RUN, code_version="1", deps=["upstream"])
    def one_by_one(context: dg.AssetExecutionContext) -> Made:
        return for_each_partition(context, version_one, workers=1)

    instance.report_runless_asset_event(dg.AssetMaterialization("upstream", tags={"dagster/data_version": "7"}))
    for asset in (at_the_end, one_by_one):
        assert run(instance, asset, first="EWR|a", last="JFK|f").success

    def said(event: dg.AssetMaterialization) -> Any:
        metadata = {name: value for name, value in event.metadata.items() if name not in USED}
        return event.partition, event.tags, metadata

    events = recorded(instance)
    together, single = (sorted(map(said, half), key=str) for half in (events[:12], events[12:]))
    assert together == single
    assert len(events) == 24


def version_one(key: str) -> Made:
    return dg.MaterializeResult(data_version=dg.DataVersion("1"))


def test_a_partition_of_two_dimensions_is_one_of_its_text(instance: dg.DagsterInstance) -> None:
    assert run(instance, batch(make, BOTH), first="JFK|a", last="JFK|c").success
    assert partitions(instance) == ["JFK|a", "JFK|b", "JFK|c"]
    assert (recorded(instance)[0].tags or {})["dagster/partition/airport"] == "JFK"


def test_a_step_of_one_partition_is_made_in_its_own_process(instance: dg.DagsterInstance) -> None:
    assert run(instance, batch(make, workers=None), first="b", last="b").success
    (event,) = recorded(instance)
    assert (event.partition, event.metadata["process"].value) == ("b", os.getpid())


def test_a_downstream_asset_in_the_same_run_reads_what_was_stored(instance: dg.DagsterInstance) -> None:
    read = {}

    @dg.asset(partitions_def=LETTERS, backfill_policy=ONE_RUN)
    def downstream(things: dict[str, str]) -> Made:
        read.update(things)
        return dg.MaterializeResult()

    assert run(instance, batch(make), downstream).success
    assert read == {key: f"of {key}\n" for key in KEYS}


def test_one_that_fails_is_named_and_leaves_the_others_and_a_run_of_the_missing_makes_only_it(
    instance: dg.DagsterInstance,
) -> None:
    mark(instance, b="fails", e="fails")
    result = run(instance, batch(unless(instance)))

    assert "things: 2 of 6 partitions failed: b, e." in re.sub(r"failed: e, b", "failed: b, e", failure(result))
    assert re.search(r"things b failed: Traceback[^|]*in make_unless[^|]*no b today", log(instance, result))
    assert partitions(instance) == sorted(stored(instance)) == ["a", "c", "d", "f"]

    for key in sorted({*KEYS} - instance.get_materialized_partitions(dg.AssetKey("things"))):
        Path(instance.root_directory, f"{key}.mark").unlink()
        assert run(instance, batch(unless(instance)), first=key, last=key).success
    assert partitions(instance) == KEYS
    assert Counter(calls(instance)) == Counter(KEYS) + Counter("be")


def test_one_that_cannot_be_stored_is_not_recorded_and_leaves_the_others(instance: dg.DagsterInstance) -> None:
    result = run(instance, batch(make), full="d")
    assert "1 of 6 partitions failed: d" in failure(result)
    assert "the disk is full" in log(instance, result)
    assert partitions(instance) == sorted(stored(instance)) == ["a", "b", "c", "e", "f"]


@pytest.mark.parametrize(
    ("how", "said"),
    [("killed", r"was killed \(SIGKILL\), twice: .* memory"), ("exits", r"ended with exit code 3 before it answered")],
)
def test_a_process_that_dies_costs_its_partition_after_a_second_try_and_no_other(
    instance: dg.DagsterInstance, how: str, said: str
) -> None:
    mark(instance, c=how)
    result = run(instance, batch(unless(instance)))

    assert "1 of 6 partitions failed: c" in failure(result)
    assert re.search(f"things c failed: its process {said}", log(instance, result))
    assert partitions(instance) == ["a", "b", "d", "e", "f"]
    assert calls(instance) == {key: 2 if key == "c" else 1 for key in KEYS}


def test_two_processes_that_die_once_cost_nothing(instance: dg.DagsterInstance) -> None:
    mark(instance, a="killed_once", f="killed_once")
    assert run(instance, batch(unless(instance))).success
    assert partitions(instance) == KEYS
    assert calls(instance) == {key: 2 if key in "af" else 1 for key in KEYS}


def test_a_step_that_is_retried_makes_only_what_it_has_not_recorded(instance: dg.DagsterInstance) -> None:
    @dg.asset(
        name="things", partitions_def=LETTERS, backfill_policy=ONE_RUN, retry_policy=dg.RetryPolicy(max_retries=1)
    )
    def things(context: dg.AssetExecutionContext) -> Made:
        if context.retry_number:
            Path(instance.root_directory, "b.mark").unlink()
        return for_each_partition(context, unless(instance), workers=1)

    mark(instance, b="fails")
    assert run(instance, things).success
    assert partitions(instance) == KEYS
    assert calls(instance) == {key: 2 if key == "b" else 1 for key in KEYS}


def look(key: str, days: pd.DataFrame, names: pa.Table) -> Made:
    return dg.MaterializeResult(metadata={"n": int(days["n"].sum()), "names": names.num_rows, "rows": len(days)})


@pytest.mark.parametrize("workers", [1, 2])
def test_frames_come_whole_or_sliced_and_one_without_rows_fails_alone(
    instance: dg.DagsterInstance, workers: int
) -> None:
    days = pd.DataFrame({"letter": list("abcabeff"), "n": range(8)})
    frames = {"days": Sliced(days, by=["letter"]), "names": pa.table({"name": ["x", "y"]})}
    result = run(instance, batch(look, workers=workers, **frames))

    assert "1 of 6 partitions failed: d" in failure(result)
    assert "things d: days has no rows for it; materialize what days is read from first" in log(instance, result)
    found = {e.partition: [e.metadata[name].value for name in ("n", "rows", "names")] for e in recorded(instance)}
    assert found == {"a": [3, 2, 2], "b": [5, 2, 2], "c": [2, 1, 2], "e": [5, 1, 2], "f": [13, 2, 2]}


@pytest.mark.parametrize("by", [["airport", "letter"], ["letter", "airport"]])
def test_of_two_dimensions_a_slice_is_by_their_names(instance: dg.DagsterInstance, by: list[str]) -> None:
    days = pd.DataFrame({"letter": list("abab"), "airport": ["EWR", "EWR", "JFK", "JFK"], "n": range(4)})
    names = pa.table({"name": ["x"]})
    sliced = batch(look, BOTH, workers=1, days=Sliced(days, by=by), names=names)
    assert run(instance, sliced, first="EWR|a", last="JFK|b").success
    found = {event.partition: event.metadata["n"].value for event in recorded(instance)}
    assert found == {"EWR|a": 0, "EWR|b": 1, "JFK|a": 2, "JFK|b": 3}


def test_where_no_partition_has_rows_those_that_there_are_are_named(instance: dg.DagsterInstance) -> None:
    days = pd.DataFrame({"letter": ["A", "B"], "n": [1, 2]})
    result = run(instance, batch(look, workers=1, days=Sliced(days, by=["letter"]), names=pa.table({"name": ["x"]})))
    said = "things a: days has no rows for it: by letter it has rows for 'A', 'B'; materialize what days is read from"
    assert said in log(instance, result)


def use_threads(key: str) -> Made:
    import numpy as np
    from threadpoolctl import threadpool_info

    np.linalg.norm(np.ones((2, 2)))
    pools = [pool["num_threads"] for pool in threadpool_info()]
    return dg.MaterializeResult(metadata={"threads": max([pa.cpu_count(), *pools]), "pools": len(pools)})


def test_processes_times_threads_are_the_cores_there_are(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "cores", lambda: 6)
    assert run(instance, batch(use_threads, workers=3)).success
    # BLAS has no more threads than the machine has cores.
    assert {e.metadata["threads"].value for e in recorded(instance)} == {2}
    assert all(e.metadata["pools"].value for e in recorded(instance))


def say(key: str) -> Made:
    os.write(1, f"{key} says {os.environ['GREETING']}\n".encode())
    return dg.MaterializeResult()


def test_processes_have_the_steps_environment_and_write_to_its_output(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("GREETING", "hello")
    assert run(instance, batch(say)).success
    said = capfd.readouterr().out
    assert all(f"{key} says hello" in said for key in KEYS)


def test_the_log_says_how_far_it_is(instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(batches, "PROGRESS_SECONDS", 0.0)
    mark(instance, a="fails")
    text = log(instance, run(instance, batch(unless(instance), workers=1)))
    assert "things: 0 done, 1 failed, 5 left, about 0 s to go" in text
    assert "things: 2 done, 1 failed, 3 left" in text
    assert "things: 5 done, 1 failed, 0 left" in text


def make_second(key: str, *, told: Path) -> Made:
    """The first one marks its end, after which the other takes half a second."""
    if key == "a":
        (told / "a.mark").touch()
        return make(key)
    while not (told / "a.mark").exists():
        time.sleep(0.01)
    time.sleep(0.5)
    return make(key)


def test_the_log_says_how_far_it_is_while_the_processes_are_busy(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(batches, "PROGRESS_SECONDS", 0.05)
    fn = partial(make_second, told=Path(instance.root_directory))
    text = log(instance, run(instance, batch(fn), last="b"))
    assert "things: 2 done, 0 failed, 0 left" in text
    # One line can be of the outcome of the first; the others came between the two outcomes.
    assert text.count("things: 1 done, 0 failed, 1 left, about") > 2


def return_text(key: str) -> str:
    return key


def return_lambda(key: str) -> Made:
    return dg.MaterializeResult(value=lambda: key)


@pytest.mark.parametrize("workers", [1, 2])
def test_what_returns_something_else_is_told_what_to_return(instance: dg.DagsterInstance, workers: int) -> None:
    result = run(instance, batch(return_text, workers=workers))
    assert "6 of 6 partitions failed" in failure(result)
    said = "TypeError: things a: return_text returned a str; return dg.MaterializeResult(value=..., metadata=..., "
    assert said in log(instance, result)


def test_a_value_that_cannot_be_sent_fails_its_partition(instance: dg.DagsterInstance) -> None:
    result = run(instance, batch(return_lambda))
    assert "6 of 6 partitions failed" in failure(result)
    assert "things a failed: what it returned cannot be sent from its process" in log(instance, result)


def test_a_function_that_other_processes_cannot_import_is_refused_for_one_partition_too(
    instance: dg.DagsterInstance,
) -> None:
    said = r"things: .*lambda.* cannot be sent to another process .*Define it at the top level of a module"
    for last in ("a", "f"):
        assert re.search(said, failure(run(instance, batch(lambda key: make(key)), last=last)))


@pytest.mark.parametrize(
    ("call", "said"),
    [
        ({"fn": make, "workers": 0}, "ValueError: things: 0 workers; at least one makes something"),
        ({"fn": look}, "TypeError: things: look does not take the partition key and the frames by name: missing a"),
        ({"fn": make, "days": pd.DataFrame()}, "make does not take the partition key and the frames by name: got an"),
        ({"fn": partial(look, names=0), "days": Sliced(pd.DataFrame(), ["day"])}, "days has no column day to slice by"),
        ({"fn": partial(look, names=0), "days": 5}, "TypeError: days is a int: give a pandas frame or a pyarrow table"),
        ({"fn": make, "partitions": None}, "ValueError: things has no partitions here; give it a partitions_def"),
    ],
)
def test_a_bad_call_is_refused_before_anything_is_made(
    instance: dg.DagsterInstance, call: dict[str, Any], said: str
) -> None:
    from tests.conftest import QUIET

    tags = {"dagster/partition": "a"} if call.get("partitions", LETTERS) else {}
    result = dg.materialize([batch(**call)], instance=instance, tags=tags, run_config=QUIET, raise_on_error=False)
    assert said in failure(result)
    assert recorded(instance) == []


@pytest.mark.parametrize(
    ("tags", "said"),
    [
        ({"dagster/asset_partition_range_start": "f", "dagster/asset_partition_range_end": "a"}, "range .* is empty"),
        ({"dagster/partition": "zz"}, r"Nonexistent partition keys:\s+\['zz'\]\s+Run it for those it has"),
    ],
)
def test_a_range_reversed_and_an_unknown_partition_are_refused(
    instance: dg.DagsterInstance, tags: dict[str, str], said: str
) -> None:
    from tests.conftest import QUIET

    result = dg.materialize([batch(make)], instance=instance, tags=tags, run_config=QUIET, raise_on_error=False)
    assert re.search(said, failure(result))
    assert recorded(instance) == []


def test_frames_of_partitions_are_stored_by_the_lake_one_by_one(instance: dg.DagsterInstance, tmp_path: Path) -> None:
    from resources.lake import Lake
    from resources.lake_io import LakeIOManager
    from tests.conftest import QUIET

    @dg.asset(partitions_def=LETTERS, backfill_policy=ONE_RUN, metadata={"partition_expr": "letter"})
    def things(context: dg.AssetExecutionContext) -> Made:
        return for_each_partition(context, rows, workers=2)

    lake = Lake(str(tmp_path / "lake"))
    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    store = {"io_manager": LakeIOManager(lake)}
    assert dg.materialize([things], instance=instance, resources=store, tags=tags, run_config=QUIET).success

    assert sorted(lake.read("things").to_pydict()["n"]) == [0, 0, 0, 1, 1, 2]
    counts = {event.partition: event.metadata["dagster/partition_row_count"].value for event in recorded(instance)}
    assert counts == {"a": 1, "b": 2, "c": 3}
    assert len({(event.tags or {})["dagster/data_version"] for event in recorded(instance)}) == 3


def rows(key: str) -> Made:
    count = KEYS.index(key) + 1
    return dg.MaterializeResult(value=pd.DataFrame({"letter": [key] * count, "n": range(count)}))
