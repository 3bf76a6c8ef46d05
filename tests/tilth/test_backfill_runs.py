"""The runs of a backfill are those that Dagster's own asset backfill makes."""

import logging
from collections.abc import Collection, Mapping
from datetime import UTC, datetime
from typing import Any

import dagster as dg
import pytest
from dagster._core.asset_graph_view.asset_graph_view import AssetGraphView, TemporalContext
from dagster._core.definitions.assets.graph.asset_graph_subset import AssetGraphSubset
from dagster._core.events import DagsterEvent, StepMaterializationData
from dagster._core.execution.asset_backfill import AssetBackfillData, execute_asset_backfill_iteration_inner
from dagster._core.storage.dagster_run import DagsterRun
from dagster._core.test_utils import mock_workspace_from_repos
from dagster._core.utils import make_new_run_id
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.flights.definitions import defs as flights
from tilth.observability.backfill_runs import Group, backfill_runs

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-01")
MONTHS = dg.MonthlyPartitionsDefinition("2013-01", end_date="2013-02", fmt="%Y-%m")
NAMES = dg.StaticPartitionsDefinition(["EWR", "JFK", "LGA"])
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "name": NAMES})

one, all_in_one = None, dg.BackfillPolicy.single_run()
history = dg.TimeWindowPartitionMapping(start_offset=-3, end_offset=-1, allow_nonexistent_upstream_partitions=True)

Runs = list[tuple[tuple[str, ...], tuple[str | None, ...]]]
"""Of each run its assets and its partitions, sorted."""


def asset(
    name: str,
    partitions: dg.PartitionsDefinition | None,
    policy: dg.BackfillPolicy | None,
    **reads: dg.PartitionMapping | None,
) -> dg.AssetsDefinition:
    deps = [dg.AssetDep(parent, partition_mapping=mapping) for parent, mapping in reads.items()]

    @dg.asset(name=name, partitions_def=partitions, backfill_policy=policy, deps=deps)
    def made() -> None: ...

    return made


def planned(assets: list[Any], first: str | None = None, last: str | None = None) -> list[Group]:
    graph = dg.Definitions(assets).resolve_asset_graph()
    wanted = (first, last or first) if first else None
    with dg.DagsterInstance.ephemeral() as instance:
        return backfill_runs(graph, instance, graph.materializable_asset_keys, wanted)[0]  # pyright: ignore


def runs(groups: list[Group]) -> Runs:
    return sorted(
        (tuple(sorted(key.to_user_string() for key in group.assets)), tuple(key or None for key in run))
        for group in groups
        for run in group.runs
    )


def made_by(groups: list[Group]) -> dict[dg.AssetKey, list[str]]:
    """By asset all partitions of all runs, those twice that two runs make."""
    keys = {key for group in groups for key in group.assets}
    return {key: sorted(p for g in groups if key in g.assets for run in g.runs for p in run) for key in keys}


def run_by_dagster(definitions: dg.Definitions, targets: Mapping[dg.AssetKey, Collection[str]]) -> Runs:
    """What Dagster's daemon asks for, when all runs that it asked for have ended before it looks again."""
    graph = mock_workspace_from_repos([definitions.get_repository_def()]).asset_graph
    cut = {key: definition for key in targets if (definition := graph.get(key).partitions_def)}
    subset = AssetGraphSubset(
        partitions_subsets_by_asset_key={key: cut[key].subset_with_partition_keys(targets[key]) for key in cut},
        non_partitioned_asset_keys=targets.keys() - cut.keys(),
    )
    found: Runs = []
    with dg.DagsterInstance.ephemeral() as instance:
        data = AssetBackfillData.empty(subset, 1.8e9, instance)
        while True:
            seen = instance.event_log_storage.get_maximum_record_id()
            now = TemporalContext(effective_dt=datetime.now(UTC), last_event_id=seen)
            view = AssetGraphView(temporal_context=now, instance=instance, asset_graph=graph)
            tick = execute_asset_backfill_iteration_inner("it", data, view, 1.8e9, logging.getLogger("backfill"), None)
            if not tick.run_requests:
                return sorted(found)
            data = tick.backfill_data.with_run_requests_submitted(tick.run_requests, view)
            for request in tick.run_requests:
                keys, run = request.asset_selection or [], make_new_run_id()
                partitions: list[str | None] = [request.partition_key]
                if start := request.tags.get("dagster/asset_partition_range_start"):
                    end = request.tags["dagster/asset_partition_range_end"]
                    within = cut[keys[0]].get_partition_keys_in_range(dg.PartitionKeyRange(start, end))
                    partitions = [*within]
                found.append((tuple(sorted(key.to_user_string() for key in keys)), tuple(partitions)))
                instance.add_run(DagsterRun("made", run, tags={"dagster/backfill": "it"}))
                for key in keys:
                    for partition in partitions:
                        data_of_it = StepMaterializationData(dg.AssetMaterialization(key, partition=partition))
                        event = DagsterEvent("ASSET_MATERIALIZATION", "made", event_specific_data=data_of_it)
                        instance.report_dagster_event(event, run)


