"""The schemas of tests/meters.py."""

import pandas as pd

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

_METER = matches("M[0-9]{3}", "a meter's number like M001")
_TEXT = matches(r"\S(.{0,38}\S)?", "1 to 40 characters long without spaces around")


def _same_hour(rows: pd.DataFrame) -> pd.Series:
    return rows["read_at"].dt.hour == rows["hour"]


readings = table_schema(
    "readings",
    "One row per meter and hour.",
    ["meter", "read_at"],
    {
        "reading_date": column(DATE),
        "year": column(INTEGER, in_range(2000, 2100)),
        "month": column(INTEGER, in_range(1, 12)),
        "day": column(INTEGER, in_range(1, 31)),
        "hour": column(INTEGER, in_range(0, 23)),
        "meter": column(STRING, _METER),
        "kilowatts": column(NUMBER, in_range(0, 500), optional=True),
        "pulses": column(INTEGER, in_range(0, 9_999_999)),
        "state": column(STRING, one_of("measured", "estimated")),
        "read_at": column(INSTANT),
    },
    [agree(["read_at", "hour"], "are not the same hour", _same_hour)],
)

# The day is no part of the key.
prices = table_schema(
    "prices",
    "One row per hour of a day, and its price in cents.",
    ["hour"],
    {"day": column(DATE), "hour": column(INTEGER, in_range(0, 23)), "cents": column(NUMBER, optional=True)},
)

meters = table_schema(
    "meters",
    "One row per meter.",
    ["meter"],
    {
        "meter": column(STRING, _METER),
        "installed": column(DATE),
        "capacity": column(INTEGER, in_range(1, 500)),
        "place": column(STRING, _TEXT),
    },
)
