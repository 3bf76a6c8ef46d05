"""Each partition says which versions of its inputs it was made from; what lags behind them is found and asked for."""

import json
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest

from tests.conftest import QUIET
from tilth._dagster.asset_graph import graph_of
from tilth.automation.conditions import on_new_data
from tilth.automation.out_of_date import out_of_date
from tilth.automation.ranges import range_tags
from tilth.automation.reconciler import reconciler
from tilth.automation.sensor import automation_sensor
from tilth.versioning.explain import triggers
from tilth.versioning.inputs import INPUTS, OPTIONAL, REFERENCE
from tilth.versioning.partitions import set_data_versions

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-01-11")
HISTORY = dg.TimeWindowPartitionMapping(start_offset=-2, end_offset=-1, allow_nonexistent_upstream_partitions=True)
FIRST, SECOND, THIRD = "2013-01-01", "2013-01-02", "2013-01-03"
MINUTE, PATIENCE = 60, 180


@dataclass
class Chain:
    """`raw` from files → `clean` and `history` in one step → `features` of a day and two days of history → `summary`
    of all days. `lookup` is a reference table of features. The content of a day is that of its file.
    """

    instance: dg.DagsterInstance
    files: dict[str, str] = field(default_factory=dict)
    during: dict[str, Callable[[], object]] = field(default_factory=dict)
    cursors: dict[str, str | None] = field(default_factory=dict)
    said_of_history: Mapping[str, Any] | None = None

    def __post_init__(self) -> None:
        options: dict[str, Any] = {
            "partitions_def": DAYS,
            "backfill_policy": dg.BackfillPolicy.single_run(),
            "automation_condition": on_new_data(),
        }

        def content(context: dg.AssetExecutionContext, key: str) -> None:
            self.during.get(key, bool)()
            versions = {day: f"{key} of {self.files.get(day, 'nothing')}" for day in context.partition_keys}
            set_data_versions(context, dg.AssetKey(key), versions)

        @dg.asset(partitions_def=DAYS, backfill_policy=dg.BackfillPolicy.single_run())
        def raw(context: dg.AssetExecutionContext) -> None:
            content(context, "raw")
            for day in context.partition_keys:
                context.add_asset_metadata({"landed_file": f"{self.files[day]}.csv"}, partition_key=day)

        specs = [
            dg.AssetSpec(
                "clean", deps=["raw"], partitions_def=DAYS, automation_condition=options["automation_condition"]
            ),
            dg.AssetSpec(
                "history", deps=["clean"], partitions_def=DAYS, automation_condition=options["automation_condition"]
            ),
        ]

        @dg.multi_asset(specs=specs, backfill_policy=options["backfill_policy"], can_subset=True)
        def transformed(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult[Any]]:
            for key in ("clean", "history"):
                if dg.AssetKey(key) in context.selected_asset_keys:
                    content(context, key)
                    yield dg.MaterializeResult(asset_key=key)

        @dg.asset
        def lookup() -> None: ...

        history = dg.AssetDep("history", partition_mapping=HISTORY, metadata=self.said_of_history)

        @dg.asset(deps=["clean", history, dg.AssetDep("lookup", metadata=REFERENCE)], **options)
        def features(context: dg.AssetExecutionContext) -> None:
            content(context, "features")
            for day, causes in triggers(context, context.partition_keys, ["landed_file"]).items():
                context.add_asset_metadata({"triggered_by": causes}, partition_key=day)

        @dg.asset(deps=["features"], automation_condition=on_new_data())
        def summary() -> None:
            self.during.get("summary", bool)()

        self.assets = [raw, transformed, lookup, features, summary]
        everything = dg.AssetSelection.all()
        sensors = [
            automation_sensor("automation", everything, "All."),
            reconciler("reconciler", everything, patience_seconds=0),
            reconciler("patient", everything, patience_seconds=PATIENCE),
        ]
        self.definitions = dg.Definitions(assets=self.assets, sensors=sensors)

    def land(self, content: str, *days: str) -> None:
        self.files |= {day: f"{day} {content}" for day in days}

    def run(self, *keys: str, days: tuple[str, str] | None = (FIRST, THIRD)) -> bool:
        """One run over these assets and this range of days."""
        job = self.definitions.resolve_implicit_global_asset_job_def()
        return job.execute_in_process(
            QUIET,
            instance=self.instance,
            asset_selection=[dg.AssetKey(key) for key in keys],
            tags=range_tags(*days) if days else {},
            raise_on_error=False,
        ).success

    def metadata(self, key: str, partition: str | None, name: str) -> Any:
        """Of the latest materialization."""
        found = self.instance.fetch_materializations(
            dg.AssetRecordsFilter(dg.AssetKey(key), asset_partitions=[partition] if partition else None), limit=1
        )
        event = found.records[0].asset_materialization
        assert event is not None
        return event.metadata[name].value

    def asks(self, sensor: str) -> list[tuple[tuple[str, ...], str, str]]:
        """What a look of this sensor asks for: the assets, first and last partition of each request."""
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(self.instance, cursor=self.cursors.get(sensor), repository_def=repository)
        result = repository.get_sensor_def(sensor).evaluate_tick(context)
        self.cursors[sensor] = result.cursor
        tags = "dagster/asset_partition_range_"
        return sorted(
            (
                tuple(sorted(key.to_user_string() for key in request.asset_selection or [])),
                request.partition_key or request.tags.get(tags + "start", ""),
                request.partition_key or request.tags.get(tags + "end", ""),
            )
            for request in result.run_requests or []
        )


