"""The flights domain's schemas: what breaks a rule is set aside with its column and the rule's words."""

from datetime import date
from functools import cache

import pytest

from assets.flights import replay
from assets.flights.tables import AIRLINES, AIRPORTS, FLIGHTS, PLANES, TABLES, WEATHER
from resources.ingestion.tables import LandedTable
from resources.ingestion.validation import REJECTED, Count
from resources.landing_files import file_name
from tests.meters import Change, packed, take, with_values

DAY = "2013-02-12"


@cache
def lines_of(table: LandedTable) -> tuple[str, ...]:
    """Header and the first 30 lines of the table's file, of `DAY` where it lands by day."""
    header, *lines = replay.record(table.name).decode().splitlines()
    if table.by:
        year, month, day = (header.split(",").index(name) for name in ("year", "month", "day"))
        lines = [s for s in lines if [s.split(",")[i] for i in (year, month, day)] == ["2013", "2", "12"]]
    clean = [line for line in lines if "1048.36058" not in line]
    return header, *clean[:30]


MALFORMED: list[tuple[LandedTable, Change, str | None, str]] = [
    (FLIGHTS, with_values(sched_dep_time="abc"), "sched_dep_time", "abc is not a whole number"),
    (FLIGHTS, with_values(flight="15.5"), "flight", "15.5 is not a whole number"),
    (FLIGHTS, with_values(flight="9" * 40), "flight", "is not a whole number"),
    (FLIGHTS, with_values(flight="9" * 19), "flight", "is not a whole number"),
    (FLIGHTS, with_values(flight="17.05"), "flight", "17.05 is not a whole number"),
    (FLIGHTS, with_values(flight="1.7051e3"), "flight", "1.7051e3 is not a whole number"),
    (FLIGHTS, with_values(flight="1.2E+03"), "flight", "1.2E+03 is not a whole number"),
    (FLIGHTS, with_values(flight="1e99"), "flight", "1e99 is not a whole number"),
    (FLIGHTS, with_values(flight="."), "flight", ". is not a whole number"),
    (FLIGHTS, with_values(flight="0"), "flight", "0 is not in 1..9999"),
    (FLIGHTS, with_values(sched_dep_time="1275"), "sched_dep_time", "1275 is not a time of day as HHMM"),
    (FLIGHTS, with_values(dep_time="2460"), "dep_time", "2460 is not a time of day as HHMM"),
    (FLIGHTS, with_values(sched_dep_time="NA"), "sched_dep_time", "is missing"),
    (FLIGHTS, with_values(dest=""), "dest", "is missing"),
    (FLIGHTS, with_values(origin="BOS"), "origin", "BOS is not one of EWR, JFK, LGA"),
    (FLIGHTS, with_values(carrier="united"), "carrier", "united is not a carrier code"),
    (FLIGHTS, with_values(tailnum="N-1"), "tailnum", "N-1 is not a tail number"),
    (FLIGHTS, with_values(distance="-5"), "distance", "-5 is not in 1..12000"),
    (FLIGHTS, with_values(arr_delay="99999"), "arr_delay", "99999 is not in -240..4320"),
    (FLIGHTS, with_values(air_time="0"), "air_time", "0 is not in 1..1440"),
    (FLIGHTS, with_values(minute="7"), "sched_dep_time, hour, minute", "do not agree: hour and minute make"),
    (FLIGHTS, with_values(dep_delay="NA"), "dep_time, dep_delay", "missing do not agree: a departure has both"),
    (FLIGHTS, with_values(dep_time="NA", dep_delay="NA"), "dep_time, arr_time, arr_delay", "never departed"),
    (FLIGHTS, with_values(time_hour="12.02.2013 10:00"), "time_hour", "is not an instant like"),
    (FLIGHTS, with_values(time_hour="2013-02-30T10:00:00Z"), "time_hour", "2013-02-30T10:00:00Z is not an instant"),
    (FLIGHTS, with_values(time_hour="2013-02-12T10:30:00Z"), "time_hour", "is not a full hour"),
    (FLIGHTS, with_values(time_hour="2014-02-12T10:00:00Z"), "time_hour, hour", "not the same hour of that day"),
    (FLIGHTS, with_values(day="31"), "year, month, day", "2013-2-31 is not a date"),
    (FLIGHTS, with_values(month="13"), "year, month, day", "2013-13-12 is not a date"),
    (FLIGHTS, with_values(year="NA"), "year", "is missing"),
    (FLIGHTS, lambda *_: "2013,2,12,517", None, "has 4 fields where the header has 19"),
    (FLIGHTS, with_values(time_hour="2013-02-12T10:00:00Z,more"), None, "has 20 fields where the header has 19"),
    (FLIGHTS, lambda *_: "", None, "is blank"),
    (FLIGHTS, lambda *_: "   ", None, "is blank"),
    (FLIGHTS, with_values(dest="L\udcffX"), None, "is not UTF-8"),
    (FLIGHTS, with_values(dest="I\x00H"), None, "holds a control character"),
    (FLIGHTS, with_values(origin='"JFK'), None, "is not CSV"),
    (FLIGHTS, lambda *_: ",".join(["x"] * 19), "year, month, day, dep_time", "year: x is not a whole number"),
    (WEATHER, with_values(temp="warm"), "temp", "warm is not a number"),
    (WEATHER, with_values(temp="nan"), "temp", "nan is not a number"),
    (WEATHER, with_values(humid="100.5"), "humid", "100.5 is not in 0..100"),
    (WEATHER, with_values(wind_dir="361"), "wind_dir", "361.0 is not in 0..360"),
    (
        WEATHER,
        with_values(wind_speed="1048.36058", humid="-1"),
        "humid, wind_speed",
        "; wind_speed: 1048.36058 is not",
    ),
    (WEATHER, with_values(precip="-0.1"), "precip", "-0.1 is not in 0..15"),
    (WEATHER, with_values(hour="24"), "hour", "24 is not in 0..23"),
    (PLANES, with_values(year="19"), "year", "19 is not in 1900..2100"),
    (PLANES, with_values(seats="many"), "seats", "many is not a whole number"),
    (AIRLINES, with_values(name="x" * 201), "name", "… is not 1 to 200 characters long"),
    (AIRLINES, with_values(name="United "), "name", "without spaces around"),
    (AIRPORTS, with_values(lat="91"), "lat", "91.0 is not in -90..90"),
    (AIRPORTS, with_values(lon="-180.5"), "lon", "-180.5 is not in -180..180"),
    (AIRPORTS, with_values(dst="B"), "dst", "B is not one of A, U, N"),
]


