"""The tables that land for the flights domain, and their raw assets."""

from functools import partial

from assets.flights import partitions as by
from resources.ingestion.assets import landed
from resources.ingestion.limits import Limits
from resources.ingestion.tables import LandedTable

SCHEMAS = "assets.flights.schemas"
by_day = partial(LandedTable, by=by.days, dated_by=("year", "month", "day"))

FLIGHTS = by_day(
    "flights",
    f"{SCHEMAS}:flights",
    "Departures of the three airports as the airlines' feed reports them, with their outcome.",
    day="flight_date",
)
WEATHER = by_day(
    "weather",
    f"{SCHEMAS}:weather",
    "Hourly observations at the three airports.",
    day="observation_date",
    limits=Limits(drop_from_weekday=None),  # the record's last day has no observation
)
PLANES = LandedTable("planes", f"{SCHEMAS}:planes", "Aircraft by tail number.")
AIRLINES = LandedTable("airlines", f"{SCHEMAS}:airlines", "Carriers by their two-letter code.")
AIRPORTS = LandedTable("airports", f"{SCHEMAS}:airports", "Airports by their FAA code.")

DAILY = [FLIGHTS, WEATHER]
REFERENCE = [PLANES, AIRLINES, AIRPORTS]
TABLES = [*DAILY, *REFERENCE]

raw_tables = [landed(table, owners=["team:flights"]) for table in TABLES]
