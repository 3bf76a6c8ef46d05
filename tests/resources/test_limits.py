"""What replaces a day by (nearly) nothing keeps the day's rows, fails that day alone, and waits for a person's word."""

import shutil
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import dagster as dg
import pytest

from resources.ingestion.limits import Limits
from tests.meters import METERS, READINGS, Meters, errors, send
from tilth.observability import incidents

FIRST, MIDDLE, LAST = "2024-02-06", "2024-02-07", "2024-02-08"

Change = Callable[[list[str]], list[str]]


@pytest.fixture(scope="module")
def three_days(tmp_path_factory: pytest.TempPathFactory) -> Path:
    home = tmp_path_factory.mktemp("three_days")
    with dg.DagsterInstance.local_temp(str(home)) as instance:
        domain = Meters(home, instance)
        for day in (FIRST, MIDDLE, LAST):
            send(domain.landing, READINGS, day)
        send(domain.landing, METERS)
        domain.make(READINGS, FIRST, LAST)
        domain.make(METERS)
    return home


@pytest.fixture
def copy(three_days: Path, tmp_path: Path) -> Iterator[Meters]:
    shutil.copytree(three_days, tmp_path, dirs_exist_ok=True)
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield Meters(tmp_path, instance)


def spoilt(share: float) -> Change:
    """Of the lines this share with a number of pulses that is none."""

    def change(lines: list[str]) -> list[str]:
        bad = round(share * len(lines))
        return [",".join([*line.split(",")[:6], "17.5", *line.split(",")[7:]]) for line in lines[:bad]] + lines[bad:]

    return change


def kept(share: float) -> Change:
    return lambda lines: lines[: round(share * len(lines))]


def count(domain: Meters, day: str) -> int:
    return int((domain.rows("raw.readings")["reading_date"].astype(str) == day).sum())


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
    copy: Meters, change: Change, words: str
) -> None:
    before, recorded = copy.rows("raw.readings"), copy.latest(READINGS, MIDDLE)
    send(copy.landing, READINGS, FIRST, kept(0.9))
    send(copy.landing, READINGS, MIDDLE, change)
    result = copy.run(READINGS, FIRST, LAST)

    assert "1 of 3 days cannot be taken" in errors(result)
    assert f"{MIDDLE}.csv.gz: " in errors(result)
    assert words in errors(result)
    assert "The table keeps what it had" in errors(result)
    assert copy.rows("raw_rejected.readings").empty
    now = copy.rows("raw.readings")
    assert now[now["reading_date"].astype(str) != FIRST].equals(
        before[before["reading_date"].astype(str) != FIRST].set_axis(
            now.index[now["reading_date"].astype(str) != FIRST]
        )
    )
    assert count(copy, FIRST) < (before["reading_date"].astype(str) == FIRST).sum()
    assert copy.latest(READINGS, MIDDLE) == recorded
    stored = copy.latest(READINGS, FIRST)
    assert stored
    assert stored.metadata["dagster/partition_row_count"].value == count(copy, FIRST)


def test_the_failure_names_the_commonest_reasons_with_an_example_of_each(copy: Meters) -> None:
    send(copy.landing, READINGS, MIDDLE, lambda lines: ["x", "x", *spoilt(0.5)(lines)[2:]])
    said = errors(copy.run(READINGS, MIDDLE))

    assert "lines: pulses: 17.5 is not a whole number (line 4: 2024,2,7," in said
    assert "2 lines: has 1 fields where the header has 9 (line 2: x)" in said


@pytest.mark.parametrize("change", [spoilt(0.04), kept(0.6)])
def test_what_keeps_within_the_limits_is_stored(copy: Meters, change: Change) -> None:
    before = count(copy, MIDDLE)
    send(copy.landing, READINGS, MIDDLE, change)
    copy.make(READINGS, MIDDLE)

    assert 0 < count(copy, MIDDLE) < before


