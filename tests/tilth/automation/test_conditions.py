"""The named conditions on two small assets: what asks for a partition, once, and what does not."""

from collections.abc import Iterator
from datetime import UTC, datetime, timedelta

import dagster as dg
import pytest

from tests.automation import DAY, DAYS, Pair, dates
from tilth.automation.attempts import Answered
from tilth.automation.conditions import on_changed_data, on_complete_window, on_new_data
from tilth.automation.ranges import range_tags
from tilth.versioning.inputs import OPTIONAL, REFERENCE

MONTHS = dg.MonthlyPartitionsDefinition("2013-01", end_date="2013-03", fmt="%Y-%m")
NEXT_DAY = "2013-01-03"

every_condition = pytest.mark.parametrize(
    "condition", [on_new_data(), on_changed_data(), on_complete_window()], ids=["new", "changed", "window"]
)


@pytest.fixture
def pair() -> Iterator[Pair]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Pair(instance)


@pytest.mark.parametrize("condition", [on_new_data(), on_changed_data()], ids=["new", "changed"])
@pytest.mark.parametrize(("partitions", "partition"), [(DAYS, DAY), (None, None)])
def test_a_partition_is_asked_for_once_when_its_input_is_made_and_once_when_that_changes(
    pair: Pair,
    condition: dg.AutomationCondition,
    partitions: dg.PartitionsDefinition | None,
    partition: str | None,
) -> None:
    assert pair.connect(condition, partitions) == set()
    for content in ("first", "second"):
        pair.made("source", partition, content)
        assert pair.look() == {partition}
        assert pair.look() == set()
        pair.made("target", partition, content)
        assert pair.look() == set()


