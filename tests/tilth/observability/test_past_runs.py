"""How long an op takes is read from the runs that made it, and told for other numbers of partitions."""

import statistics
import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.conftest import QUIET
from tilth.automation.ranges import range_tags
from tilth.observability.past_runs import fitted, past_work

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")

sizes = st.integers(1, 400)
seconds = st.floats(0.01, 1000)


@pytest.fixture
def instance(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def slow(context: dg.AssetExecutionContext) -> None:
    time.sleep(0.01 * len(context.partition_keys))


@dg.multi_asset(specs=[dg.AssetSpec("left"), dg.AssetSpec("right")])
def both() -> Iterator[dg.MaterializeResult]:
    """A multi-asset's first output is stored when the step has used less than by its end."""
    yield dg.MaterializeResult("left", metadata={"step/cpu_seconds": 1.5, "step/partitions": 1})
    yield dg.MaterializeResult("right", metadata={"step/cpu_seconds": 4.0, "step/partitions": 1})


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def batch(context: dg.AssetExecutionContext) -> None:
    for day in context.partition_keys:
        used = {"step/cpu_seconds": 2.0, "step/partitions": 1}
        context.add_asset_metadata(used, partition_key=day)


@dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
def whole(context: dg.AssetExecutionContext) -> None:
    context.add_asset_metadata({"step/cpu_seconds": 6.0, "step/partitions": len(context.partition_keys)})


@dg.asset
def fails(context: dg.AssetExecutionContext) -> None:
    context.log_event(dg.AssetMaterialization("fails"))
    raise dg.Failure("after it has recorded something")


@dg.op
def first() -> int:
    time.sleep(0.05)
    return 1


@dg.op
def second(one: int) -> int:
    return one


@dg.graph_asset
def of_two_ops() -> int:
    return second(first())


def ran(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, start: str = "", end: str = "") -> None:
    tags = range_tags(start, end) if start else {}
    dg.materialize([asset], instance=instance, tags=tags, run_config=QUIET, raise_on_error=False)


def test_what_a_run_did_is_its_partitions_and_seconds(instance: dg.DagsterInstance) -> None:
    ran(instance, slow, "2013-01-01", "2013-01-10")
    ran(instance, slow, "2013-01-11", "2013-01-11")
    work = past_work(instance, [frozenset({slow.key})])
    one, ten = sorted(work[frozenset({slow.key})], key=lambda did: did.partitions)
    assert (one.partitions, ten.partitions) == (1, 10)
    assert one.seconds >= 0.01
    assert ten.seconds >= 0.1
    assert one.cpu_seconds is None


def test_the_largest_run_counts_though_many_smaller_ones_came_after_it(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth.observability.past_runs._RUNS", 2)
    for days in (("01", "09"), ("10", "10"), ("11", "11"), ("12", "12")):
        ran(instance, slow, *(f"2013-01-{day}" for day in days))
    work = past_work(instance, [frozenset({slow.key})])
    assert sorted(did.partitions for did in work[frozenset({slow.key})]) == [1, 1, 9]


def test_cpu_seconds_are_counted_once_whoever_carries_them(instance: dg.DagsterInstance) -> None:
    ops = [frozenset({batch.key}), frozenset({whole.key}), frozenset(both.keys)]
    ran(instance, batch, "2013-01-01", "2013-01-03")
    ran(instance, whole, "2013-01-01", "2013-01-03")
    ran(instance, both)
    work = past_work(instance, ops)
    assert [[did.cpu_seconds for did in work[op]] for op in ops] == [[6.0], [6.0], [4.0]]


def test_all_steps_of_a_graph_count_for_the_asset_that_it_makes(instance: dg.DagsterInstance) -> None:
    ran(instance, of_two_ops)
    (did,) = past_work(instance, [frozenset({of_two_ops.key})])[frozenset({of_two_ops.key})]
    assert did.seconds >= 0.05
    assert did.partitions == 1


def test_a_step_that_failed_says_nothing(instance: dg.DagsterInstance) -> None:
    ran(instance, fails)
    assert past_work(instance, [frozenset({fails.key})]) == {frozenset({fails.key}): []}


def test_without_a_past_nothing_is_said() -> None:
    assert fitted([]) is None


def test_a_start_and_so_much_per_partition_are_told_apart_and_one_slow_run_does_not_move_them() -> None:
    takes = fitted([(1, 5.1), (10, 6.0), (100, 15.0), (50, 10.0), (30, 8.0), (20, 700.0)])
    assert takes is not None
    assert takes(365) == pytest.approx(5 + 0.1 * 365, rel=0.1)


@given(st.floats(0, 100), st.floats(0.001, 10), st.sets(sizes, max_size=8), sizes)
def test_what_is_linear_is_found_exactly(start: float, each: float, past: set[int], asked: int) -> None:
    takes = fitted([(size, start + each * size) for size in {1, 4, *past}])
    assert takes is not None
    assert takes(asked) == pytest.approx(start + each * asked, rel=1e-3, abs=1e-3)


@given(st.lists(st.tuples(sizes, seconds), min_size=1, max_size=8), sizes, sizes)
def test_more_partitions_never_take_less_and_nothing_takes_less_than_no_time(
    past: list[tuple[int, float]], a: int, b: int
) -> None:
    takes = fitted(past)
    assert takes is not None
    assert 0 <= takes(min(a, b)) <= takes(max(a, b))


def test_where_much_larger_runs_took_no_longer_none_will() -> None:
    takes = fitted([(1, 5.0), (100, 4.9)])
    assert takes is not None
    assert takes(365) == pytest.approx(4.95)


@given(sizes, st.lists(seconds, min_size=1, max_size=5), sizes)
def test_of_one_size_fewer_partitions_take_as_long_and_more_in_proportion(
    size: int, took: list[float], asked: int
) -> None:
    takes = fitted([(size, each) for each in took])
    assert takes is not None
    assert takes(1) == takes(size) == statistics.median(took)
    assert takes(asked) == pytest.approx(takes(size) * max(1, asked / size))