@pytest.fixture
def chain() -> Iterator[Chain]:
    with dg.DagsterInstance.ephemeral() as instance:
        chain = Chain(instance)
        chain.land("first", FIRST, SECOND, THIRD)
        assert chain.run("lookup", days=None)
        assert chain.run("raw", "clean", "history", "features")
        assert chain.run("summary", days=None)
        assert chain.asks("reconciler") == chain.asks("patient") == []
        yield chain


@pytest.fixture
def minutes(monkeypatch: pytest.MonkeyPatch) -> Callable[[int], Iterator[int]]:
    """Minutes that pass on the clock that a reconciler goes by, as many as are asked for."""
    clock = SimpleNamespace(now=1_000_000_000)
    monkeypatch.setattr("tilth.automation.reconciler.time", SimpleNamespace(time=lambda: clock.now))

    def passing(count: int) -> Iterator[int]:
        for minute in range(count):
            yield minute
            clock.now += MINUTE

    return passing


def test_a_day_carries_the_versions_of_what_it_reads_and_of_nothing_else(chain: Chain) -> None:
    assert chain.metadata("clean", SECOND, INPUTS) == {"raw": {SECOND: f"raw of {SECOND} first"}}
    inputs = chain.metadata("features", SECOND, INPUTS)
    assert inputs["clean"] == {SECOND: f"clean of {SECOND} first"}
    assert inputs["history"] == {FIRST: f"history of {FIRST} first"}
    assert list(inputs["lookup"]) == [""]
    assert list(chain.metadata("summary", None, INPUTS)["features"]) == [FIRST, SECOND, THIRD]


def test_what_the_same_step_makes_is_read_in_its_new_version(chain: Chain) -> None:
    chain.land("second", SECOND)
    assert chain.run("raw", "clean", "history", days=(SECOND, SECOND))
    assert chain.metadata("history", SECOND, INPUTS) == {"clean": {SECOND: f"clean of {SECOND} second"}}


def test_a_day_that_changed_is_asked_for_where_it_is_read_and_only_there(chain: Chain) -> None:
    chain.land("second", FIRST)
    assert chain.run("raw", "clean", "history", days=(FIRST, FIRST))
    assert chain.asks("reconciler") == [(("features",), FIRST, THIRD)]
    assert chain.run("features")
    assert chain.asks("reconciler") == [(("summary",), "", "")]
    assert chain.run("summary", days=None)
    assert chain.asks("reconciler") == []


def test_only_the_first_asset_that_lags_is_asked_for(chain: Chain) -> None:
    chain.land("second", SECOND)
    assert chain.run("raw", days=(SECOND, SECOND))
    assert chain.asks("reconciler") == [(("clean",), SECOND, SECOND)]


