"""The landing sensor asks for exactly the days that landed, once per arrival, on disk as on S3.

A clock that is wrong and a landing zone that is gone for a while cost no file, and what waits there still waits.
"""

import time
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pandas as pd
import pytest

import resources.landing_folder
import resources.landing_s3
from resources.ingestion.arrivals import waiting
from resources.ingestion.assets import newest_files, read
from resources.ingestion.sensor import landing_sensor
from resources.ingestion.tables import LandedTable
from resources.landing import LandingZone
from resources.landing_files import LandedFile
from tests.meters import DAYS, METERS, PRICES, READINGS, TABLES, Meters, lines_of, send
from tests.s3 import S3
from tilth.automation.conditions import on_new_data
from tilth.observability import freshness
from tilth.observability.freshness import partition_lag_checks

START = "dagster/asset_partition_range_start"
END = "dagster/asset_partition_range_end"
SETTLE_SECONDS = 0.1  # above the kernel's clock tick, below what a test should wait


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(resources.landing_folder, "SETTLE_NANOSECONDS", int(SETTLE_SECONDS * 1e9))


@pytest.fixture
def landing(tmp_path: Path) -> LandingZone:
    return LandingZone(uri=str(tmp_path / "landing"))


@pytest.fixture
def on_s3(s3: S3) -> LandingZone:
    return LandingZone(uri=f"s3://{s3.bucket()}/landing", s3_endpoint_url=s3.endpoint_url, s3_region=s3.region)


@pytest.fixture
def domain(tmp_path: Path) -> Iterator[Meters]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Meters(tmp_path, instance)


@dg.asset(
    key=["use", "daily"],
    partitions_def=DAYS,
    deps=[READINGS.key],
    backfill_policy=dg.BackfillPolicy.single_run(),
    automation_condition=on_new_data(),
)
def USE() -> None: ...  # noqa: N802


def land(landing: LandingZone, first: str, last: str) -> None:
    """The readings and the prices of these days."""
    for day in pd.date_range(first, last).strftime("%Y-%m-%d"):
        send(landing, READINGS, day)
        send(landing, PRICES, day)


def tick(
    landing: LandingZone,
    instance: dg.DagsterInstance,
    cursor: str | None = None,
    tables: Sequence[LandedTable] = tuple(TABLES),
    **options: dg.RepositoryDefinition,
) -> dg.SensorResult:
    if not landing.uri.startswith("s3://"):
        time.sleep(SETTLE_SECONDS + 0.02)
    context = dg.build_sensor_context(instance, cursor=cursor, **options)
    result = landing_sensor(tables, dg.AssetSelection.assets(USE))(context, landing=landing)
    assert isinstance(result, dg.SensorResult)
    return result


def asked(result: dg.SensorResult) -> list[tuple[list[str], str, str]]:
    """Each request as its tables, first and last day."""
    return [
        (
            [key.path[-1] for key in request.asset_selection or []],
            request.partition_key or request.tags.get(START, ""),
            request.partition_key or request.tags.get(END, ""),
        )
        for request in result.run_requests or []
    ]


def test_ninety_landed_days_are_one_run_and_not_asked_for_twice(landing: LandingZone) -> None:
    land(landing, "2024-01-01", "2024-03-31")
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(landing, instance)
        assert asked(first) == [(["prices", "readings"], "2024-01-01", "2024-03-31")]
        assert first.cursor
        assert len(first.cursor) < 2500
        assert asked(tick(landing, instance, first.cursor)) == []


def test_a_gap_splits_the_days_into_ranges(landing: LandingZone) -> None:
    land(landing, "2024-01-01", "2024-01-03")
    land(landing, "2024-01-07", "2024-01-07")
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked(tick(landing, instance)) == [
            (["prices", "readings"], "2024-01-01", "2024-01-03"),
            (["prices", "readings"], "2024-01-07", "2024-01-07"),
        ]


def test_a_file_that_is_sent_again_is_asked_for_again_and_nothing_else(landing: LandingZone) -> None:
    land(landing, "2024-01-01", "2024-01-05")
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(landing, instance)
        landing.put("readings", "2024-01-02.csv.gz", landing.read("readings", "2024-01-02.csv.gz"))
        second = tick(landing, instance, first.cursor)
        assert asked(second) == [(["readings"], "2024-01-02", "2024-01-02")]
        keys = [request.run_key for result in (first, second) for request in result.run_requests or []]
        assert len(set(keys)) == len(keys)


def test_the_same_arrivals_have_the_same_run_key(landing: LandingZone) -> None:
    land(landing, "2024-01-01", "2024-01-02")
    with dg.DagsterInstance.ephemeral() as instance:
        one, two = tick(landing, instance), tick(landing, instance)
    assert [r.run_key for r in one.run_requests or []] == [r.run_key for r in two.run_requests or []]