@pytest.mark.parametrize(
    "assets",
    [
        pytest.param([asset("a", DAYS, one), asset("b", DAYS, one, a=None)], id="a run a day makes both"),
        pytest.param([asset("a", DAYS, one), asset("b", DAYS, one, a=history)], id="history is another run"),
        pytest.param(
            [asset("a", DAYS, all_in_one), asset("b", DAYS, all_in_one, a=history)],
            id="but not where one run takes all",
        ),
        pytest.param(
            [asset("a", DAYS, all_in_one), asset("b", DAYS, dg.BackfillPolicy.multi_run(4), a=None)],
            id="another policy is another run",
        ),
        pytest.param([asset("a", None, one), asset("b", DAYS, all_in_one, a=None)], id="a table before its days"),
        pytest.param([asset("a", DAYS, all_in_one), asset("b", None, one, a=None)], id="days before their table"),
        pytest.param([asset("a", DAYS, all_in_one), asset("b", MONTHS, all_in_one, a=None)], id="days before a month"),
        pytest.param(
            [asset("a", DAYS, all_in_one), asset("b", DAYS, all_in_one), asset("c", DAYS, all_in_one, a=None)],
            id="what is not connected runs together too",
        ),
        pytest.param(
            [
                asset("a", DAYS, all_in_one),
                asset("b", DAYS, one, a=None),
                asset("c", DAYS, all_in_one, a=None, b=None),
            ],
            id="what waits for one parent waits for it alone",
        ),
    ],
)
def test_what_dagster_makes_in_one_run_is_one_run(assets: list[dg.AssetsDefinition]) -> None:
    groups = planned(assets, DAYS.get_first_partition_key(), DAYS.get_last_partition_key())
    assert runs(groups) == run_by_dagster(dg.Definitions(assets), made_by(groups))


def test_the_assets_of_an_op_that_makes_all_or_none_are_one_run_after_what_any_of_them_reads() -> None:
    specs = [dg.AssetSpec("x", deps=["a"]), dg.AssetSpec("y", deps=["b"])]

    @dg.multi_asset(specs=specs, partitions_def=DAYS, backfill_policy=all_in_one)
    def x_and_y() -> dg.MaterializeResult: ...

    assets = [asset("a", DAYS, all_in_one), asset("b", DAYS, one), x_and_y]
    groups = planned(assets, "2013-01-02", "2013-01-05")
    assert [group.stage for group in groups] == [1, 1, 2]
    assert runs(groups) == run_by_dagster(dg.Definitions(assets), made_by(groups))


def test_two_dimensions_are_cut_into_runs_as_dagster_cuts_them() -> None:
    assets = [
        asset("a", BOTH, dg.BackfillPolicy.multi_run(5)),
        asset("b", DAYS, all_in_one, a=dg.MultiToSingleDimensionPartitionMapping("day")),
    ]
    groups = planned(assets, "2013-01-01|JFK", "2013-01-07|LGA")
    assert len(groups[0].runs) == 4, groups[0].runs
    assert runs(groups) == run_by_dagster(dg.Definitions(assets), made_by(groups))


