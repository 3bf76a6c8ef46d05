"""The raw tables of the flights domain: each one's columns, types, ranges and key, declared once.

What a feed may leave out is nullable here; everything else that breaks a rule is turned away with the rule's words as
the reason. The ranges say what is possible, not what is usual.
"""

import pandas as pd
import pandera.pandas as pa

from assets.flights import partitions as by
from resources.ingestion.columns import (
    DATE,
    INSTANT,
    INTEGER,
    NUMBER,
    STRING,
    agree,
    column,
    in_range,
    matches,
    one_of,
    table_schema,
)

ZONE = "America/New_York"  # of all three airports of origin


def _clock(low: int, high: int) -> pa.Check:
    """A local time of day written as hour·100 + minute."""
    return pa.Check(
        lambda times: (times >= low) & (times <= high) & (times - times // 100 * 100 < 60),
        error=f"is not a time of day as HHMM in {low}..{high}",
    )


def _same_local_hour(rows: pd.DataFrame) -> pd.Series:
    local = rows["time_hour"].dt.tz_convert(ZONE).dt
    return (
        (local.hour == rows["hour"])
        & (local.day == rows["day"])
        & (local.month == rows["month"])
        & (local.year == rows["year"])
    )


_CARRIER = matches("[A-Z0-9]{2}", "a carrier code of two capital letters or digits")
_TAIL_NUMBER = matches("[A-Z0-9]{3,6}", "a tail number of 3 to 6 capital letters or digits")
_AIRPORT = matches("[A-Z0-9]{3}", "an airport code of three capital letters or digits")
_TEXT = matches(r"\S(.{0,198}\S)?", "1 to 200 characters long without spaces around")
_CALENDAR = {
    "year": column(INTEGER, in_range(1900, 2100)),
    "month": column(INTEGER, in_range(1, 12)),
    "day": column(INTEGER, in_range(1, 31)),
}
_FULL_HOUR = pa.Check(lambda times: times.dt.minute * 60 + times.dt.second == 0, error="is not a full hour")
_LOCAL_HOUR = agree(["time_hour", "hour"], f"are not the same hour of that day in {ZONE}", _same_local_hour)
_DELAY = in_range(-240, 4320)

flights = table_schema(
    "flights",
    "One row per scheduled departure from New York. Delays and air_time in minutes, distance in miles, clock times "
    "local as HHMM (2400 is midnight), time_hour the scheduled hour in UTC.",
    ["flight_date", "carrier", "flight", "origin", "sched_dep_time"],
    {
        "flight_date": column(DATE),
        **_CALENDAR,
        "dep_time": column(INTEGER, _clock(1, 2400), optional=True),
        "sched_dep_time": column(INTEGER, _clock(0, 2359)),
        "dep_delay": column(INTEGER, _DELAY, optional=True),
        "arr_time": column(INTEGER, _clock(1, 2400), optional=True),
        "sched_arr_time": column(INTEGER, _clock(0, 2400)),
        "arr_delay": column(INTEGER, _DELAY, optional=True),
        "carrier": column(STRING, _CARRIER),
        "flight": column(INTEGER, in_range(1, 9999)),
        "tailnum": column(STRING, _TAIL_NUMBER, optional=True),
        "origin": column(STRING, one_of(*by.ORIGINS)),
        "dest": column(STRING, _AIRPORT),
        "air_time": column(INTEGER, in_range(1, 1440), optional=True),
        "distance": column(INTEGER, in_range(1, 12000)),
        "hour": column(INTEGER, in_range(0, 23)),
        "minute": column(INTEGER, in_range(0, 59)),
        "time_hour": column(INSTANT, _FULL_HOUR),
    },
    [
        agree(
            ["sched_dep_time", "hour", "minute"],
            "do not agree: hour and minute make the scheduled time",
            lambda rows: rows["hour"] * 100 + rows["minute"] == rows["sched_dep_time"],
        ),
        agree(
            ["dep_time", "dep_delay"],
            "do not agree: a departure has both, a cancelled flight neither",
            lambda rows: rows["dep_time"].isna() == rows["dep_delay"].isna(),
        ),
        agree(
            ["dep_time", "arr_time", "arr_delay"],
            "do not agree: what never departed cannot arrive",
            lambda rows: rows["dep_time"].notna() | (rows["arr_time"].isna() & rows["arr_delay"].isna()),
        ),
        _LOCAL_HOUR,
    ],
)

weather = table_schema(
    "weather",
    "One row per airport of origin and hour. temp and dewp in °F, humid in %, wind_dir in degrees, wind_speed and "
    "wind_gust in mph, precip in inches, pressure in hPa, visib in miles, time_hour the hour in UTC.",
    ["origin", "time_hour"],
    {
        "observation_date": column(DATE),
        "origin": column(STRING, one_of(*by.ORIGINS)),
        **_CALENDAR,
        "hour": column(INTEGER, in_range(0, 23)),
        "temp": column(NUMBER, in_range(-80, 140), optional=True),
        "dewp": column(NUMBER, in_range(-100, 100), optional=True),
        "humid": column(NUMBER, in_range(0, 100), optional=True),
        "wind_dir": column(NUMBER, in_range(0, 360), optional=True),
        "wind_speed": column(NUMBER, in_range(0, 250), optional=True),
        "wind_gust": column(NUMBER, in_range(0, 300), optional=True),
        "precip": column(NUMBER, in_range(0, 15), optional=True),
        "pressure": column(NUMBER, in_range(850, 1100), optional=True),
        "visib": column(NUMBER, in_range(0, 100), optional=True),
        "time_hour": column(INSTANT, _FULL_HOUR),
    },
    [_LOCAL_HOUR],
)

planes = table_schema(
    "planes",
    "One row per aircraft. year is the year built, speed the cruising speed in mph.",
    ["tailnum"],
    {
        "tailnum": column(STRING, _TAIL_NUMBER),
        "year": column(INTEGER, in_range(1900, 2100), optional=True),
        "type": column(STRING, _TEXT),
        "manufacturer": column(STRING, _TEXT),
        "model": column(STRING, _TEXT),
        "engines": column(INTEGER, in_range(0, 12)),
        "seats": column(INTEGER, in_range(1, 1000)),
        "speed": column(INTEGER, in_range(1, 2000), optional=True),
        "engine": column(STRING, _TEXT),
    },
)

airlines = table_schema(
    "airlines",
    "One row per carrier.",
    ["carrier"],
    {"carrier": column(STRING, _CARRIER), "name": column(STRING, _TEXT)},
)

airports = table_schema(
    "airports",
    "One row per airport. lat and lon in degrees, alt in feet, tz in hours from UTC, tzone the IANA zone.",
    ["faa"],
    {
        "faa": column(STRING, _AIRPORT),
        "name": column(STRING, _TEXT),
        "lat": column(NUMBER, in_range(-90, 90)),
        "lon": column(NUMBER, in_range(-180, 180)),
        "alt": column(INTEGER, in_range(-1500, 20000)),
        "tz": column(INTEGER, in_range(-12, 14)),
        "dst": column(STRING, one_of("A", "U", "N")),
        "tzone": column(STRING, _TEXT, optional=True),
    },
)
