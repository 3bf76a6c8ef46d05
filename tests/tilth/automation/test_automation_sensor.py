"""What the conditions ask for becomes few runs over ranges, as far as the backfill policies allow."""

import time
from collections.abc import Iterator

import dagster as dg
import pytest

from tilth.automation.conditions import on_complete_window, on_new_data
from tilth.automation.sensor import automation_sensor

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-03-01")
START, END = "dagster/asset_partition_range_start", "dagster/asset_partition_range_end"


def asked(policy: dg.BackfillPolicy | None, days: list[str]) -> list[tuple[list[str], str, str]]:
    """The requests of one look: the assets, first and last day of each."""

    @dg.asset(partitions_def=DAYS, backfill_policy=policy)
    def source() -> None: ...

    @dg.asset(partitions_def=DAYS, backfill_policy=policy, deps=[source], automation_condition=on_new_data())
    def target() -> None: ...

    @dg.asset(partitions_def=DAYS, backfill_policy=policy, deps=[target], automation_condition=on_new_data())
    def beyond() -> None: ...

    sensor = automation_sensor("sensor", dg.AssetSelection.all(), "All of them.")
    assets = dg.Definitions(assets=[source, target, beyond], sensors=[sensor])
    with dg.DagsterInstance.ephemeral() as instance:
        for day in days:
            instance.report_runless_asset_event(dg.AssetMaterialization("source", partition=day))
        context = dg.build_sensor_context(instance, repository_def=assets.get_repository_def())
        evaluated = sensor.evaluate_tick(context)
        found = [
            (
                sorted(key.to_user_string() for key in request.asset_selection or []),
                request.partition_key or request.tags[START],
                request.partition_key or request.tags[END],
            )
            for request in evaluated.run_requests or []
        ]
        # The next look finds it all asked for.
        again = dg.build_sensor_context(instance, cursor=evaluated.cursor, repository_def=assets.get_repository_def())
        assert not sensor.evaluate_tick(again).run_requests
    return sorted(found)


def test_a_burst_of_ninety_days_would_be_few_runs_of_the_whole_chain() -> None:
    days = [*DAYS.get_partition_keys()[:20], *DAYS.get_partition_keys()[30:59], "2013-01-25"]
    chain = ["beyond", "target"]
    assert asked(dg.BackfillPolicy.single_run(), days) == [
        (chain, "2013-01-01", "2013-01-20"),
        (chain, "2013-01-25", "2013-01-25"),
        (chain, "2013-01-31", "2013-02-28"),
    ]


def test_a_range_is_no_longer_than_the_policy_allows() -> None:
    found = asked(dg.BackfillPolicy.multi_run(4), DAYS.get_partition_keys()[:10])
    assert [(first, last) for _, first, last in found] == [
        ("2013-01-01", "2013-01-04"),
        ("2013-01-05", "2013-01-08"),
        ("2013-01-09", "2013-01-10"),
    ]


def test_without_a_policy_each_partition_is_a_run_of_its_own() -> None:
    days = DAYS.get_partition_keys()[:3]
    assert [(first, last) for _, first, last in asked(None, days)] == [(day, day) for day in days]


class Looks:
    """A sensor over `source` and the `target` that is made of it."""

    def __init__(self, instance: dg.DagsterInstance, condition: dg.AutomationCondition) -> None:
        @dg.asset
        def source() -> None: ...

        @dg.asset(deps=[source], automation_condition=condition)
        def target() -> None: ...

        self.instance, self.cursor = instance, None
        self.sensor = automation_sensor("sensor", dg.AssetSelection.all(), "Both of them.")
        self.repository = dg.Definitions(assets=[source, target], sensors=[self.sensor]).get_repository_def()

    def made(self, key: str, version: str) -> None:
        tags = {"dagster/data_version": version}
        self.instance.report_runless_asset_event(dg.AssetMaterialization(key, tags=tags))

    def look(self) -> tuple[int, bool]:
        """How many runs are asked for, and whether the conditions were evaluated for it."""
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, repository_def=self.repository)
        found = self.sensor.evaluate_tick(context)
        self.cursor = found.cursor
        return len(found.run_requests or []), found.skip_message != "Nothing was recorded since the last tick."


@pytest.fixture
def looks(monkeypatch: pytest.MonkeyPatch) -> Iterator[Looks]:
    """At one and the same moment, unless a test sets another."""
    monkeypatch.setattr(time, "time", lambda: 1_700_000_040.0)
    with dg.DagsterInstance.ephemeral() as instance:
        yield Looks(instance, on_new_data())


def test_conditions_are_evaluated_when_something_was_recorded_since(looks: Looks) -> None:
    assert looks.look() == (0, True)
    assert looks.look() == (0, False)
    looks.made("source", "first")
    assert looks.look() == (1, True)
    # What was asked for changes what the next look sees.
    assert looks.look() == (0, True)
    assert looks.look() == (0, False)
    looks.made("target", "first")
    assert looks.look() == (0, True)
    looks.made("source", "second")
    assert looks.look() == (1, True)


def test_the_end_of_a_run_is_something_recorded(looks: Looks) -> None:
    @dg.job
    def nothing() -> None: ...

    looks.look()
    run = looks.instance.create_run_for_job(nothing)
    assert looks.look() == (0, False)
    looks.instance.report_run_failed(run)
    assert looks.look() == (0, True)


def test_a_code_server_that_starts_anew_evaluates_them(looks: Looks) -> None:
    looks.look()
    again = Looks(looks.instance, on_new_data())
    again.cursor = looks.cursor
    assert again.look() == (0, True)


def test_what_was_seen_is_written_down_when_something_is_asked_for_and_a_new_process_goes_on_from_there(
    looks: Looks,
) -> None:
    looks.look()
    looks.made("source", "first")
    assert looks.look() == (1, True)
    written = looks.cursor
    looks.made("target", "first")
    assert looks.look() == (0, True)
    assert looks.cursor == written
    again = Looks(looks.instance, on_new_data())
    again.cursor = written
    assert again.look() == (0, True)
    looks.made("source", "second")
    assert again.look() == (1, True)
    assert again.cursor != written


def test_what_was_seen_is_written_down_when_it_rests_and_every_five_minutes(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cursor_after(minute: int) -> str | None:
        monkeypatch.setattr(time, "time", lambda: 1_700_000_040.0 + 60 * minute)
        assert looks.look() == (0, True)
        return looks.cursor

    first = cursor_after(0)
    assert cursor_after(1) == first  # conditions change once more, when they see that nothing is new
    rested = cursor_after(2)
    assert rested != first
    assert [cursor_after(minute) for minute in (3, 4, 6)] == [rested] * 3
    assert cursor_after(7) != rested


def test_every_minute_they_are_evaluated_for_what_depends_on_the_time(
    looks: Looks, monkeypatch: pytest.MonkeyPatch
) -> None:
    looks = Looks(looks.instance, on_complete_window(again="*/10 * * * *"))
    looks.look()
    assert looks.look() == (0, False)
    monkeypatch.setattr(time, "time", lambda: 1_700_000_100.0)
    assert looks.look() == (0, True)