def test_a_late_day_before_all_others_is_asked_for(landing: LandingZone) -> None:
    land(landing, "2024-02-01", "2024-02-03")
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(landing, instance)
        land(landing, "2024-01-09", "2024-01-09")
        assert asked(tick(landing, instance, first.cursor)) == [(["prices", "readings"], "2024-01-09", "2024-01-09")]


def test_what_was_already_read_is_not_asked_for_by_a_sensor_that_starts_anew(landing: LandingZone) -> None:
    land(landing, "2024-01-01", "2024-01-02")
    with dg.DagsterInstance.ephemeral() as instance:
        for file in landing.files():
            report(instance, file, {"arrived_ns": str(file.arrived_ns)})  # as the first release stored it
        assert asked(tick(landing, instance)) == []
        land(landing, "2024-01-03", "2024-01-03")
        assert asked(tick(landing, instance)) == [(["prices", "readings"], "2024-01-03", "2024-01-03")]


def report(instance: dg.DagsterInstance, file: LandedFile, metadata: dict[str, str]) -> None:
    instance.report_runless_asset_event(
        dg.AssetMaterialization(["raw", file.table], partition=file.partition, metadata=metadata)
    )


def test_reference_tables_are_one_run_without_days(landing: LandingZone) -> None:
    send(landing, METERS)
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked(tick(landing, instance)) == [(["meters"], "", "")]


def test_a_file_of_no_known_day_is_left_where_it_is(landing: LandingZone) -> None:
    land(landing, "2024-01-01", "2024-01-01")
    landing.put("readings", "2024-06-01.csv.gz", landing.read("readings", "2024-01-01.csv.gz"))
    landing.put("readings", "yesterday.csv.gz", landing.read("readings", "2024-01-01.csv.gz"))
    with dg.DagsterInstance.ephemeral() as instance:
        assert asked(tick(landing, instance)) == [(["prices", "readings"], "2024-01-01", "2024-01-01")]
    assert landing.read("readings", "yesterday.csv.gz")


def test_days_on_s3_are_asked_for_when_they_land_and_the_next_one_at_the_next_look(on_s3: LandingZone) -> None:
    land(on_s3, "2024-01-01", "2024-01-05")
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(on_s3, instance)
        assert asked(first) == [(["prices", "readings"], "2024-01-01", "2024-01-05")]
        land(on_s3, "2024-01-06", "2024-01-06")
        second = tick(on_s3, instance, first.cursor)
        assert asked(second) == [(["prices", "readings"], "2024-01-06", "2024-01-06")]
        assert asked(tick(on_s3, instance, second.cursor)) == []


