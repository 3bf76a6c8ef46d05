"""What has been there for too long that an asset does not hold yet is told: since when, and because of what."""

import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from types import SimpleNamespace
from typing import Any

import dagster as dg
import pytest
from dagster._core.remote_origin import GrpcServerCodeLocationOrigin, RemoteJobOrigin, RemoteRepositoryOrigin
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.conftest import QUIET
from tilth._dagster.asset_graph import graph_of
from tilth.automation.conditions import on_new_data
from tilth.automation.ranges import range_tags
from tilth.automation.sensor import automation_sensor
from tilth.observability import freshness
from tilth.observability.freshness import partition_lag_checks
from tilth.versioning import inputs as input_versions
from tilth.versioning import recorded
from tilth.versioning.inputs import OPTIONAL, REFERENCE
from tilth.versioning.partitions import set_data_versions
from tilth.versioning.staleness import Late, late_partitions

DAYS = dg.DailyPartitionsDefinition("2013-01-30", end_date="2013-02-03")
MONTHS = dg.MonthlyPartitionsDefinition("2013-01", end_date="2013-03", fmt="%Y-%m")
HISTORY = dg.TimeWindowPartitionMapping(start_offset=-2, end_offset=-1, allow_nonexistent_upstream_partitions=True)
WHOLE = dg.TimeWindowPartitionMapping(allow_nonexistent_upstream_partitions=True)
FIRST, SECOND, THIRD, NEXT = DAYS.get_partition_keys()
JANUARY, FEBRUARY = "2013-01", "2013-02"
KEYS = ("features", "training_set", "model")
MINUTE, HOUR = 60, 3600
RATES = dg.AssetSelection.assets("rates")


@dataclass
class Chain:
    """`raw` from files → `clean`, with a `lookup` → `features` of a day and the `rates` of two days before it, which
    may be absent → `training_set` of a month → `model` of all months. The content of a day is that of its file.
    """

    instance: dg.DagsterInstance
    files: dict[str, str] = field(default_factory=dict)
    arrived: dict[str, float] = field(default_factory=dict)
    lookup_arrived: dict[str, float] = field(default_factory=dict)
    code: dict[str, str] = field(default_factory=dict)
    during: dict[str, Callable[[], object]] = field(default_factory=dict)
    cursor: str | None = None

    def __post_init__(self) -> None:
        self.checks, sensor = partition_lag_checks(
            [dg.AssetKey(key) for key in KEYS],
            waiting=lambda _: self.arrivals(),
        )
        self.definitions = dg.Definitions(
            assets=[
                self.asset("raw", DAYS),
                self.asset("lookup", None),
                self.asset("clean", DAYS, "raw", dg.AssetDep("lookup", metadata=REFERENCE)),
                self.asset("rates", DAYS, "clean"),
                self.asset(
                    "features", DAYS, "clean", dg.AssetDep("rates", partition_mapping=HISTORY, metadata=OPTIONAL)
                ),
                self.asset("training_set", MONTHS, dg.AssetDep("features", partition_mapping=WHOLE)),
                self.asset("model", None, "training_set"),
            ],
            asset_checks=self.checks,
            sensors=[sensor],
        )

        self.job = self.definitions.resolve_implicit_global_asset_job_def()

    def asset(self, key: str, partitions: dg.PartitionsDefinition | None, *deps: str | dg.AssetDep) -> Any:
        """Its content is that of the files of its partitions, made by its present code."""

        @dg.asset(
            key=key,
            deps=deps,
            partitions_def=partitions,
            backfill_policy=dg.BackfillPolicy.single_run(),
        )
        def body(context: dg.AssetExecutionContext) -> None:
            self.during.get(key, bool)()
            if key == "raw":
                for day in context.partition_keys:
                    self.arrived.pop(day, None)
            if partitions is not None:
                versions = {
                    p: f"{[self.files[day] for day in sorted(self.files) if day.startswith(p)]} {self.code.get(key)}"
                    for p in context.partition_keys
                }
                set_data_versions(context, dg.AssetKey(key), versions)

        return body

    def land(self, *days: str, content: str = "first") -> None:
        """Files of these days arrive."""
        self.files |= {day: f"{day} {content}" for day in days}
        self.arrived |= {day: time.time() for day in days}

    def arrivals(self) -> dict[dg.AssetKey, dict[str, float]]:
        return {dg.AssetKey("raw"): self.arrived, dg.AssetKey("lookup"): self.lookup_arrived}

    def run(self, *keys: str, partitions: tuple[str, ...] = (), checked: bool = False) -> dg.ExecuteInProcessResult:
        """One run over these assets and this partition, or from the first of these to the last; with their checks?"""
        selected = self.job.get_subset(
            asset_selection={dg.AssetKey(key) for key in keys}, asset_check_selection=None if checked else set()
        )
        return selected.execute_in_process(
            QUIET,
            instance=self.instance,
            tags=range_tags(partitions[0], partitions[-1]) if partitions else {},
            raise_on_error=False,
        )

    def make(self, *keys: str, partitions: tuple[str, ...] = ()) -> None:
        """As `run`, of what must succeed."""
        assert self.run(*keys, partitions=partitions).success

    def made_at(self, key: str, partition: str | None = None) -> float:
        """When the latest materialization was recorded."""
        found = dg.AssetRecordsFilter(dg.AssetKey(key), asset_partitions=[partition] if partition else None)
        return self.instance.fetch_materializations(found, limit=1).records[0].timestamp

    def late(self, key: str, ignored: dg.AssetSelection | None = None) -> dict[str, Late]:
        """The late partitions of an asset, judged without any memory."""
        graph, asset = graph_of(self.definitions), dg.AssetKey(key)
        return late_partitions(self.instance, graph, [asset], self.arrivals(), ignored)[asset]

    def tick(self) -> dict[str, dg.AssetCheckEvaluation]:
        """What a look of the sensor tells, by asset, reported as by the daemon."""
        repository = self.definitions.get_repository_def()
        context = dg.build_sensor_context(self.instance, cursor=self.cursor, repository_def=repository)
        result = repository.get_sensor_def("partition_lag").evaluate_tick(context)
        self.cursor = result.cursor or self.cursor
        told: list[Any] = list(result.asset_events)
        for event in told:
            self.instance.report_runless_asset_event(event)
        return {event.asset_key.to_user_string(): event for event in told}

    def judge(self, key: str) -> dg.AssetCheckEvaluation:
        """What a first look of the sensor tells of an asset."""
        self.cursor = None
        return self.tick()[key]


