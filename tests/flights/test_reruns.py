"""In whatever order days come and however often they are made, the tables are the same; what fails keeps its rows."""

import gzip
import importlib.util
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import dagster as dg
import pandas as pd
import pytest

from assets.flights import dbt_models, replay
from resources.dbt import Dbt
from tests.conftest import QUIET
from tests.example import DAILY_DBT, DAILY_RAW, FEATURES, MODELS, SCORED, Platform, copied
from tests.signals_in_dbt import signal_after
from tilth.automation.ranges import range_tags

FIRST, MIDDLE, LAST = DAYS = ["2013-01-30", "2013-01-31", "2013-02-01"]
DAILY = [*DAILY_RAW, *DAILY_DBT, *FEATURES]
IN_WAREHOUSE = ["raw.flights", "raw.weather", "marts.departures", "marts.daily_lateness"]
IN_LAKE = ["features/departures", "predictions/delays", "reports/prediction_quality"]


@pytest.fixture(scope="module")
def in_pieces(with_reference: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Each day was made alone, the middle one late; then the last one's features again, and January's models on it."""
    with copied(with_reference, tmp_path_factory.mktemp("in_pieces")) as platform:
        for day in (FIRST, LAST, MIDDLE):
            platform.land(day)
            platform.make(DAILY, day)
        platform.make(FEATURES, LAST)
        platform.make([["features", "training_set"]], "2013-01")
        platform.make(MODELS, "2013-01|EWR", "2013-01|LGA")
        platform.make([["models", "in_service"]], "2013-02|EWR", "2013-02|LGA")
        platform.make(SCORED, LAST)
        yield platform


@pytest.fixture
def copy(in_pieces: Platform, tmp_path: Path) -> Iterator[Platform]:
    """A copy of `in_pieces` that a test may change."""
    with copied(in_pieces.deployment.home, tmp_path) as platform:
        yield platform


@pytest.fixture(scope="module")
def resent(in_pieces: Platform, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Platform]:
    """Of the middle day every third flight came again, of the last day none, and all were made again as a range."""
    with copied(in_pieces.deployment.home, tmp_path_factory.mktemp("resent")) as platform:
        send(platform, MIDDLE, lines(platform, MIDDLE)[::3])
        send(platform, LAST, [])
        platform.make([*DAILY_RAW, *DAILY_DBT], FIRST, LAST, accept={"flights": "the airlines say so"})
        platform.make(FEATURES, FIRST, MIDDLE)
        platform.materialize([*FEATURES, *SCORED], LAST)
        yield platform


def lines(platform: Platform, day: str) -> list[bytes]:
    """The flights of the day's landed file, without its header."""
    return gzip.decompress(platform.landing.read("flights", f"{day}.csv.gz")).splitlines(keepends=True)[1:]


def send(platform: Platform, day: str, flights: list[bytes]) -> None:
    header = replay.record("flights").splitlines(keepends=True)[0]
    platform.landing.put("flights", f"{day}.csv.gz", gzip.compress(header + b"".join(flights)))


def table(platform: Platform, name: str, *days: str) -> pd.DataFrame:
    """What a table holds of these days: the warehouse's rows in sorted order, the lake's as they are stored."""
    if name in IN_WAREHOUSE:
        column = "observation_date" if name == "raw.weather" else "flight_date"
        rows = platform.rows(name)
        return rows[rows[column].astype(str).isin(days)].reset_index(drop=True)
    return platform.lake.read(name, days).to_pandas()


def assert_equal(one: Platform, other: Platform, names: list[str], *days: str) -> None:
    for name in names:
        rows = table(one, name, *days)
        assert len(rows) > 0
        pd.testing.assert_frame_equal(table(other, name, *days), rows, check_exact=True, obj=name)


def errors(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure)


def test_a_late_day_leaves_the_same_tables(with_reference: Path, in_pieces: Platform, tmp_path: Path) -> None:
    with copied(with_reference, tmp_path) as at_once:
        at_once.land(FIRST, LAST)
        at_once.make(DAILY, FIRST, LAST)
        assert_equal(at_once, in_pieces, [*IN_WAREHOUSE, "features/departures"], *DAYS)


def test_a_day_made_alone_and_then_in_a_range_is_the_same(in_pieces: Platform, resent: Platform) -> None:
    assert_equal(in_pieces, resent, [*IN_WAREHOUSE, "features/departures"], FIRST)


def test_a_day_made_twice_has_the_same_rows_and_data_versions(in_pieces: Platform, copy: Platform) -> None:
    keys = [*DAILY_RAW, *FEATURES, *SCORED]
    copy.make(keys, LAST)

    assert [copy.data_version(key, LAST) for key in keys] == [in_pieces.data_version(key, LAST) for key in keys]
    assert_equal(in_pieces, copy, ["raw.flights", "raw.weather", *IN_LAKE], *DAYS)


def test_a_day_sent_again_with_fewer_rows_holds_exactly_those(in_pieces: Platform, resent: Platform) -> None:
    flights = table(resent, "raw.flights", MIDDLE)

    assert 0 < len(flights) == len(lines(in_pieces, MIDDLE)[::3])
    assert len(flights.merge(table(in_pieces, "raw.flights", MIDDLE))) == len(flights)
    for name in ("marts.departures", "features/departures"):
        assert len(table(resent, name, MIDDLE)) == len(flights)
    lateness = table(resent, "marts.daily_lateness", MIDDLE).query("dimension == 'origin'")
    assert lateness["arrivals"].sum() == flights["arr_delay"].notna().sum()


@pytest.mark.parametrize("name", [name for name in [*IN_WAREHOUSE, *IN_LAKE] if name != "raw.weather"])
def test_a_day_sent_again_without_rows_leaves_none_of_it(in_pieces: Platform, resent: Platform, name: str) -> None:
    assert len(table(in_pieces, name, LAST)) > 0
    assert len(table(resent, name, LAST)) == 0
    # Whoever emptied it says so: a person by the raw day's acceptance, the other assets themselves.
    recorded = resent.latest(name.replace(".", "/").split("/"), LAST)
    assert recorded
    assert {"emptied_of_rows", "accepted"} & recorded.metadata.keys()


def test_beside_a_broken_file_the_other_days_are_stored_and_recorded(in_pieces: Platform, copy: Platform) -> None:
    for day in (FIRST, LAST):
        send(copy, day, lines(copy, day)[1:])
    copy.landing.put("flights", f"{MIDDLE}.csv.gz", copy.landing.read("flights", f"{MIDDLE}.csv.gz")[:-50])
    result = copy.materialize([*DAILY_RAW, *DAILY_DBT], FIRST, LAST)

    assert f"{MIDDLE}.csv.gz: its gzip is damaged or cut short" in errors(result)
    for day in (FIRST, LAST):
        recorded = copy.latest(["raw", "flights"], day)
        assert recorded
        assert recorded.metadata["dagster/partition_row_count"].value == len(lines(copy, day))
        assert len(table(copy, "raw.flights", day)) == len(lines(copy, day))
    assert copy.latest(["raw", "flights"], MIDDLE) == in_pieces.latest(["raw", "flights"], MIDDLE)
    assert_equal(in_pieces, copy, ["raw.flights"], MIDDLE)


def test_a_missing_file_is_named_and_the_rest_stored(with_reference: Path, in_pieces: Platform, tmp_path: Path) -> None:
    with copied(with_reference, tmp_path) as platform:
        platform.land(FIRST)
        platform.land(LAST)
        result = platform.materialize(DAILY_RAW, FIRST, LAST)

        for name in ("flights", "weather"):
            assert f"nothing has landed at {platform.landing.path_of(name, f'{MIDDLE}.csv.gz')}" in errors(result)
            assert_equal(in_pieces, platform, [f"raw.{name}"], FIRST, LAST)
            assert len(table(platform, f"raw.{name}", MIDDLE)) == 0


def test_a_rejected_row_that_comes_again_correctly_is_a_row(in_pieces: Platform, copy: Platform) -> None:
    original = lines(copy, LAST)
    fields = [line.split(b",") for line in original[:2]]
    fields[0][8], fields[1][15] = b"abc", b"-5"  # arr_delay, distance
    send(copy, LAST, [*(b",".join(line) for line in fields), *original[2:]])
    copy.make(DAILY_RAW, LAST)
    assert set(copy.rows("raw_rejected.flights")["column"]) == {"arr_delay", "distance"}
    assert len(table(copy, "raw.flights", LAST)) == len(original) - 2

    send(copy, LAST, original)
    copy.make(DAILY_RAW, LAST)
    assert len(copy.rows("raw_rejected.flights")) == 0
    assert_equal(in_pieces, copy, ["raw.flights"], *DAYS)


def test_beside_a_day_that_fails_a_dbt_test_the_others_count_as_made_and_it_does_not(
    in_pieces: Platform, copy: Platform
) -> None:
    flights = lines(copy, MIDDLE)
    carrier = flights[0].split(b",")[9]
    send(copy, MIDDLE, [flights[0].replace(b"," + carrier + b",", b",ZZ,", 1), *flights[1:]])
    result = copy.materialize(DAILY, MIDDLE, LAST)

    assert not result.success
    failed = [(c.check_name, c.severity) for c in result.get_asset_check_evaluations() if not c.passed]
    assert ("departures_carrier_is_an_airline", dg.AssetCheckSeverity.ERROR) in failed
    assert "1 of 2 days fail departures_carrier_is_an_airline" in errors(result)
    assert_equal(in_pieces, copy, ["marts.departures", "marts.daily_lateness"], *DAYS)
    for key in DAILY_DBT:
        recorded = {day for day in DAYS if copy.latest(key, day) != in_pieces.latest(key, day)}
        assert recorded == {LAST}
        assert copy.data_version(key, LAST)
    assert dg.AssetKey(FEATURES[0]) not in {event.asset_key for event in result.get_asset_materialization_events()}
    assert_equal(in_pieces, copy, ["features/departures"], *DAYS)


def with_dbt_test(folder: Path, sql: str) -> ModuleType:
    """`assets.flights.dbt_models` over a copy of the dbt project to which this test was added."""
    source = Path(dbt_models.__file__)
    shutil.copytree(source.parent / "dbt", folder / "dbt", ignore=shutil.ignore_patterns("target", "logs"))
    (folder / "dbt/tests/added.sql").write_text(sql)
    spec = importlib.util.spec_from_file_location("copied_dbt_models", shutil.copy(source, folder))
    assert spec
    assert spec.loader
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_a_failing_test_over_two_models_that_is_no_check_fails_its_days_alone(
    in_pieces: Platform, copy: Platform, tmp_path_factory: pytest.TempPathFactory
) -> None:
    added = with_dbt_test(
        tmp_path_factory.mktemp("added"),
        "{{ config(tags=['daily']) }}\n"
        "select flight_date from {{ ref('departures') }} join {{ ref('daily_lateness') }} using (flight_date)\n"
        f"where {{{{ in_days('flight_date') }}}} and flight_date = date '{MIDDLE}'",
    )
    send(copy, LAST, lines(copy, LAST)[1:])
    copy.make(DAILY_RAW, LAST)
    before = copy.latest(DAILY_DBT[2], MIDDLE)
    resources = {"dbt": Dbt(added.project, copy.warehouse), "warehouse": copy.warehouse}
    job = dg.Definitions([added.daily_models], resources=resources).resolve_implicit_global_asset_job_def()
    result = job.execute_in_process(
        instance=copy.instance, tags=range_tags(FIRST, LAST), run_config=QUIET, raise_on_error=False
    )

    assert f"1 of 3 days fail added, or cannot be told from such days: {MIDDLE}." in errors(result)
    assert len(table(copy, "marts.departures", LAST)) == len(lines(copy, LAST))
    assert copy.latest(DAILY_DBT[2], LAST) != in_pieces.latest(DAILY_DBT[2], LAST)
    assert copy.latest(DAILY_DBT[2], MIDDLE) == before
    assert_equal(in_pieces, copy, ["marts.departures", "marts.daily_lateness"], MIDDLE)


@pytest.mark.parametrize("model", ["marts.departures", "marts.daily_lateness"])
def test_where_dbt_is_cancelled_between_a_model_and_its_tests_the_marts_hold_what_was_recorded(
    in_pieces: Platform, copy: Platform, model: str
) -> None:
    send(copy, MIDDLE, lines(copy, MIDDLE)[::3])
    copy.make(DAILY_RAW, MIDDLE, accept={"flights": "the airlines say so"})
    with signal_after(model, signal.SIGINT):
        result = copy.materialize(DAILY_DBT, MIDDLE)

    assert not result.success
    assert "DagsterExecutionInterruptedError" in errors(result)
    assert "1 of 1 days fail" not in errors(result)
    assert_equal(in_pieces, copy, ["marts.departures", "marts.daily_lateness"], *DAYS)
    assert copy.latest(["marts", "departures"], MIDDLE) == in_pieces.latest(["marts", "departures"], MIDDLE)