def test_a_day_that_was_never_made_is_asked_for_where_all_but_optional_inputs_are_there(chain: Chain) -> None:
    features, history = dg.AssetKey("features"), dg.AssetKey("history")
    chain.instance.wipe_assets([features, history])
    with_gaps = Chain(chain.instance, said_of_history=OPTIONAL)
    assert out_of_date(chain.instance, graph_of(chain.definitions), features, 0) == ({FIRST: 0}, set())
    assert out_of_date(chain.instance, graph_of(with_gaps.definitions), features, 0) == (
        {FIRST: 0, SECOND: 0, THIRD: 0},
        set(),
    )


def test_the_same_content_made_again_and_a_refreshed_reference_ask_for_nothing(chain: Chain) -> None:
    assert chain.run("raw", "clean", "history")
    assert chain.run("lookup", days=None)
    assert chain.asks("reconciler") == []


def test_a_day_that_changes_after_a_run_has_begun_is_asked_for_when_it_has_ended(chain: Chain) -> None:
    def meanwhile() -> None:
        chain.during.clear()
        chain.land("corrected", SECOND)
        assert chain.run("raw", "clean", "history", days=(SECOND, SECOND))
        assert chain.asks("reconciler") == []  # the day is being made

    chain.during["features"] = meanwhile
    chain.land("second", THIRD)
    assert chain.run("raw", "clean", "history", days=(THIRD, THIRD))
    assert chain.run("features", days=(SECOND, THIRD))
    assert chain.asks("reconciler") == [(("features",), SECOND, THIRD)]


def test_a_day_that_changes_while_nobody_looks_is_asked_for_though_the_conditions_were_reset(chain: Chain) -> None:
    """The race of `since`: the update and the request's run come between the same two looks."""
    chain.asks("automation")
    chain.land("second", SECOND)
    assert chain.run("raw", "clean", "history", days=(SECOND, SECOND))
    assert chain.run("features", days=(SECOND, THIRD))
    chain.land("third", SECOND)
    assert chain.run("raw", "clean", "history", days=(SECOND, SECOND))
    assert chain.run("lookup", days=None)
    assert (("features",), SECOND, THIRD) in chain.asks("reconciler")


def test_a_failed_day_is_not_tried_again_until_what_it_reads_changes(chain: Chain) -> None:
    chain.land("broken", THIRD)
    assert chain.run("raw", "clean", "history", days=(THIRD, THIRD))
    chain.during["features"] = lambda: 1 / 0
    assert not chain.run("features", days=(THIRD, THIRD))
    assert chain.asks("reconciler") == []
    assert chain.asks("reconciler") == []
    chain.land("repaired", THIRD)
    assert chain.run("raw", "clean", "history", days=(THIRD, THIRD))
    assert chain.asks("reconciler") == [(("features",), THIRD, THIRD)]


def test_a_day_that_was_never_made_is_asked_for_once_all_that_it_reads_is_there(chain: Chain) -> None:
    fourth = "2013-01-04"
    chain.land("first", fourth)
    assert chain.run("raw", days=(fourth, fourth))
    assert chain.asks("reconciler") == [(("clean",), fourth, fourth)]
    assert chain.run("clean", days=(fourth, fourth))
    # The features of a day read the history of the days before it.
    assert chain.asks("reconciler") == [(("features", "history"), fourth, fourth)]


def test_each_partition_waits_for_its_own_patience(chain: Chain, minutes: Callable[[int], Iterator[int]]) -> None:
    asked = {}
    for minute in minutes(7):
        if minute in (0, 2):
            chain.land("second", THIRD if minute == 0 else SECOND)
            assert chain.run("raw", "clean", "history", days=(SECOND, THIRD))
        if asks := chain.asks("patient"):
            asked[minute] = asks
    # Nothing was made of what was asked for.
    third, second = (("features",), THIRD, THIRD), (("features",), SECOND, SECOND)
    assert asked == {3: [third], 5: [second], 6: [third]}


def test_what_is_sent_again_every_minute_is_asked_for_once_in_a_patience_at_each_asset(
    chain: Chain, minutes: Callable[[int], Iterator[int]]
) -> None:
    asked: dict[str, list[int]] = {"features": [], "summary": []}
    for minute in minutes(17):
        chain.land(f"of minute {minute}", SECOND)
        assert chain.run("raw", "clean", "history", days=(SECOND, SECOND))
        for (key,), first, last in chain.asks("patient"):
            asked[key].append(minute)
            assert chain.run(key, days=(first, last) if first else None)
    # Each that was made is found out of date a minute later.
    assert asked == {"features": [3, 7, 11, 15], "summary": [8, 16]}


