"""A plan says what a backfill would be, by what past runs took, and starts nothing."""

import re
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import dagster as dg
import pytest

from tests.conftest import QUIET
from tilth.automation.ranges import range_tags
from tilth.observability import plan as command
from tilth.observability.past_runs import fitted
from tilth.observability.plan import plan

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2014-01-01")
MONTHS = dg.MonthlyPartitionsDefinition("2013-01", end_date="2014-01", fmt="%Y-%m")

together = dg.BackfillPolicy.single_run()


@dg.asset(partitions_def=DAYS, backfill_policy=together, group_name="days")
def landed(context: dg.AssetExecutionContext) -> None:
    """0.1 s, and 0.02 s a day."""
    time.sleep(0.1 + 0.02 * len(context.partition_keys))
    context.add_asset_metadata({"step/cpu_seconds": 7.2, "step/partitions": len(context.partition_keys)})


@dg.multi_asset(
    specs=[dg.AssetSpec(name, deps=["landed"], group_name="days") for name in ("cleaned", "joined")],
    partitions_def=DAYS,
    backfill_policy=together,
)
def transformed() -> dg.MaterializeResult: ...


@dg.asset(
    deps=["joined"],
    partitions_def=MONTHS,
    backfill_policy=dg.BackfillPolicy.multi_run(5),
    op_tags={"dagster-k8s/config": {"container_config": {"resources": {"limits": {"nvidia.com/gpu": "1"}}}}},
    group_name="months",
)
def model() -> None: ...


@dg.asset_check(asset="landed")
def has_rows() -> dg.AssetCheckResult:
    return dg.AssetCheckResult(passed=True)


@dg.asset(group_name="tables")
def table() -> None:
    time.sleep(0.05)


@dg.asset(deps=["table"], group_name="tables")
def summary() -> None:
    time.sleep(0.05)


@dg.asset(partitions_def=dg.StaticPartitionsDefinition(["a", "b"]), group_name="names")
def by_name() -> None: ...


outside = dg.AssetSpec("outside", group_name="elsewhere")

defs = dg.Definitions(
    [landed, transformed, model, table, summary, by_name, outside],
    asset_checks=[has_rows],
)
YEAR = ("2013-01-01", "2013-12-31")


SETTINGS = "telemetry: {enabled: false}\nconcurrency: {runs: {max_concurrent_runs: 2}}\n"