@pytest.mark.parametrize(("table", "change", "column", "words"), MALFORMED)
def test_a_malformed_line_is_rejected_with_its_column_and_reason_and_its_neighbours_stay(
    table: LandedTable, change: Change, column: str | None, words: str
) -> None:
    header, *lines = lines_of(table)
    expected = take(table, packed([header, *lines[:5], *lines[6:]]), DAY).arrow
    bad = change(header, lines[5])

    batch = take(table, packed([header, *lines[:5], bad, *lines[6:]]), DAY)

    (rejected,) = batch.rejected.to_pylist()
    assert rejected["line"] == 7
    assert rejected["file"] == file_name(table.name, DAY if table.by else None)
    assert rejected["partition_day"] == (date.fromisoformat(DAY) if table.by else None)
    assert (rejected["column"] or "").startswith(column or "")
    assert (rejected["column"] is None) == (column is None)
    assert words in rejected["reason"]
    assert rejected["record"] == bad.replace("\udcff", "\\xff").replace("\x00", "\\x00")
    assert batch.arrow.equals(expected)


@pytest.mark.parametrize("table", TABLES, ids=lambda table: table.name)
def test_a_header_alone_is_a_file_without_rows(table: LandedTable) -> None:
    batch = take(table, packed(lines_of(table)[:1]), DAY)

    assert list(batch.counts.values()) == [Count(rows=0, rejected=0)]
    assert batch.arrow.schema == table.arrow_schema()
    assert batch.rejected.schema == REJECTED