@pytest.mark.parametrize("share", [0, 0.4])
def test_a_new_day_with_far_fewer_rows_than_its_weekday_is_not_stored(copy: Meters, share: float) -> None:
    send(copy.landing, READINGS, "2024-02-14")
    send(copy.landing, READINGS, "2024-02-13", kept(share))
    result = copy.run(READINGS, "2024-02-13", "2024-02-14")

    assert "where this weekday has" in errors(result)
    assert count(copy, "2024-02-13") == 0
    assert copy.latest(READINGS, "2024-02-13") is None
    assert count(copy, "2024-02-14") > 0


def test_days_of_one_batch_are_compared_with_the_same_weekday_in_it(tmp_path: Path) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        domain = Meters(tmp_path, instance)
        send(domain.landing, READINGS, FIRST)
        send(domain.landing, READINGS, "2024-02-13", kept(0.1))
        said = errors(domain.run(READINGS, FIRST, "2024-02-13"))

    assert "2024-02-13.csv.gz: 5 rows came where this weekday has 48" in said


def test_a_reference_table_that_lost_its_rows_keeps_them(copy: Meters) -> None:
    before = copy.rows("raw.meters")
    send(copy.landing, METERS, change=lambda lines: lines[:1])

    assert "1 rows would replace 16" in errors(copy.run(METERS))
    assert copy.rows("raw.meters").equals(before)
    copy.make(METERS, accepted="Ann: all others are gone")
    assert len(copy.rows("raw.meters")) == 1
    copy.make(METERS)


def test_a_person_accepts_an_arrival_which_is_recorded_and_holds_until_the_file_is_sent_again(copy: Meters) -> None:
    send(copy.landing, READINGS, MIDDLE, spoilt(0.5))
    copy.make(READINGS, MIDDLE, accepted="Ann: a strike")
    accepted = copy.latest(READINGS, MIDDLE)

    assert accepted
    assert accepted.metadata["accepted"].value == "Ann: a strike"
    assert "lines were turned away" in str(accepted.metadata["accepted_although"].value)
    assert len(copy.rows("raw_rejected.readings")) == 24

    copy.make(READINGS, FIRST, LAST)
    again, other = copy.latest(READINGS, MIDDLE), copy.latest(READINGS, LAST)
    assert again
    assert again.metadata["accepted"].value == "Ann: a strike"
    assert other
    assert "accepted" not in other.metadata

    send(copy.landing, READINGS, MIDDLE, spoilt(0.5))
    assert not copy.run(READINGS, MIDDLE).success


def test_a_word_for_another_arrival_accepts_nothing(copy: Meters) -> None:
    send(copy.landing, READINGS, FIRST, kept(0.1))
    copy.make(READINGS, FIRST, accepted="Ann: a strike")
    send(copy.landing, READINGS, MIDDLE, kept(0.1))

    assert not copy.run(READINGS, MIDDLE, accept={"123": "Ann: a strike"}).success


def test_a_refused_day_is_one_incident_of_that_day_until_it_is_accepted(copy: Meters) -> None:
    repository = copy.definitions.get_repository_def()

    def found() -> list[tuple[str, ...]]:
        seen = incidents.find_incidents(copy.instance, repository, None, {}, None, 2e10).incidents.values()
        return [one.partitions for one in seen if one.asset == "raw/readings"]

    send(copy.landing, READINGS, MIDDLE, kept(0))
    copy.run(READINGS, FIRST, LAST)
    assert found() == [(MIDDLE,)]
    copy.make(READINGS, MIDDLE, accepted="Ann: a strike")
    assert found() == []


def test_a_table_has_its_own_limits_and_its_own_schema_in_the_warehouse(tmp_path: Path) -> None:
    own = replace(READINGS, limits=Limits(rejected_share=0.6, drop_from_last=None), warehouse_schema="power")
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        domain = Meters(tmp_path, instance, [own])
        send(domain.landing, own, FIRST)
        domain.make(own, FIRST)
        send(domain.landing, own, FIRST, spoilt(0.55))
        domain.make(own, FIRST)
        assert own.key == dg.AssetKey(["power", "readings"])
        assert (len(domain.rows("power.readings")), len(domain.rows("power_rejected.readings"))) == (22, 26)

        send(domain.landing, own, FIRST, spoilt(0.65))
        said = errors(domain.run(own, FIRST))
    assert "more than 60 %" in said
    assert '{"ops": {"power__readings": {"config": {"accept":' in said