class Clock:
    """The clock that partition lag goes by, so many seconds ahead."""

    ahead = 0.0

    def time(self) -> float:
        return time.time() + self.ahead


@pytest.fixture
def clock(monkeypatch: pytest.MonkeyPatch) -> Clock:
    clock = Clock()
    monkeypatch.setattr(freshness, "time", SimpleNamespace(time=clock.time))
    return clock


@pytest.fixture
def chain() -> Iterator[Chain]:
    """Of January's two days and the first of February all is made, as far as it can be."""
    with dg.DagsterInstance.ephemeral() as instance:
        chain = Chain(instance)
        chain.land(FIRST, SECOND, THIRD)
        chain.make("lookup")
        chain.make("raw", "clean", "rates", "features", partitions=(FIRST, THIRD))
        chain.make("training_set", partitions=(JANUARY,))
        yield chain


def state(evaluation: dg.AssetCheckEvaluation) -> str:
    return "passed" if evaluation.passed else evaluation.severity.value


def metadata(evaluation: dg.AssetCheckEvaluation) -> dict[str, Any]:
    return {name: value.value for name, value in evaluation.metadata.items()}


def test_what_holds_all_that_has_come_passes(chain: Chain) -> None:
    for key in KEYS:
        told = chain.judge(key)
        assert (told.passed, told.description) == (True, "It holds all that has come.")
        assert metadata(told) == {"lag_seconds": 0, "late_partitions": 0}