@every_condition
def test_an_input_that_is_made_again_with_the_same_content_asks_for_nothing(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    pair.made("source")
    pair.made("target")
    assert pair.look() == set()
    pair.made("source")
    assert pair.look() == set()


def test_a_window_that_exists_gathers_its_changes_until_the_next_tick_of_again(pair: Pair) -> None:
    noon = datetime(2026, 1, 1, 12, tzinfo=UTC)

    def look(minutes: int) -> set[str | None]:
        return pair.look(noon + timedelta(minutes=minutes))

    pair.connect(on_complete_window(again="*/10 * * * *"), MONTHS, at=noon)
    for day in dates("2013-01-01", "2013-01-31"):
        pair.made("source", day)
    assert look(1) == {"2013-01"}  # the first time at once
    pair.made("target", "2013-01")
    assert look(2) == set()
    for minute in (12, 13, 14):
        pair.made("source", f"2013-01-{minute}", content="corrected")
        assert look(minute) == set()
    assert look(19) == set()
    assert look(20) == {"2013-01"}
    assert look(21) == set()
    pair.made("target", "2013-01", "again")
    assert look(31) == set()
    pair.made("source", "2013-01-05", content="corrected")
    assert look(32) == set()
    assert look(41) == {"2013-01"}


def test_a_window_is_asked_for_when_its_last_missing_day_is_made_whichever_that_is(pair: Pair) -> None:
    pair.connect(on_complete_window(), MONTHS)
    for day in {*dates("2013-01-01", "2013-01-31")} - {DAY}:
        pair.made("source", day)
    assert pair.look() == set()
    pair.made("source", DAY)
    assert pair.look() == {"2013-01"}
    assert pair.look() == set()


@pytest.mark.parametrize("condition", [on_new_data(), on_changed_data(), on_complete_window()])
def test_an_absent_optional_input_holds_nothing_back_and_a_change_of_it_asks(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition, inputs=("source", dg.AssetDep("lookup", metadata=OPTIONAL)))
    pair.made("source")
    assert pair.look() == {DAY}
    pair.made("target")
    assert pair.look() == set()
    pair.made("lookup")
    assert pair.look() == {DAY}


@pytest.mark.parametrize("condition", [on_new_data(), on_changed_data(), on_complete_window()])
def test_a_reference_must_be_there_but_a_refresh_of_it_asks_for_nothing(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition, inputs=("source", dg.AssetDep("lookup", metadata=REFERENCE)))
    pair.made("source")
    assert pair.look() == set()
    pair.made("lookup")
    assert pair.look() == {DAY}
    pair.made("target")
    assert pair.look() == set()
    pair.made("lookup", content="refreshed")
    assert pair.look() == set()


@every_condition
def test_a_partition_waits_until_its_input_is_no_longer_being_made(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    pair.made("source", DAY, "first")
    seen: list[set[str | None]] = []
    pair.during["source"] = lambda: seen.append(pair.look())
    assert pair.run("source")
    assert seen == [set()]
    assert pair.look() == {DAY}


@every_condition
def test_a_partition_is_left_alone_while_a_run_for_it_is_under_way(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    seen: list[set[str | None]] = []

    def meanwhile() -> None:
        pair.made("source", DAY)
        pair.made("source", NEXT_DAY)
        seen.append(pair.look())

    pair.during["target"] = meanwhile
    assert pair.run("target")
    assert seen == [{NEXT_DAY}]


@every_condition
def test_an_input_that_is_made_by_the_same_run_asks_for_nothing_afterwards(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    pair.made("source", DAY, "first")
    pair.made("target", DAY)
    assert pair.look() == set()
    seen: list[set[str | None]] = []
    pair.during["target"] = lambda: seen.append(pair.look())
    assert pair.run("source", "target")
    assert seen == [set()]
    assert pair.look() == set()
    assert pair.look() == set()


@every_condition
def test_a_partition_whose_run_failed_is_not_asked_for_again_until_an_input_changes(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    pair.made("source", DAY, "broken")
    assert pair.look() == {DAY}
    pair.during["target"] = lambda: 1 / 0
    assert not pair.run("target")
    assert pair.look() == set()
    assert pair.look() == set()
    pair.made("source", DAY, "repaired")
    assert pair.look() == {DAY}


@every_condition
def test_what_was_wiped_is_asked_for_again_where_its_input_is_there(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    pair.made("source")
    pair.made("target")
    assert pair.look() == set()
    pair.instance.wipe_assets([dg.AssetKey("target")])
    assert pair.look() == {DAY}


@every_condition
def test_what_was_made_before_the_first_look_is_asked_for_where_the_target_is_missing(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.made("source", DAY)
    pair.made("source", NEXT_DAY)
    pair.made("target", DAY)
    assert pair.connect(condition) == {NEXT_DAY}


@every_condition
def test_other_partitions_that_read_what_a_run_of_the_same_asset_made_are_asked_for_while_it_goes_on(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    with_yesterday = dg.AssetDep("source", partition_mapping=dg.TimeWindowPartitionMapping(start_offset=-1))
    pair.connect(condition, inputs=(with_yesterday,))
    for day in ("2013-01-01", DAY, NEXT_DAY):
        pair.made("source", day)
        pair.made("target", day)
    assert pair.look() == set()
    seen: list[set[str | None]] = []
    pair.during["target"] = lambda: seen.append(pair.look())
    assert pair.run("source", "target")
    assert seen == [{NEXT_DAY}]
    assert pair.look() == set()


def source_is_made_and_then_fails() -> None:
    materialization = dg.AssetMaterialization("source", partition=DAY, tags={"dagster/data_version": "half"})
    dg.AssetExecutionContext.get().log_event(materialization)
    raise RuntimeError("another day of the same step is broken")


@every_condition
def test_a_partition_that_a_run_did_not_come_to_is_asked_for_when_that_has_failed(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    pair.during["source"] = source_is_made_and_then_fails
    assert not pair.run("source", "target")
    assert pair.look() == {DAY}
    assert pair.look() == set()


@every_condition
def test_a_partition_that_failed_in_the_run_that_changed_its_input_is_asked_for_when_that_changes_again(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    pair.during["target"] = lambda: 1 / 0
    assert not pair.run("source", "target")
    assert pair.look() == set()
    assert pair.look() == set()
    pair.made("source", DAY, "repaired")
    assert pair.look() == {DAY}
    assert pair.look() == set()


@every_condition
def test_a_partition_that_is_made_while_conditions_are_evaluated_is_not_asked_for(
    pair: Pair, condition: dg.AutomationCondition, monkeypatch: pytest.MonkeyPatch
) -> None:
    pair.connect(condition)
    evaluate = Answered.evaluate

    def in_between(self: Answered, context: dg.AutomationContext) -> dg.AutomationResult:
        if not context.candidate_subset.is_empty:
            assert pair.run("target")
        return evaluate(self, context)

    pair.run("source")
    monkeypatch.setattr(Answered, "evaluate", in_between)
    assert pair.look() == set()
    monkeypatch.undo()
    assert pair.look() == set()
    pair.made("source", DAY, "changed")
    assert pair.look() == {DAY}


@every_condition
def test_a_partition_that_a_run_is_to_make_whose_log_does_not_say_so_yet_is_left_to_it(
    pair: Pair, condition: dg.AutomationCondition
) -> None:
    pair.connect(condition)
    run = pair.instance.add_run(
        dg.DagsterRun(
            job_name="of_an_asset",
            asset_selection=frozenset([dg.AssetKey("target")]),
            tags=range_tags(DAY, DAY),
            status=dg.DagsterRunStatus.STARTED,
        )
    )
    assert pair.instance.all_logs(run.run_id) == []
    pair.made("source")
    assert pair.look() == set()
    pair.instance.report_run_failed(run)
    assert pair.look() == {DAY}