def test_a_month_of_flights_is_made_in_the_runs_that_dagster_makes() -> None:
    graph = flights.resolve_asset_graph()
    selected = dg.AssetSelection.from_string('key:"raw/flights"+ or key:"raw/weather"+').resolve(graph)
    with dg.DagsterInstance.ephemeral() as instance:
        groups, _ = backfill_runs(graph, instance, selected, ("2013-02-01", "2013-02-28"))
    assert runs(groups) == run_by_dagster(flights, made_by(groups))


@settings(max_examples=25)
@given(
    first=st.integers(0, 20),
    length=st.integers(1, 14),
    most=st.none() | st.integers(1, 14),
    downstream=st.none() | st.integers(1, 14),
)
def test_runs_make_every_partition_once(first: int, length: int, most: int | None, downstream: int | None) -> None:
    wanted = DAYS.get_partition_keys()[first : first + length]
    policies = [dg.BackfillPolicy(each) for each in (most, downstream)]
    assets = [
        asset("a", DAYS, policies[0]),
        asset("b", DAYS, policies[1], a=None),
        asset("month", MONTHS, all_in_one, b=None),
    ]
    groups = planned(assets, wanted[0], wanted[-1])
    made = {key.to_user_string(): partitions for key, partitions in made_by(groups).items()}
    assert made == {"a": wanted, "b": wanted, "month": ["2013-01"]}
    for name, policy in zip("ab", policies, strict=True):
        sizes = [len(run) for group in groups if dg.AssetKey(name) in group.assets for run in group.runs]
        assert max(sizes) <= (policy.max_partitions_per_run or len(wanted))


def test_where_dagster_may_begin_with_some_partitions_before_the_others_it_may_be_more_runs() -> None:
    days_of_their_own, days_together = asset("a", DAYS, one), asset("a", DAYS, all_in_one)
    reading = asset("b", DAYS, dg.BackfillPolicy.multi_run(5), a=None)
    assert [group.or_more for group in planned([days_of_their_own, reading], "2013-01-01", "2013-01-10")] == [
        False,
        True,
    ]
    assert [group.or_more for group in planned([days_together, reading], "2013-01-01", "2013-01-10")] == [False, False]


def test_an_asset_that_reads_its_own_day_before_may_be_more_runs() -> None:
    before = dg.TimeWindowPartitionMapping(start_offset=-1, end_offset=-1, allow_nonexistent_upstream_partitions=True)
    (group,) = planned([asset("a", DAYS, one, a=before)], "2013-01-01", "2013-01-05")
    assert len(group.runs) == 5
    assert group.or_more


def test_what_dagster_reaches_too_late_is_counted_as_left_out() -> None:
    # Dagster comes to `c` from `a`, and then not again from `b`, three days of whose readers are later days.
    assets = [asset("a", DAYS, all_in_one), asset("b", DAYS, all_in_one, a=None), asset("z", DAYS, all_in_one, b=None)]
    assets.append(asset("c", DAYS, all_in_one, a=None, z=history))
    graph = dg.Definitions(assets).resolve_asset_graph()
    with dg.DagsterInstance.ephemeral() as instance:
        groups, left_out = backfill_runs(graph, instance, graph.materializable_asset_keys, ("2013-01-01", "2013-01-01"))
    assert made_by(groups)[dg.AssetKey("c")] == ["2013-01-01"]
    assert left_out == {dg.AssetKey("c"): 3}


def test_partitions_that_are_added_as_it_goes_are_those_of_the_instance() -> None:
    customers = dg.DynamicPartitionsDefinition(name="customers")
    graph = dg.Definitions([asset("a", customers, one)]).resolve_asset_graph()
    with dg.DagsterInstance.ephemeral() as instance:
        with pytest.raises(ValueError, match="a has no partition 'acme': it has none yet"):
            backfill_runs(graph, instance, [dg.AssetKey("a")], ("acme", "acme"))
        instance.add_dynamic_partitions("customers", ["acme", "umbrella"])
        groups, _ = backfill_runs(graph, instance, [dg.AssetKey("a")], ("acme", "umbrella"))
    assert groups[0].runs == (("acme",), ("umbrella",))
