"""What replaces a day by (nearly) nothing keeps the day's rows, fails that day alone, and waits for a person's word."""

import gzip
from collections.abc import Callable, Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.flights import replay
from assets.flights.definitions import definitions
from tests.conftest import DAILY_RAW, Platform, copied, platform_in
from tilth.observability import incidents

FIRST, MIDDLE, LAST = "2013-02-05", "2013-02-06", "2013-02-07"
FLIGHTS = [["raw", "flights"]]
HEADER = replay.record("flights").splitlines(keepends=True)[0]

Change = Callable[[list[bytes]], list[bytes]]


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("three_days")
    with platform_in(home) as platform:
        replay.land_reference(platform.landing)
        platform.land(FIRST, LAST)
        platform.make(DAILY_RAW, FIRST, LAST)
        platform.make([["raw", "airlines"]])
    return home


@pytest.fixture
def copy(three_days: Path, tmp_path: Path) -> Iterator[Platform]:
    with copied(three_days, tmp_path) as platform:
        yield platform


def send(platform: Platform, day: str, change: Change) -> None:
    """The record's flights of a day as they are after `change`."""
    header, days = replay._days("flights")
    lines = days[next(d for d in days if str(d) == day)].splitlines(keepends=True)
    platform.landing.put("flights", f"{day}.csv.gz", gzip.compress(header + b"".join(change(lines))))


def spoilt(share: float) -> Change:
    """Of the lines this share with a flight number that is none."""

    def change(lines: list[bytes]) -> list[bytes]:
        bad = round(share * len(lines))
        fields = [line.split(b",") for line in lines[:bad]]
        return [b",".join([*f[:10], b"17.5", *f[11:]]) for f in fields] + lines[bad:]

    return change


def kept(share: float) -> Change:
    return lambda lines: lines[: round(share * len(lines))]


def count(platform: Platform, day: str) -> int:
    return int((platform.rows("raw.flights", "flight_date")["flight_date"].astype(str) == day).sum())


def errors(result: dg.ExecuteInProcessResult) -> str:
    return "\n".join(str(event.step_failure_data.error) for event in result.all_events if event.is_step_failure)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (spoilt(0.99), "lines were turned away, more than 5 %"),
        (spoilt(0.06), "lines were turned away, more than 5 %"),
        (kept(0.45), "a drop by more than 50 %"),
        (kept(0), "0 rows would replace"),
    ],
)
def test_a_day_that_would_be_replaced_by_nearly_nothing_keeps_its_rows_and_its_neighbours_are_stored(
    copy: Platform, change: Change, words: str
) -> None:
    before, recorded = copy.rows("raw.flights"), copy.latest(*FLIGHTS, MIDDLE)
    send(copy, FIRST, kept(0.9))
    send(copy, MIDDLE, change)
    result = copy.materialize(FLIGHTS, FIRST, LAST)

    assert "1 of 3 days cannot be taken" in errors(result)
    assert f"{MIDDLE}.csv.gz: " in errors(result)
    assert words in errors(result)
    assert "The table keeps what it had" in errors(result)
    assert copy.rows("raw_rejected.flights").empty
    now = copy.rows("raw.flights")
    assert now[now["flight_date"].astype(str) != FIRST].equals(
        before[before["flight_date"].astype(str) != FIRST].set_axis(now.index[now["flight_date"].astype(str) != FIRST])
    )
    assert count(copy, FIRST) < (before["flight_date"].astype(str) == FIRST).sum()
    assert copy.latest(*FLIGHTS, MIDDLE) == recorded
    stored = copy.latest(*FLIGHTS, FIRST)
    assert stored
    assert stored.metadata["dagster/partition_row_count"].value == count(copy, FIRST)


def test_the_failure_names_the_commonest_reasons_with_an_example_of_each(copy: Platform) -> None:
    send(copy, MIDDLE, lambda lines: [b"x\n", b"x\n", *spoilt(0.5)(lines)[2:]])
    said = errors(copy.materialize(FLIGHTS, MIDDLE))

    assert "lines: flight: 17.5 is not a whole number (line 4: 2013,2,6," in said
    assert "2 lines: has 1 fields where the header has 19 (line 2: x)" in said


