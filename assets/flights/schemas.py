"""The raw tables of the flights domain: each one's columns, types, ranges and key, declared once.

What a feed may leave out is nullable here; everything else that breaks a rule is turned away at the intake with the
rule's words as the reason. The ranges say what is possible, not what is usual.
"""

from collections.abc import Callable, Mapping, Sequence

import pandas as pd
import pandera.pandas as pa
import pyarrow

from assets.flights import partitions as by
from resources.limits import Limits

ZONE = "America/New_York"  # of all three airports of origin

_DATE, _STRING = pyarrow.date32(), pyarrow.string()
_INTEGER, _NUMBER = pyarrow.int64(), pyarrow.float64()
_INSTANT = pyarrow.timestamp("us", tz="UTC")


def _column(kind: pyarrow.DataType, *checks: pa.Check, optional: bool = False) -> pa.Column:
    return pa.Column(pd.ArrowDtype(kind), list(checks), nullable=optional)


def _range(low: float, high: float) -> pa.Check:
    return pa.Check.in_range(low, high, error=f"is not in {low}..{high}")


def _among(*values: str) -> pa.Check:
    return pa.Check.isin(values, error=f"is not one of {', '.join(values)}")


def _pattern(pattern: str, meaning: str) -> pa.Check:
    return pa.Check.str_matches(f"^{pattern}$", error=f"is not {meaning}")


