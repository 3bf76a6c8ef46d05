"""The replay: what lands is the record, day by day, byte for byte the same each time."""

import gzip
from datetime import date
from pathlib import Path

import pytest

from assets.flights import replay
from resources.landing import LandingZone


@pytest.fixture
def landing(tmp_path: Path) -> LandingZone:
    return LandingZone(uri=str(tmp_path))


@pytest.fixture
def deployed(landing: LandingZone, monkeypatch: pytest.MonkeyPatch) -> LandingZone:
    monkeypatch.setenv("TILTH_LANDING_URI", landing.uri)
    return landing


def landed(landing: LandingZone) -> set[str]:
    return {f"{path.parent.name}/{path.name}" for path in Path(landing.uri).glob("*/*")}


def text(landing: LandingZone, table: str, day: str) -> str:
    return gzip.decompress(landing.read(table, f"{day}.csv.gz")).decode()


def test_a_day_lands_as_the_lines_of_the_record(landing: LandingZone) -> None:
    assert replay.land_days(landing, date(2013, 1, 1), date(2013, 1, 2)) == 4

    header, *lines = replay.record("flights").decode().splitlines()
    of_day = [line for line in lines if line.startswith("2013,1,2,")]
    assert text(landing, "flights", "2013-01-02").splitlines() == [header, *of_day]
    assert len(of_day) == 943
    assert "EWR,2013,1,2,0," in text(landing, "weather", "2013-01-02")


def test_every_line_of_the_record_lands_on_one_day(landing: LandingZone) -> None:
    replay.land_days(landing, replay.FIRST_DAY, replay.LAST_DAY)

    for table in replay.DAILY:
        header, *lines = replay.record(table).splitlines()
        files = sorted(Path(landing.uri, table).iterdir())
        assert len(files) == 365
        contents = [gzip.decompress(file.read_bytes()).splitlines() for file in files]
        assert {content[0] for content in contents} == {header}
        assert sorted(line for content in contents for line in content[1:]) == sorted(lines)


def test_the_same_day_lands_as_the_same_bytes(landing: LandingZone) -> None:
    day = date(2013, 6, 1)
    replay.land_days(landing, day, day)
    first = landing.read("flights", "2013-06-01.csv.gz")
    replay.land_days(landing, day, day)

    assert landing.read("flights", "2013-06-01.csv.gz") == first


def test_a_day_without_observations_lands_as_a_header_alone(landing: LandingZone) -> None:
    replay.land_days(landing, date(2013, 12, 31), date(2013, 12, 31))

    assert text(landing, "weather", "2013-12-31") == replay.record("weather").decode().splitlines(keepends=True)[0]


def test_reference_tables_land_as_they_stand_in_the_record(landing: LandingZone) -> None:
    assert replay.land_reference(landing) == 3
    assert landed(landing) == {"planes/planes.csv", "airlines/airlines.csv", "airports/airports.csv"}
    assert landing.read("planes", "planes.csv") == replay.record("planes")


@pytest.mark.parametrize(("first", "last"), [("2012-12-31", "2013-01-01"), ("2013-12-31", "2014-01-01")])
def test_a_day_outside_the_record_is_refused_and_nothing_lands(landing: LandingZone, first: str, last: str) -> None:
    with pytest.raises(ValueError, match="the record has 2013-01-01 to 2013-12-31"):
        replay.land_days(landing, date.fromisoformat(first), date.fromisoformat(last))
    assert landed(landing) == set()


def test_through_goes_on_after_the_latest_landed_day(deployed: LandingZone, capsys: pytest.CaptureFixture[str]) -> None:
    replay.main(["--through", "2013-01-02"])
    before = (
        deployed.read("flights", "2013-01-02.csv.gz"),
        Path(deployed.path_of("flights", "2013-01-02.csv.gz")).stat(),
    )
    replay.main(["--through", "2013-01-04"])
    replay.main(["--through", "2013-01-03"])

    days = ["2013-01-01", "2013-01-02", "2013-01-03", "2013-01-04"]
    assert landed(deployed) == {f"{table}/{day}.csv.gz" for table in replay.DAILY for day in days} | {
        f"{table}/{table}.csv" for table in replay.REFERENCE
    }
    assert Path(deployed.path_of("flights", "2013-01-02.csv.gz")).stat().st_mtime_ns == before[1].st_mtime_ns
    said = capsys.readouterr().out.splitlines()
    assert [line.split(": ", 1)[1] for line in said] == [
        "3 reference files; 4 files of 2013-01-01 to 2013-01-02",
        "4 files of 2013-01-03 to 2013-01-04",
        "nothing new: 2013-01-03 and the days before it had landed",
    ]


def test_the_command_line_lands_a_day_a_range_and_the_reference(deployed: LandingZone) -> None:
    replay.main(["--reference", "--day", "2013-05-05"])
    replay.main(["--from", "2013-02-01", "--through", "2013-02-02"])

    assert {name for name in landed(deployed) if not name.startswith("weather")} == {
        "planes/planes.csv",
        "airlines/airlines.csv",
        "airports/airports.csv",
        "flights/2013-05-05.csv.gz",
        "flights/2013-02-01.csv.gz",
        "flights/2013-02-02.csv.gz",
    }


@pytest.mark.parametrize(
    "arguments", [[], ["--from", "2013-01-01"], ["--day", "2013-01-01", "--through", "2013-01-02"]]
)
def test_a_command_line_that_says_too_little_or_too_much_is_refused(
    deployed: LandingZone, arguments: list[str]
) -> None:
    with pytest.raises(SystemExit):
        replay.main(arguments)
    assert landed(deployed) == set()