def test_a_day_on_s3_that_is_late_or_sent_again_is_asked_for_within_the_minute(
    on_s3: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(on_s3, "2024-02-01", "2024-02-03")
    with dg.DagsterInstance.ephemeral() as instance:
        first = tick(on_s3, instance)
        on_s3.put("readings", "2024-02-02.csv.gz", on_s3.read("readings", "2024-02-01.csv.gz"))
        land(on_s3, "2024-01-09", "2024-01-09")
        before = tick(on_s3, instance, first.cursor)
        assert asked(before) == []
        monkeypatch.setattr(resources.landing_s3, "WHOLE_LISTING_NANOSECONDS", 0)
        after = tick(on_s3, instance, before.cursor)
        assert asked(after) == [
            (["prices", "readings"], "2024-01-09", "2024-01-09"),
            (["readings"], "2024-02-02", "2024-02-02"),
        ]
        assert asked(tick(on_s3, instance, after.cursor)) == []
        keys = [request.run_key for result in (first, after) for request in result.run_requests or []]
        assert len(set(keys)) == len(keys)


def test_a_file_on_s3_that_was_read_is_told_from_another_version_of_the_same_second(on_s3: LandingZone) -> None:
    land(on_s3, "2024-01-01", "2024-01-01")
    prices, readings = on_s3.files()
    with dg.DagsterInstance.ephemeral() as instance:
        report(instance, prices, {"arrived_ns": str(prices.arrived_ns), "arrival": prices.arrival})
        report(instance, readings, {"arrived_ns": str(readings.arrived_ns), "arrival": f"{readings.arrived_ns}-other"})
        assert asked(tick(on_s3, instance)) == [(["readings"], "2024-01-01", "2024-01-01")]


def test_days_on_s3_are_read_in_their_order(on_s3: LandingZone) -> None:
    land(on_s3, "2024-01-01", "2024-01-12")
    newest = newest_files(on_s3, "readings")
    days = sorted(day for day in newest if day)
    batch = read(READINGS, [newest[day] for day in days], on_s3)

    assert [str(day) for day in batch.counts] == days
    assert [batch.counts[day].rows for day in days[:2]] == [48, 48]


def test_a_clock_that_was_ahead_for_one_look_costs_no_day_and_none_is_read_twice(
    landing: LandingZone, monkeypatch: pytest.MonkeyPatch
) -> None:
    land(landing, "2024-01-01", "2024-01-02")
    with dg.DagsterInstance.ephemeral() as instance:
        with monkeypatch.context() as ahead:
            ahead.setattr(
                resources.landing_folder, "time", SimpleNamespace(time_ns=lambda: time.time_ns() + 3600 * 10**9)
            )
            first = tick(landing, instance)
        assert asked(first) == [(["prices", "readings"], "2024-01-01", "2024-01-02")]
        for file in landing.files():
            report(instance, file, {"arrival": file.arrival})

        land(landing, "2024-01-03", "2024-01-03")
        second = tick(landing, instance, first.cursor)
        assert asked(second) == [(["prices", "readings"], "2024-01-03", "2024-01-03")]
        assert asked(tick(landing, instance, second.cursor)) == []


def test_a_landing_zone_that_is_gone_fails_the_look_and_one_that_is_not_there_yet_does_not(
    landing: LandingZone, tmp_path: Path
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        before = tick(landing, instance)
        assert asked(before) == []
        land(landing, "2024-01-01", "2024-01-01")
        first = tick(landing, instance, before.cursor)
        assert asked(first) == [(["prices", "readings"], "2024-01-01", "2024-01-01")]
        with away(landing, tmp_path), pytest.raises(FileNotFoundError, match=f"{landing.uri} is gone. Bring it back"):
            tick(landing, instance, first.cursor)
        assert asked(tick(landing, instance, first.cursor)) == []


@contextmanager
def away(landing: LandingZone, tmp_path: Path) -> Iterator[None]:
    """The landing zone's folder is missing meanwhile."""
    elsewhere = Path(landing.uri).rename(tmp_path / "elsewhere")
    yield
    elsewhere.rename(landing.uri)


@pytest.mark.parametrize(("table", "day"), [(READINGS, "2024-01-01"), (METERS, None)], ids=["by day", "whole"])
def test_a_run_is_tried_again_while_the_landing_zone_is_gone_and_reads_it_when_it_is_back(
    domain: Meters, tmp_path: Path, table: LandedTable, day: str | None
) -> None:
    landing = domain.landing
    send(landing, table, day)
    elsewhere = Path(landing.uri).rename(tmp_path / "elsewhere")

    def bring_back() -> str:
        said = first_try(domain.instance)
        elsewhere.rename(landing.uri)
        return said

    with ThreadPoolExecutor(1) as other:
        said = other.submit(bring_back)
        result = domain.run(table, day)
    assert f"The landing zone {landing.uri} is gone. Bring it back, or mount it again" in said.result()
    assert result.success
    assert len(domain.rows(table.accepted)) == len(lines_of(table)) - 1


def first_try(instance: dg.DagsterInstance) -> str:
    """What the first try of the only run fails with, once it is to be tried again; nothing if it never is."""
    while True:
        for run in instance.get_runs():
            for entry in instance.all_logs(run.run_id, of_type=dg.DagsterEventType.STEP_UP_FOR_RETRY):
                return str(entry.get_dagster_event().step_retry_data.error)
            if run.is_finished:
                return ""
        time.sleep(0.05)


def test_what_has_not_landed_in_a_landing_zone_that_is_there_is_not_waited_for(domain: Meters) -> None:
    land(domain.landing, "2024-01-01", "2024-01-01")
    for table, day in ((READINGS, "2024-01-02"), (METERS, None)):
        result = domain.run(table, day)
        (failure,) = [event.step_failure_data for event in result.all_events if event.is_step_failure]
        assert f"nothing has landed at {domain.landing.path_of(table.name, '')}" in str(failure.error)
        assert not [event for event in result.all_events if event.is_step_up_for_retry]


def test_what_waits_in_a_landing_zone_that_is_gone_is_not_said_to_have_recovered(
    domain: Meters, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(freshness, "time", SimpleNamespace(time=lambda: time.time() + 3 * 3600))
    land(domain.landing, "2024-01-01", "2024-01-01")
    send(domain.landing, METERS)
    lag = Lag(domain)
    assert lag.notified() == {"use/daily": False}
    with away(domain.landing, tmp_path), pytest.raises(FileNotFoundError, match=r"is gone\. Bring it back"):
        lag.notified()
    assert lag.notified() == {}

    domain.make(METERS)
    anew = Lag(domain)  # in a process that has seen nothing yet, with an event log that knows of a file
    with away(domain.landing, tmp_path):
        Path(domain.landing.uri).mkdir()  # a mount point without its volume
        with pytest.raises(FileNotFoundError, match="is empty, as a mount point is without its volume"):
            anew.notified()
        Path(domain.landing.uri).rmdir()
    assert anew.notified() == {"use/daily": False}


def test_before_anything_has_landed_nothing_is_late(domain: Meters) -> None:
    assert Lag(domain).notified() == {"use/daily": True}


class Lag:
    """The sensor that notifies of lag, as one process of the code location has it."""

    def __init__(self, domain: Meters) -> None:
        checks, sensor = partition_lag_checks([USE.key], warn="30m", fail="2h", waiting=waiting(TABLES, domain.landing))
        location = dg.Definitions(assets=[USE], asset_checks=checks, sensors=[sensor])
        self._repository = dg.Definitions.merge(domain.definitions, location).get_repository_def()
        self._instance, self._cursor = domain.instance, None

    def notified(self) -> dict[str, bool]:
        """By asset of which the next tick notifies, whether it passes."""
        context = dg.build_sensor_context(self._instance, cursor=self._cursor, repository_def=self._repository)
        result = self._repository.get_sensor_def("partition_lag").evaluate_tick(context)
        self._cursor = result.cursor or self._cursor
        events = [event for event in result.asset_events if isinstance(event, dg.AssetCheckEvaluation)]
        return {event.asset_key.to_user_string(): event.passed for event in events}


def test_files_of_tables_that_are_not_its_own_are_none_of_its_business(
    landing: LandingZone, domain: Meters, caplog: pytest.LogCaptureFixture
) -> None:
    land(landing, "2024-01-01", "2024-01-01")
    landing.put("readings", "2024-06-01.csv.gz", b"")
    landing.put("sales", "yesterday.csv.gz", b"")
    time.sleep(SETTLE_SECONDS + 0.02)
    sensor = landing_sensor([READINGS], dg.AssetSelection.assets(USE))
    location = dg.Definitions.merge(domain.definitions, dg.Definitions(assets=[USE], sensors=[sensor]))
    context = dg.build_sensor_context(
        domain.instance, repository_def=location.get_repository_def(), resources={"landing": landing}
    )
    context.log.addHandler(caplog.handler)
    requests = sensor.evaluate_tick(context).run_requests
    assert [request.partition_key for request in requests or []] == ["2024-01-01"]
    warnings = [record.getMessage() for record in caplog.records if record.levelname == "WARNING"]
    assert warnings == [
        "readings/2024-06-01.csv.gz is of no partition of raw/readings, which has 2024-01-01 to 2024-03-31; it is left "
        "where it is."
    ]


def test_a_file_that_landed_before_its_day_began_is_asked_for_when_it_does(landing: LandingZone) -> None:
    until = {
        day: replace(READINGS, by=dg.DailyPartitionsDefinition("2024-01-01", end_date=day))
        for day in ("2024-01-02", "2024-01-03")
    }
    send(landing, READINGS, "2024-01-01")
    send(landing, READINGS, "2024-01-02")
    with dg.DagsterInstance.ephemeral() as instance:
        early = tick(landing, instance, tables=[until["2024-01-02"]])
        assert asked(early) == [(["readings"], "2024-01-01", "2024-01-01")]
        assert asked(tick(landing, instance, early.cursor, tables=[until["2024-01-02"]])) == []
        begun = tick(landing, instance, early.cursor, tables=[until["2024-01-03"]])
        assert asked(begun) == [(["readings"], "2024-01-02", "2024-01-02")]
        assert asked(tick(landing, instance, begun.cursor, tables=[until["2024-01-03"]])) == []


def test_files_that_landed_before_their_table_was_declared_are_asked_for_when_it_is(landing: LandingZone) -> None:
    land(landing, "2024-01-01", "2024-01-02")
    send(landing, METERS)
    with dg.DagsterInstance.ephemeral() as instance:
        before = tick(landing, instance, tables=[READINGS])
        after = tick(landing, instance, before.cursor)
        assert asked(after) == [(["prices"], "2024-01-01", "2024-01-02"), (["meters"], "", "")]
        assert asked(tick(landing, instance, after.cursor)) == []


def test_what_can_be_made_of_a_day_is_asked_for_with_it(landing: LandingZone, domain: Meters) -> None:
    send(landing, READINGS, "2024-01-01")
    location = dg.Definitions.merge(domain.definitions, dg.Definitions(assets=[USE])).get_repository_def()
    (request,) = tick(landing, domain.instance, repository_def=location).run_requests or []
    assert [key.path[-1] for key in request.asset_selection or []] == ["readings", "daily"]