@pytest.fixture(scope="module")
def empty(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an instance without a past."""
    home = tmp_path_factory.mktemp("empty")
    (home / "dagster.yaml").write_text(SETTINGS)
    return home


@contextmanager
def instance_of(home: Path) -> Iterator[dg.DagsterInstance]:
    with pytest.MonkeyPatch.context() as environment:
        environment.setenv("DAGSTER_HOME", str(home))
        with dg.DagsterInstance.get() as instance:
            yield instance


@pytest.fixture(scope="module")
def past(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The home of an instance that has made a day, thirty days, five months and the tables."""
    home = tmp_path_factory.mktemp("past")
    (home / "dagster.yaml").write_text(SETTINGS)
    with instance_of(home) as instance:
        ran(instance, "landed", "2013-01-01", "2013-01-01")
        ran(instance, "landed", "2013-01-02", "2013-01-31")
        ran(instance, "model", "2013-01", "2013-05")
        ran(instance, "group:tables")
    return home


@pytest.fixture
def unused(empty: Path) -> Iterator[dg.DagsterInstance]:
    with instance_of(empty) as instance:
        yield instance


@pytest.fixture
def used(past: Path) -> Iterator[dg.DagsterInstance]:
    with instance_of(past) as instance:
        yield instance


@pytest.fixture
def call(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    """Call the command on a home's instance, and return what it prints."""

    def called(home: Path, *arguments: str) -> str:
        monkeypatch.setenv("DAGSTER_HOME", str(home))
        monkeypatch.setattr(sys, "argv", ["tilth.observability.plan", __name__, *arguments])
        command.main()
        return capsys.readouterr().out

    return called


def ran(instance: dg.DagsterInstance, selection: str, first: str = "", last: str = "") -> None:
    result = dg.materialize(
        [landed, transformed, model, table, summary, by_name],
        selection=selection,
        instance=instance,
        tags=range_tags(first, last) if first else {},
        run_config=QUIET,
    )
    assert result.success


def test_a_multi_asset_is_one_op_and_a_check_is_none(unused: dg.DagsterInstance) -> None:
    planned = plan(defs, unused, "group:days or group:months", YEAR)
    assert [(op.assets, op.partitions) for op in planned] == [
        (("landed",), 365),
        (("cleaned", "joined"), 365),
        (("model",), 12),
    ]


def test_a_year_takes_what_its_past_runs_say_of_a_start_and_of_each_day(used: dg.DagsterInstance) -> None:
    (op,) = plan(defs, used, "landed", YEAR)
    assert sorted(did.partitions for did in op.past) == [1, 30]
    takes = fitted([(did.partitions, did.seconds) for did in op.past])
    assert takes is not None
    assert op.seconds == takes(365)
    assert op.cpu_seconds == pytest.approx(7.2)


def test_what_is_made_in_several_runs_takes_its_start_in_each(used: dg.DagsterInstance) -> None:
    (op,) = plan(defs, used, "model", ("2013-01", "2013-12"))
    takes = fitted([(did.partitions, did.seconds) for did in op.past])
    assert takes is not None
    assert op.seconds == pytest.approx(2 * takes(5) + takes(2))


def test_what_no_past_run_made_is_unknown(used: dg.DagsterInstance) -> None:
    landed, transformed = plan(defs, used, "group:days", YEAR)
    assert landed.seconds is not None
    assert transformed.seconds is None
    assert transformed.cpu_seconds is None


def test_a_plan_starts_and_records_nothing(used: dg.DagsterInstance) -> None:
    runs, events = len(used.get_run_records()), used.event_log_storage.get_maximum_record_id()
    plan(defs, used, "group:days or group:months", YEAR)
    assert len(used.get_run_records()) == runs
    assert used.event_log_storage.get_maximum_record_id() == events
    assert not used.get_backfills()


def test_a_year_of_twenty_assets_is_planned_at_once(unused: dg.DagsterInstance) -> None:
    def daily(number: int) -> dg.AssetsDefinition:
        @dg.asset(name=f"asset_{number}", partitions_def=DAYS, deps=[f"asset_{number - 1}"] if number else [])
        def made() -> None: ...

        return made

    began = time.perf_counter()
    planned = plan(dg.Definitions([daily(number) for number in range(20)]), unused, "*", YEAR)
    assert [op.partitions for op in planned] == [365] * 20
    assert time.perf_counter() - began < 5


def test_the_command_prints_a_table_and_the_sums(past: Path, call: Callable[..., str]) -> None:
    year = ["--partition-range", "2013-01-01...2013-12-31"]
    lines = call(past, "--select", "group:days or group:months", *year, "--price-per-hour", "3000").splitlines()
    takes = r"(\d+\.\d s|\d+ s|\d+ min \d\d s)"
    expected = [
        r"assets +partitions  estimated +from past runs, of partitions",
        rf"landed +365 +{takes} +2, of 1 to 30",
        r"cleaned and 1 more +365 +unknown +none",
        rf"model +12 +{takes} +1, of 5",
        r"",
        rf"duration  at least {takes}, one step after another, and what runs take to start",
        r"cost      at least 0\.\d+ machine-hours, \d+\.\d\d at 3000 an hour; at least 0\.002 CPU-hours",
        r"unknown   cleaned, joined: no past run made them",
        r"Nothing was started\.",
    ]
    assert len(lines) == len(expected)
    for line, pattern in zip(lines, expected, strict=True):
        assert re.fullmatch(pattern, line), line


def test_assets_without_partitions_are_planned_without_a_range(empty: Path, call: Callable[..., str]) -> None:
    text = call(empty, "--select", "group:tables")
    assert "\nsummary  1 " in text
    assert "duration  unknown: no past run made any of these assets" in text


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0.04, "0.0 s"),
        (9.94, "9.9 s"),
        (59.4, "59 s"),
        (59.6, "1 min 00 s"),
        (3599, "59 min 59 s"),
        (5400, "1 h 30 min"),
    ],
)
def test_durations_are_said_in_the_units_of_their_size(seconds: float, text: str) -> None:
    assert command._time(seconds) == text


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            ["--select", "landed", "--partition", "2014-02-30"],
            r"landed has no partition '2014-02-30': it has 365, 2013-01-01 to 2013-12-31. Choose among those.",
        ),
        (
            ["--select", "landed", "--partition-range", "2013-12-01...2014-01-31"],
            r"landed has no partition '2014-01-31': it has 365, 2013-01-01 to 2013-12-31. Choose among those.",
        ),
        (
            ["--select", "landed", "--partition-range", "2013-03-01...2013-01-01"],
            r"landed: the range 2013-03-01...2013-01-01 ends before it begins; give the earlier partition first.",
        ),
        (
            ["--select", "landed"],
            r"landed has partitions: it has 365, 2013-01-01 to 2013-12-31. Say which one, or the first and "
            r"last of a range.",
        ),
        (
            ["--select", "group:tables", "--partition", "2013-01-01"],
            r"summary, table: nothing that is selected has partitions; leave '2013-01-01' out.",
        ),
        (
            ["--select", "key:landed or key:by_name", "--partition", "a"],
            r"The selection begins with by_name and landed, whose partitions are not the same, so that no range is for "
            r"both. Plan them, and backfill them, one after the other.",
        ),
        (
            ["--select", "group:dais", "--partition", "2013-01-01"],
            r"The selection 'group:dais' selects no asset that can be made. The groups are days, months, names, "
            r"tables; `dg list defs --assets '...'` tries a selection.",
        ),
        (["--select", "outside"], r"The selection 'outside' selects no asset that can be made. The groups are "),
        (["--select", "((("], r"The selection '(((' cannot be read ("),
        (["--select", "table or summary"], r"The selection 'table or summary' cannot be read ("),
        (["--select", "landde", "--partition", "2013-01-01"], r"The selection 'landde' cannot be read ("),
    ],
)
def test_an_error_names_the_asset_the_partition_and_the_next_step(
    empty: Path, call: Callable[..., str], arguments: list[str], message: str
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(empty, *arguments)
    assert str(ended.value.code).startswith(message)


def test_a_range_is_written_with_three_dots(
    empty: Path, call: Callable[..., str], capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as ended:
        call(empty, "--select", "landed", "--partition-range", "2013-01-01..2013-01-31")
    assert ended.value.code == 2
    assert "write FIRST...LAST, with three dots between" in capsys.readouterr().err