def test_what_a_condition_makes_again_meanwhile_begins_to_wait_anew(
    chain: Chain, minutes: Callable[[int], Iterator[int]]
) -> None:
    for minute in minutes(8):
        if minute % 3 == 2:
            assert chain.run("features")
        chain.land(f"of minute {minute}", SECOND)
        assert chain.run("raw", "clean", "history", days=(SECOND, SECOND))
        assert ("features",) not in [keys for keys, *_ in chain.asks("patient")]


@pytest.mark.parametrize(("made", "asked"), [(FIRST, [(("features",), THIRD, THIRD)]), (THIRD, [])])
def test_a_day_waits_while_what_it_reads_is_being_made_and_not_for_another_day(
    chain: Chain, made: str, asked: list[object]
) -> None:
    chain.land("second", THIRD)
    assert chain.run("raw", "clean", "history", days=(THIRD, THIRD))
    seen: list[object] = []
    chain.during["clean"] = lambda: seen.extend(chain.asks("reconciler"))
    assert chain.run("clean", days=(made, made))
    assert seen == asked
    assert chain.asks("reconciler") == [(("features",), THIRD, THIRD)]


def test_the_sensor_says_how_long_it_waits(chain: Chain) -> None:
    description = chain.definitions.get_repository_def().get_sensor_def("patient").description
    assert description
    assert "out of date for 180 s or longer" in description


def test_a_cursor_of_another_release_is_looked_past(chain: Chain) -> None:
    chain.land("second", FIRST)
    assert chain.run("raw", days=(FIRST, FIRST))
    unknown = [{"seen": "x"}, {"seen": 3, "watched": [1]}, {"seen": 10**6, "watched": {"features": 7.5}}]
    for cursor in ("", "7", "{}", *map(json.dumps, unknown)):
        chain.cursors["reconciler"] = cursor
        assert chain.asks("reconciler") == [(("clean",), FIRST, FIRST)]


def test_a_partition_says_what_set_it_off_back_to_the_files_that_landed(chain: Chain) -> None:
    first = chain.metadata("features", SECOND, "triggered_by")
    assert first["raw"] == {
        day: {"version": f"raw of {day} first", "landed_file": f"{day} first.csv"} for day in (FIRST, SECOND)
    }
    chain.land("corrected", FIRST)
    assert chain.run("raw", "clean", "history", days=(FIRST, FIRST))
    assert chain.run("features")
    assert chain.metadata("features", SECOND, "triggered_by") == {
        "clean": {FIRST: {"version": f"clean of {FIRST} corrected"}},
        "history": {FIRST: {"version": f"history of {FIRST} corrected"}},
        "raw": {FIRST: {"version": f"raw of {FIRST} corrected", "landed_file": f"{FIRST} corrected.csv"}},
    }
    assert chain.run("features")
    assert chain.metadata("features", SECOND, "triggered_by") == {}


def test_a_look_that_takes_too_long_goes_on_in_the_next_ticks_and_asks_for_the_same(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth.automation.reconciler.PART_SECONDS", -1.0)  # one asset a tick
    chain.land("second", FIRST)
    assert chain.run("raw", "clean", "history", days=(FIRST, FIRST))
    before, asked = chain.cursors["reconciler"], []
    for _ in range(20):
        asked += chain.asks("reconciler")
        if chain.cursors["reconciler"] != before:
            break
    assert asked == [(("features",), FIRST, THIRD)]


def test_what_was_made_between_two_ticks_of_a_look_is_not_asked_for(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth.automation.reconciler.PART_SECONDS", -1.0)
    chain.land("second", FIRST)
    assert chain.run("raw", "clean", "history", days=(FIRST, FIRST))
    for _ in range(4):  # clean, features, history and summary are judged
        assert chain.asks("reconciler") == []
    assert chain.run("features", days=(FIRST, SECOND))
    assert [asks for _ in range(4) for asks in chain.asks("reconciler")] == [(("features",), THIRD, THIRD)]