@pytest.mark.parametrize("change", [spoilt(0.04), kept(0.6)])
def test_what_keeps_within_the_limits_is_stored(copy: Platform, change: Change) -> None:
    before = count(copy, MIDDLE)
    send(copy, MIDDLE, change)
    copy.make(FLIGHTS, MIDDLE)

    assert 0 < count(copy, MIDDLE) < before


@pytest.mark.parametrize("share", [0, 0.4])
def test_a_new_day_with_far_fewer_rows_than_its_weekday_is_not_stored(copy: Platform, share: float) -> None:
    copy.land("2013-02-13")
    send(copy, "2013-02-12", kept(share))
    result = copy.materialize(FLIGHTS, "2013-02-12", "2013-02-13")

    assert "where this weekday has" in errors(result)
    assert count(copy, "2013-02-12") == 0
    assert copy.latest(*FLIGHTS, "2013-02-12") is None
    assert count(copy, "2013-02-13") > 0


def test_days_of_one_batch_are_compared_with_the_same_weekday_in_it(platform: Platform) -> None:
    platform.land(FIRST, "2013-02-11")
    send(platform, "2013-02-12", kept(0.1))

    assert "2013-02-12.csv.gz" in errors(platform.materialize(FLIGHTS, FIRST, "2013-02-12"))


def test_a_reference_table_that_lost_its_rows_keeps_them(copy: Platform) -> None:
    before = copy.rows("raw.airlines")
    copy.landing.put("airlines", "airlines.csv", b"carrier,name\nUA,United\n")

    assert "1 rows would replace 16" in errors(copy.materialize([["raw", "airlines"]]))
    assert copy.rows("raw.airlines").equals(before)
    copy.make([["raw", "airlines"]], accept={"airlines": "Ann: all others are bankrupt"})
    assert len(copy.rows("raw.airlines")) == 1
    copy.make([["raw", "airlines"]])


def test_a_person_accepts_an_arrival_which_is_recorded_and_holds_until_the_file_is_sent_again(copy: Platform) -> None:
    send(copy, MIDDLE, spoilt(0.5))
    copy.make(FLIGHTS, MIDDLE, accept={"flights": "Ann: a strike"})
    accepted = copy.latest(*FLIGHTS, MIDDLE)

    assert accepted
    assert accepted.metadata["accepted"].value == "Ann: a strike"
    assert "lines were turned away" in str(accepted.metadata["accepted_although"].value)
    assert len(copy.rows("raw_rejected.flights")) > 400

    copy.make(FLIGHTS, FIRST, LAST)
    again, other = copy.latest(*FLIGHTS, MIDDLE), copy.latest(*FLIGHTS, LAST)
    assert again
    assert again.metadata["accepted"].value == "Ann: a strike"
    assert other
    assert "accepted" not in other.metadata

    send(copy, MIDDLE, spoilt(0.5))
    assert not copy.materialize(FLIGHTS, MIDDLE).success


def test_a_word_for_another_arrival_accepts_nothing(copy: Platform) -> None:
    send(copy, FIRST, kept(0.1))
    old = {"flights": "Ann: a strike"}
    copy.make(FLIGHTS, FIRST, accept=old)
    send(copy, MIDDLE, kept(0.1))
    config = {"ops": {"raw__flights": {"config": {"accept": {"123": "Ann: a strike"}}}}}
    result = copy.job.execute_in_process(
        instance=copy.instance,
        asset_selection=[dg.AssetKey(FLIGHTS[0])],
        partition_key=MIDDLE,
        run_config=config,
        raise_on_error=False,
    )

    assert not result.success


def test_a_refused_day_is_one_incident_of_that_day_until_it_is_accepted(copy: Platform) -> None:
    repository = definitions(copy.deployment).get_repository_def()

    def found() -> list[tuple[str, ...]]:
        seen = incidents.look(copy.instance, repository, None, {}, None, 2e10).incidents.values()
        return [one.partitions for one in seen if one.asset == "raw/flights"]

    send(copy, MIDDLE, kept(0))
    copy.materialize(FLIGHTS, FIRST, LAST)
    assert found() == [(MIDDLE,)]
    copy.make(FLIGHTS, MIDDLE, accept={"flights": "Ann: a strike"})
    assert found() == []