def test_a_file_that_waits_is_a_warning_and_then_an_error(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    seen = []
    for ahead in (0, 9 * MINUTE, 10 * MINUTE, 59 * MINUTE, HOUR):
        clock.ahead = ahead
        seen.append(state(chain.judge("features")))
    assert seen == ["passed", "passed", "WARN", "WARN", "ERROR"]


def test_the_lag_is_in_seconds_since_the_arrival_and_names_what_was_never_asked_for(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    clock.ahead = 12 * MINUTE
    told = chain.judge("features")
    when = datetime.fromtimestamp(chain.arrived[NEXT], UTC)
    assert told.description == (
        f"late because raw {NEXT} was never requested; 1 partition waits, since {when:%Y-%m-%d %H:%M} UTC"
    )
    assert metadata(told) == {
        "lag_seconds": pytest.approx(12 * MINUTE, abs=5),
        "late_partitions": 1,
        "oldest": NEXT,
        "cause_asset": dg.AssetKey("raw"),
        "cause_partition": NEXT,
    }
    assert chain.tick() == {}


def test_a_failed_upstream_is_named_with_its_run(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    chain.during["clean"] = lambda: 1 / 0
    failed = chain.run("raw", "clean", "rates", "features", partitions=(NEXT,))
    clock.ahead = 12 * MINUTE
    told = chain.judge("features")
    assert told.description
    assert told.description.startswith(
        f"late because clean {NEXT} failed 12 min ago in run {failed.run_id[:8]}; 1 partition waits, since"
    )
    assert metadata(told)["run"] == failed.run_id
    assert metadata(chain.judge("training_set"))["cause_asset"] == dg.AssetKey("clean")


def test_what_failed_before_its_file_was_sent_again_was_not_asked_for(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    chain.during["raw"] = lambda: 1 / 0
    assert not chain.run("raw", partitions=(NEXT,)).success
    clock.ahead = 12 * MINUTE
    assert f"raw {NEXT} failed" in (chain.judge("features").description or "")
    chain.land(NEXT, content="corrected")
    assert f"raw {NEXT} was never requested" in (chain.judge("features").description or "")


def test_what_is_being_made_or_waits_in_the_queue_is_named_with_its_run(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    clock.ahead = 12 * MINUTE
    seen = []
    chain.during["clean"] = lambda: seen.append(chain.judge("features"))
    run = chain.run("raw", "clean", partitions=(NEXT,))
    assert f"clean {NEXT} is being made in run {run.run_id[:8]};" in (seen[0].description or "")
    repository = RemoteRepositoryOrigin(GrpcServerCodeLocationOrigin("localhost", 4000), "any")
    queued = chain.instance.create_run_for_job(
        chain.job,
        status=dg.DagsterRunStatus.QUEUED,
        asset_selection=frozenset([dg.AssetKey("features")]),
        tags={"dagster/partition": NEXT},
        remote_job_origin=RemoteJobOrigin(repository, chain.job.name),
    )
    told = chain.judge("features")
    assert f"features {NEXT} waits in the queue in run {queued.run_id[:8]};" in (told.description or "")
    assert metadata(told)["run"] == queued.run_id


def test_an_asset_without_partitions_is_named_with_the_run_in_which_it_failed(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    chain.make("raw", "clean", "rates", "features", partitions=(NEXT,))
    chain.make("training_set", partitions=(FEBRUARY,))
    clock.ahead = 12 * MINUTE
    assert "because model was never requested; 1 partition waits" in (chain.judge("model").description or "")
    chain.during["model"] = lambda: 1 / 0
    failed = chain.run("model")
    assert f"because model failed 12 min ago in run {failed.run_id[:8]};" in (chain.judge("model").description or "")
    chain.during.clear()
    chain.make("model")
    assert chain.judge("model").passed


def test_an_old_day_that_is_sent_again_makes_late_whatever_reads_it(chain: Chain, clock: Clock) -> None:
    chain.land(FIRST, content="corrected")
    assert set(chain.late("features")) == {FIRST, SECOND, THIRD}
    assert set(chain.late("training_set")) == {JANUARY}
    chain.make("raw", "clean", "rates", partitions=(FIRST,))
    assert {day: one.cause for day, one in chain.late("features").items()} == {
        day: (dg.AssetKey("features"), day) for day in (FIRST, SECOND, THIRD)
    }
    clock.ahead = 12 * MINUTE
    assert f"features {FIRST} was not requested since; 3 partitions wait" in (chain.judge("features").description or "")
    chain.make("features", partitions=(FIRST, THIRD))
    assert chain.judge("features").passed
    assert metadata(chain.judge("training_set"))["cause_asset"] == dg.AssetKey("training_set")


def test_the_same_content_made_again_and_a_refreshed_reference_make_nothing_late(chain: Chain) -> None:
    chain.make("lookup")
    for key in ("raw", "clean", "rates"):
        chain.make(key, partitions=(FIRST, THIRD))
        assert [chain.late(key) for key in ("features", "training_set")] == [{}, {}]


def test_a_month_whose_days_have_not_all_come_waits_for_data_and_is_not_late(chain: Chain) -> None:
    assert chain.late("training_set") == {}
    chain.land(NEXT)
    assert chain.late("training_set") == {FEBRUARY: Late(chain.arrived[NEXT], (dg.AssetKey("raw"), NEXT))}


def test_a_missing_month_is_late_since_its_last_day_came_whatever_is_sent_again_later(chain: Chain) -> None:
    chain.land(NEXT)
    chain.make("raw", "clean", "rates", "features", partitions=(NEXT,))
    expected = {FEBRUARY: Late(chain.made_at("raw", NEXT), (dg.AssetKey("training_set"), FEBRUARY))}
    assert chain.late("training_set") == expected
    chain.land(THIRD, content="corrected")
    chain.make("raw", "clean", "rates", "features", partitions=(THIRD, NEXT))
    assert chain.late("training_set") == expected


@pytest.mark.parametrize("looked_through", [20, 1])
def test_a_step_forward_does_not_start_the_lag_anew(
    chain: Chain, monkeypatch: pytest.MonkeyPatch, looked_through: int
) -> None:
    monkeypatch.setattr(recorded, "_HISTORY", looked_through)
    chain.land(SECOND, content="corrected")
    chain.make("raw", partitions=(SECOND,))
    since = chain.made_at("raw", SECOND)
    chain.make("raw", partitions=(SECOND,))  # the same again
    for key, made in (("clean", "features"), ("features", "training_set")):
        chain.make(key, partitions=(SECOND,))
        assert {one.since for one in chain.late(made).values()} == {since}
        chain.make(key, partitions=(SECOND,))
        assert {one.since for one in chain.late(made).values()} == {since}


def test_of_a_window_of_which_one_hash_is_kept_the_lag_counts_from_what_came_last(
    chain: Chain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(input_versions, "LISTED", 1)
    chain.make("training_set", partitions=(JANUARY,))
    assert chain.late("training_set") == {}
    chain.land(FIRST, content="corrected")
    chain.make("raw", "clean", "rates", partitions=(FIRST,))
    chain.make("features", partitions=(FIRST, THIRD))
    assert chain.late("training_set") == {
        JANUARY: Late(chain.made_at("raw", FIRST), (dg.AssetKey("training_set"), JANUARY))
    }


def test_of_what_new_code_made_the_lag_counts_from_then_and_not_from_the_arrival_of_its_old_inputs(
    chain: Chain,
) -> None:
    chain.code["features"] = "second"
    chain.make("features", partitions=(SECOND,))
    assert chain.late("training_set") == {
        JANUARY: Late(chain.made_at("features", SECOND), (dg.AssetKey("training_set"), JANUARY))
    }


def test_an_optional_upstream_that_is_not_there_holds_nothing_back_and_one_that_comes_later_makes_late(
    chain: Chain,
) -> None:
    chain.land(NEXT)
    chain.make("raw", "clean", partitions=(NEXT,))
    assert set(chain.late("features")) == {NEXT}
    chain.instance.wipe_assets([dg.AssetKey("rates")])
    chain.make("rates", partitions=(NEXT,))
    chain.make("features", partitions=(FIRST, NEXT))
    assert {day: one.cause for day, one in chain.late("features").items()} == {
        day: (dg.AssetKey("rates"), missing) for missing, day in ((FIRST, SECOND), (FIRST, THIRD), (SECOND, NEXT))
    }
    chain.make("rates", partitions=(FIRST, THIRD))
    assert {day: one.cause for day, one in chain.late("features").items()} == {
        day: (dg.AssetKey("features"), day) for day in (SECOND, THIRD, NEXT)
    }


def test_an_upstream_that_is_ignored_makes_nothing_late_whether_it_waits_or_comes(
    chain: Chain,
) -> None:
    chain.instance.wipe_assets([dg.AssetKey("rates")])
    assert set(chain.late("features")) == {SECOND, THIRD}
    assert chain.late("features", RATES) == {}
    chain.code["rates"] = "another"
    chain.make("rates", partitions=(FIRST, THIRD))
    assert set(chain.late("features")) == {SECOND, THIRD}
    assert chain.late("features", RATES) == {}
    chain.land(NEXT)
    assert set(chain.late("features", RATES)) == {NEXT}


def test_what_a_partition_needs_and_is_not_there_and_will_not_come_holds_it_back(chain: Chain) -> None:
    chain.land(NEXT)
    assert set(chain.late("features")) == {NEXT}
    chain.instance.wipe_assets([dg.AssetKey("lookup")])
    assert chain.late("features") == {}


def test_a_reference_that_waits_makes_late_only_what_was_never_made_for_the_lack_of_it(chain: Chain) -> None:
    since = chain.lookup_arrived[""] = time.time()
    assert chain.late("features") == {}
    chain.instance.wipe_assets([dg.AssetKey("lookup")])
    chain.land(NEXT)
    del chain.arrived[NEXT]
    assert chain.late("features") == {}
    chain.make("raw", partitions=(NEXT,))
    late = Late(chain.made_at("raw", NEXT), (dg.AssetKey("lookup"), ""))
    assert since < late.since
    assert chain.late("features") == {NEXT: late}


def test_a_recovered_asset_passes_again(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    clock.ahead = 12 * MINUTE
    assert state(chain.tick()["features"]) == "WARN"
    chain.make("raw", "clean", "rates", "features", partitions=(NEXT,))
    told = chain.tick()
    assert state(told["features"]) == "passed"
    chain.make("training_set", partitions=(FEBRUARY,))
    assert state(chain.tick()["training_set"]) == "passed"


def test_the_sensor_tells_only_what_is_new(chain: Chain, clock: Clock) -> None:
    assert {key: state(told) for key, told in chain.tick().items()} == dict.fromkeys(KEYS, "passed")
    assert chain.tick() == {}
    chain.land(NEXT)
    assert chain.tick() == {}
    clock.ahead = 9 * MINUTE
    assert chain.tick() == {}
    clock.ahead = 11 * MINUTE
    assert {state(told) for told in chain.tick().values()} == {"WARN"}
    clock.ahead = 12 * MINUTE
    assert chain.tick() == {}
    chain.make("raw", partitions=(NEXT,))  # the cause is another
    assert {metadata(told)["cause_asset"].to_user_string() for told in chain.tick().values()} <= {"clean"}
    clock.ahead = 2 * HOUR
    assert {state(told) for told in chain.tick().values()} == {"ERROR"}
    assert chain.tick() == {}


def test_nothing_is_looked_at_while_nothing_happens_and_nothing_is_due(chain: Chain, clock: Clock) -> None:
    def skipped() -> bool:
        before = chain.cursor
        assert chain.tick() == {}
        return chain.cursor == before

    chain.land(NEXT)
    chain.tick()
    assert not skipped()  # what it told is in the event log
    assert skipped()
    clock.ahead = 9 * MINUTE
    assert skipped()
    chain.land(NEXT, content="corrected")
    assert not skipped()
    assert skipped()
    clock.ahead = 8 * MINUTE
    assert not skipped()  # the clock was set back


def test_a_clock_that_was_set_back_makes_no_lag_negative(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    clock.ahead = -HOUR
    told = chain.judge("features")
    assert told.passed
    assert metadata(told)["lag_seconds"] == 0
    chain.during["raw"] = lambda: 1 / 0
    chain.run("raw", partitions=(NEXT,))
    chain.land(NEXT)
    assert metadata(chain.judge("features"))["lag_seconds"] == 0


def test_a_cursor_of_another_release_is_looked_past(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    clock.ahead = HOUR
    for cursor in ("", "7", "{}", '{"seen": "x"}', '{"seen":1,"arrived":"","looked":0,"due":0,"told":[1]}'):
        chain.cursor = cursor
        assert {state(told) for told in chain.tick().values()} == {"ERROR"}


def test_a_check_that_is_executed_in_a_run_says_what_the_sensor_says(chain: Chain, clock: Clock) -> None:
    chain.land(NEXT)
    clock.ahead = 12 * MINUTE
    told = {key: chain.judge(key) for key in KEYS}
    executed = chain.run("features", partitions=(THIRD,), checked=True).get_asset_check_evaluations()
    by_hand = next(result for result in executed if result.check_name == "partition_lag")
    for check in chain.checks:
        selected = chain.job.get_subset(asset_selection=set(), asset_check_selection=set(check.check_keys))
        [alone] = selected.execute_in_process(QUIET, instance=chain.instance).get_asset_check_evaluations()
        of_sensor = told[alone.asset_key.to_user_string()]
        for executed in [alone, by_hand] if alone.asset_key == by_hand.asset_key else [alone]:
            assert (state(executed), executed.description) == (state(of_sensor), of_sensor.description)
            assert {**metadata(executed), "lag_seconds": 0} == {**metadata(of_sensor), "lag_seconds": 0}
            assert metadata(executed)["lag_seconds"] == pytest.approx(12 * MINUTE, abs=10)
            assert executed.blocking is False


def test_the_runs_that_automation_asks_for_leave_the_check_to_the_sensor() -> None:
    @dg.asset(partitions_def=DAYS)
    def raw() -> None: ...

    @dg.asset(deps=["raw"], partitions_def=DAYS, automation_condition=on_new_data())
    def features() -> None: ...

    @dg.asset_check(asset="features")
    def has_rows() -> dg.AssetCheckResult:
        return dg.AssetCheckResult(passed=True)

    checks, _ = partition_lag_checks([features.key])
    automation = automation_sensor("automation", dg.AssetSelection.all(), "All.")
    repository = dg.Definitions(
        assets=[raw, features], asset_checks=[*checks, has_rows], sensors=[automation]
    ).get_repository_def()

    with dg.DagsterInstance.ephemeral() as instance:

        def asked(cursor: str | None = None) -> Any:
            context = dg.build_sensor_context(instance, cursor=cursor, repository_def=repository)
            return repository.get_sensor_def("automation").evaluate_tick(context)

        looked = asked()
        assert dg.materialize([raw], instance=instance, partition_key=FIRST, run_config=QUIET).success
        [request] = asked(looked.cursor).run_requests or []
    assert request.asset_selection == [features.key]
    assert request.asset_check_keys == [dg.AssetCheckKey(features.key, "has_rows")]


def test_what_is_remembered_of_one_event_log_is_not_said_of_another(chain: Chain) -> None:
    chain.land(NEXT)
    assert chain.judge("features").metadata["late_partitions"].value == 1
    with dg.DagsterInstance.ephemeral() as chain.instance:
        assert chain.judge("features").metadata["late_partitions"].value == 0  # its lookup was never made


def test_what_cannot_be_meant_is_refused(chain: Chain) -> None:
    with pytest.raises(ValueError, match="warn='1h' is not shorter than fail='30m'"):
        partition_lag_checks([], warn="1h", fail="30m")
    with pytest.raises(ValueError, match="whole number above zero"):
        partition_lag_checks([], warn="soon")
    with pytest.raises(ValueError, match="Partition lag of misspelled: the definitions hold no such asset"):
        late_partitions(chain.instance, graph_of(chain.definitions), [dg.AssetKey("misspelled")], {})


@dataclass
class Naive:
    """`raw` from files → `pair` of a day and the day before it → `total` of all days, as plain dictionaries.

    A version is content, or what it is made of, without its last letter: not every change goes on.
    """

    waiting: dict[str, str] = field(default_factory=dict)
    made: dict[str, dict[str, str]] = field(default_factory=lambda: {"raw": {}, "pair": {}, "total": {}})
    inputs: dict[tuple[str, str], dict[str, str] | None] = field(default_factory=dict)

    def read(self, key: str, partition: str) -> tuple[str, list[str]]:
        if key == "total":
            return "pair", DAYS.get_partition_keys()
        return "raw", [day for day in DAYS.get_partition_keys() if day <= partition][-2:]

    def present(self, key: str, partition: str) -> dict[str, str]:
        parent, parts = self.read(key, partition)
        return {p: self.made[parent][p] for p in parts if p in self.made[parent]}

    def make(self, key: str, partition: str) -> str:
        if key == "raw":
            self.made[key][partition] = self.waiting.pop(partition, self.made[key].get(partition, ""))
        else:
            present = self.present(key, partition)
            self.inputs[key, partition] = present if self.made[self.read(key, partition)[0]] else None
            self.made[key][partition] = " ".join(f"{p}:{version[:-1]}" for p, version in present.items()) + "."
        return self.made[key][partition]

    def late(self, key: str, partition: str) -> bool:
        if key == "raw":
            return partition in self.waiting
        parent, parts = self.read(key, partition)
        above = [p for p in parts if self.late(parent, p)]
        if any(p not in self.made[parent] and p not in above for p in parts):
            return False
        before = self.inputs.get((key, partition))
        made_of_others = before is not None and before != self.present(key, partition)
        return bool(above) or partition not in self.made[key] or made_of_others


CHANGES = st.one_of(
    st.tuples(st.just("land"), st.sampled_from(DAYS.get_partition_keys()), st.sampled_from(["a1", "a2", "b1"])),
    st.tuples(st.sampled_from(["raw", "pair", "total"]), st.sampled_from(DAYS.get_partition_keys()), st.none()),
    st.tuples(st.sampled_from(["raw", "pair"]), st.none(), st.none()),
)


@settings(max_examples=12)
@given(st.lists(CHANGES, min_size=4, max_size=8))
def test_whatever_lands_and_is_made_in_whichever_order_what_is_late_is_what_a_naive_model_says(
    changes: list[tuple[str, str | None, str | None]],
) -> None:
    naive = Naive()

    def asset(key: str, partitions: dg.PartitionsDefinition | None, *deps: dg.AssetDep) -> Any:
        @dg.asset(key=key, deps=deps, partitions_def=partitions, backfill_policy=dg.BackfillPolicy.single_run())
        def body(context: dg.AssetExecutionContext) -> Any:
            if partitions is None:
                return dg.MaterializeResult(data_version=dg.DataVersion(naive.make(key, "")))
            set_data_versions(context, dg.AssetKey(key), {p: naive.make(key, p) for p in context.partition_keys})
            return dg.MaterializeResult()

        return body

    both = dg.TimeWindowPartitionMapping(start_offset=-1, allow_nonexistent_upstream_partitions=True)
    assets = [asset("raw", DAYS), asset("pair", DAYS, dg.AssetDep("raw", partition_mapping=both))]
    assets.append(asset("total", None, dg.AssetDep("pair")))
    watched = {"pair": DAYS.get_partition_keys(), "total": [""]}
    _, sensor = partition_lag_checks(
        [dg.AssetKey(key) for key in watched],
        waiting=lambda _: {dg.AssetKey("raw"): dict.fromkeys(naive.waiting, time.time())},
    )
    definitions = dg.Definitions(assets=assets, sensors=[sensor])
    repository, job = definitions.get_repository_def(), definitions.resolve_implicit_global_asset_job_def()
    with dg.DagsterInstance.ephemeral() as instance:
        for what, day, content in changes:
            if what == "land":
                naive.waiting[str(day)] = str(content)
            else:
                first, last = (day, day) if day else (FIRST, NEXT)
                days = [p for p in DAYS.get_partition_keys() if first <= p <= last]
                if what == "raw" and not all(p in naive.waiting or p in naive.made["raw"] for p in days):
                    continue
                tags = {} if what == "total" else range_tags(first, last)
                made = job.execute_in_process(QUIET, instance=instance, asset_selection=[dg.AssetKey(what)], tags=tags)
                assert made.success
            context = dg.build_sensor_context(instance, repository_def=repository)
            for told in repository.get_sensor_def("partition_lag").evaluate_tick(context).asset_events:
                assert isinstance(told, dg.AssetCheckEvaluation)
                key, said = told.asset_key.to_user_string(), metadata(told)
                expected = {p for p in watched[key] if naive.late(key, p)}
                assert set(said["oldest"].split(", ") if said["late_partitions"] else []) == expected
                if expected:
                    cause, partition = said["cause_asset"].to_user_string(), said["cause_partition"]
                    assert naive.late(cause, partition)
                    parent, parts = naive.read(cause, partition) if cause != "raw" else ("raw", [])
                    assert not any(naive.late(parent, p) for p in parts)