def _clock(low: int, high: int) -> pa.Check:
    """A local time of day written as hour·100 + minute."""
    return pa.Check(
        lambda times: (times >= low) & (times <= high) & (times - times // 100 * 100 < 60),
        error=f"is not a time of day as HHMM in {low}..{high}",
    )


def _agree(columns: Sequence[str], rule: str, holds: Callable[[pd.DataFrame], pd.Series]) -> pa.Check:
    """A check across columns. Its name lists the columns to blame; a row that lacks a value is not judged."""
    return pa.Check(lambda rows: holds(rows).fillna(True), name=", ".join(columns), error=rule)


def _same_local_hour(rows: pd.DataFrame) -> pd.Series:
    local = rows["time_hour"].dt.tz_convert(ZONE).dt
    return (
        (local.hour == rows["hour"])
        & (local.day == rows["day"])
        & (local.month == rows["month"])
        & (local.year == rows["year"])
    )


def _table(
    name: str,
    description: str,
    key: list[str],
    columns: Mapping[str, pa.Column],
    checks: Sequence[pa.Check] = (),
) -> pa.DataFrameSchema:
    return pa.DataFrameSchema(
        dict(columns),
        checks=list(checks),
        unique=key,
        report_duplicates="exclude_first",
        strict=True,
        ordered=True,
        name=name,
        description=description,
    )


_CARRIER = _pattern("[A-Z0-9]{2}", "a carrier code of two capital letters or digits")
_TAIL_NUMBER = _pattern("[A-Z0-9]{3,6}", "a tail number of 3 to 6 capital letters or digits")
_AIRPORT = _pattern("[A-Z0-9]{3}", "an airport code of three capital letters or digits")
_TEXT = _pattern(r"\S(.{0,198}\S)?", "1 to 200 characters long without spaces around")
_CALENDAR = {
    "year": _column(_INTEGER, _range(1900, 2100)),
    "month": _column(_INTEGER, _range(1, 12)),
    "day": _column(_INTEGER, _range(1, 31)),
}
_FULL_HOUR = pa.Check(lambda times: times.dt.minute * 60 + times.dt.second == 0, error="is not a full hour")
_LOCAL_HOUR = _agree(["time_hour", "hour"], f"are not the same hour of that day in {ZONE}", _same_local_hour)
_DELAY = _range(-240, 4320)

flights = _table(
    "flights",
    "One row per scheduled departure from New York. Delays and air_time in minutes, distance in miles, clock times "
    "local as HHMM (2400 is midnight), time_hour the scheduled hour in UTC.",
    ["flight_date", "carrier", "flight", "origin", "sched_dep_time"],
    {
        "flight_date": _column(_DATE),
        **_CALENDAR,
        "dep_time": _column(_INTEGER, _clock(1, 2400), optional=True),
        "sched_dep_time": _column(_INTEGER, _clock(0, 2359)),
        "dep_delay": _column(_INTEGER, _DELAY, optional=True),
        "arr_time": _column(_INTEGER, _clock(1, 2400), optional=True),
        "sched_arr_time": _column(_INTEGER, _clock(0, 2400)),
        "arr_delay": _column(_INTEGER, _DELAY, optional=True),
        "carrier": _column(_STRING, _CARRIER),
        "flight": _column(_INTEGER, _range(1, 9999)),
        "tailnum": _column(_STRING, _TAIL_NUMBER, optional=True),
        "origin": _column(_STRING, _among(*by.ORIGINS)),
        "dest": _column(_STRING, _AIRPORT),
        "air_time": _column(_INTEGER, _range(1, 1440), optional=True),
        "distance": _column(_INTEGER, _range(1, 12000)),
        "hour": _column(_INTEGER, _range(0, 23)),
        "minute": _column(_INTEGER, _range(0, 59)),
        "time_hour": _column(_INSTANT, _FULL_HOUR),
    },
    [
        _agree(
            ["sched_dep_time", "hour", "minute"],
            "do not agree: hour and minute make the scheduled time",
            lambda rows: rows["hour"] * 100 + rows["minute"] == rows["sched_dep_time"],
        ),
        _agree(
            ["dep_time", "dep_delay"],
            "do not agree: a departure has both, a cancelled flight neither",
            lambda rows: rows["dep_time"].isna() == rows["dep_delay"].isna(),
        ),
        _agree(
            ["dep_time", "arr_time", "arr_delay"],
            "do not agree: what never departed cannot arrive",
            lambda rows: rows["dep_time"].notna() | (rows["arr_time"].isna() & rows["arr_delay"].isna()),
        ),
        _LOCAL_HOUR,
    ],
)

weather = _table(
    "weather",
    "One row per airport of origin and hour. temp and dewp in °F, humid in %, wind_dir in degrees, wind_speed and "
    "wind_gust in mph, precip in inches, pressure in hPa, visib in miles, time_hour the hour in UTC.",
    ["origin", "time_hour"],
    {
        "observation_date": _column(_DATE),
        "origin": _column(_STRING, _among(*by.ORIGINS)),
        **_CALENDAR,
        "hour": _column(_INTEGER, _range(0, 23)),
        "temp": _column(_NUMBER, _range(-80, 140), optional=True),
        "dewp": _column(_NUMBER, _range(-100, 100), optional=True),
        "humid": _column(_NUMBER, _range(0, 100), optional=True),
        "wind_dir": _column(_NUMBER, _range(0, 360), optional=True),
        "wind_speed": _column(_NUMBER, _range(0, 250), optional=True),
        "wind_gust": _column(_NUMBER, _range(0, 300), optional=True),
        "precip": _column(_NUMBER, _range(0, 15), optional=True),
        "pressure": _column(_NUMBER, _range(850, 1100), optional=True),
        "visib": _column(_NUMBER, _range(0, 100), optional=True),
        "time_hour": _column(_INSTANT, _FULL_HOUR),
    },
    [_LOCAL_HOUR],
)

planes = _table(
    "planes",
    "One row per aircraft. year is the year built, speed the cruising speed in mph.",
    ["tailnum"],
    {
        "tailnum": _column(_STRING, _TAIL_NUMBER),
        "year": _column(_INTEGER, _range(1900, 2100), optional=True),
        "type": _column(_STRING, _TEXT),
        "manufacturer": _column(_STRING, _TEXT),
        "model": _column(_STRING, _TEXT),
        "engines": _column(_INTEGER, _range(0, 12)),
        "seats": _column(_INTEGER, _range(1, 1000)),
        "speed": _column(_INTEGER, _range(1, 2000), optional=True),
        "engine": _column(_STRING, _TEXT),
    },
)

airlines = _table(
    "airlines",
    "One row per carrier.",
    ["carrier"],
    {"carrier": _column(_STRING, _CARRIER), "name": _column(_STRING, _TEXT)},
)

airports = _table(
    "airports",
    "One row per airport. lat and lon in degrees, alt in feet, tz in hours from UTC, tzone the IANA zone.",
    ["faa"],
    {
        "faa": _column(_STRING, _AIRPORT),
        "name": _column(_STRING, _TEXT),
        "lat": _column(_NUMBER, _range(-90, 90)),
        "lon": _column(_NUMBER, _range(-180, 180)),
        "alt": _column(_INTEGER, _range(-1500, 20000)),
        "tz": _column(_INTEGER, _range(-12, 14)),
        "dst": _column(_STRING, _among("A", "U", "N")),
        "tzone": _column(_STRING, _TEXT, optional=True),
    },
)

SCHEMAS: dict[str, pa.DataFrameSchema] = {
    schema.name: schema for schema in (flights, weather, planes, airlines, airports)
}

# How much of a day, or of a reference table, may go missing unseen: `resources.limits` has what is not said here.
LIMITS: dict[str, Limits] = {
    **dict.fromkeys(SCHEMAS, Limits()),
    "weather": Limits(drop_from_weekday=None),  # the record's last day has no observation
}


def arrow_schema(table: str) -> pyarrow.Schema:
    """The declared columns of `table` in order, with their Arrow types."""
    return pyarrow.schema([(name, column.dtype.type.pyarrow_dtype) for name, column in SCHEMAS[table].columns.items()])
