"""Features of a departure, from what is known before its scheduled hour, and the training set made of them."""

from datetime import date, timedelta

import dagster as dg
import numpy as np
import pandas as pd

from assets.flights import partitions as by
from assets.flights.freshness import DAILY, MONTHLY
from tilth.automation.conditions import on_complete_window, on_new_data
from tilth.versioning.inputs import OPTIONAL, REFERENCE

# Weight, in arrivals, of the airports' overall rate in a history rate: a tail number seen twice says little.
PRIOR_ARRIVALS = 20

CATEGORIES = ["carrier", "destination", "engine_type"]
NUMBERS = [
    "day_of_week",
    "scheduled_hour",
    "scheduled_minute",
    "distance_miles",
    "departures_scheduled_in_hour",
    "aircraft_age_years",
    "aircraft_seats",
    "temperature_f",
    "dew_point_f",
    "humidity_percent",
    "wind_direction_degrees",
    "wind_speed_mph",
    "wind_gust_mph",
    "precipitation_inches",
    "pressure_hpa",
    "visibility_miles",
    "carrier_late_rate",
    "destination_late_rate",
    "tail_number_late_rate",
    "origin_hour_late_rate",
    "flight_late_rate",
    "origin_late_rate_yesterday",
    "origin_late_rate_week",
]
FEATURES = CATEGORIES + NUMBERS


def late_rates(lateness: pd.DataFrame, dimension: str, days: pd.DatetimeIndex, window: int) -> pd.DataFrame:
    """The share of late arrivals over the `window` days before each day, per value of a dimension.

    Each rate is drawn toward the overall rate of the same days: (late + k·overall) / (arrivals + k), the posterior
    mean under a beta prior worth k = `PRIOR_ARRIVALS` arrivals. A value that did not arrive in those days has no rate.

    Returns:
        One row per day and value that arrived in the window before it: flight_date, value, rate (0 to 1).
    """
    if days.empty:  # a day that landed without departures
        return pd.DataFrame({"flight_date": days, "value": pd.Series(dtype="str"), "rate": pd.Series(dtype="float64")})
    rows = lateness[lateness["dimension"] == dimension]
    calendar = pd.date_range(days.min() - timedelta(days=window), days.max())

    def before(counts: str) -> pd.DataFrame:
        daily = rows.pivot_table(index="flight_date", columns="value", values=counts, aggfunc="sum")
        return daily.reindex(calendar).fillna(0).rolling(window, min_periods=1).sum().shift(1).loc[days]

    arrivals, late = before("arrivals"), before("late_arrivals")
    overall = late.sum(axis=1) / arrivals.sum(axis=1)
    rates = (late.add(PRIOR_ARRIVALS * overall, axis=0)) / (arrivals + PRIOR_ARRIVALS)
    # What the record holds of the day itself or of later ones must not decide whether a value is known.
    known = rates.where(arrivals > 0).rename_axis("flight_date").reset_index()
    return known.melt("flight_date", var_name="value", value_name="rate").dropna(subset="rate")


def build_features(departures: pd.DataFrame, lateness: pd.DataFrame, aircraft: pd.DataFrame) -> pd.DataFrame:
    """One row per departure, by day and departure_id: departure_id, flight_date, origin and the columns of `FEATURES`.

    Args:
        departures: rows of marts/departures; its outcome columns are not looked at.
        lateness: rows of marts/daily_lateness of earlier days.
        aircraft: all of marts/aircraft.
    """
    # A warehouse gives rows in no order; equal content must have an equal data version.
    ordered = departures.sort_values(["flight_date", "departure_id"], ignore_index=True)
    frame = ordered.merge(aircraft, on="tail_number", how="left", validate="many_to_one")
    flight_day = pd.to_datetime(frame["flight_date"])
    features = frame[["departure_id", "flight_date", "origin", "carrier", "destination"]].copy()
    features["engine_type"] = frame["engine_type"].fillna("unknown")
    features["day_of_week"] = flight_day.dt.dayofweek
    features["scheduled_minute"] = frame["scheduled_departure_at"].dt.tz_convert("America/New_York").dt.minute
    features["aircraft_age_years"] = flight_day.dt.year - frame["year_built"]
    features["aircraft_seats"] = frame["seats"]
    as_they_are = [c for c in NUMBERS if c in frame.columns]
    features[as_they_are] = frame[as_they_are]

    days = pd.DatetimeIndex(flight_day.unique())
    lateness = lateness.assign(flight_date=pd.to_datetime(lateness["flight_date"]))
    hour = frame["origin"] + "/" + frame["scheduled_hour"].astype(int).astype(str).str.zfill(2)
    flight = frame["carrier"] + "/" + frame["flight_number"].astype(str) + "/" + frame["origin"]
    for column, dimension, value, window in [
        ("carrier_late_rate", "carrier", frame["carrier"], by.HISTORY_DAYS),
        ("destination_late_rate", "destination", frame["destination"], by.HISTORY_DAYS),
        ("tail_number_late_rate", "tail_number", frame["tail_number"], by.HISTORY_DAYS),
        ("origin_hour_late_rate", "origin_hour", hour, by.HISTORY_DAYS),
        ("flight_late_rate", "flight", flight, by.HISTORY_DAYS),
        ("origin_late_rate_yesterday", "origin", frame["origin"], 1),
        ("origin_late_rate_week", "origin", frame["origin"], 7),
    ]:
        rates = late_rates(lateness, dimension, days, window)
        keys = pd.DataFrame({"flight_date": flight_day, "value": value})
        features[column] = keys.merge(rates, on=["flight_date", "value"], how="left")["rate"].to_numpy()

    features[NUMBERS] = features[NUMBERS].astype(np.float64)
    return features[["departure_id", "flight_date", "origin", *FEATURES]]


@dg.asset(
    key=["features", "departures"],
    partitions_def=by.days,
    backfill_policy=by.one_step,
    ins={
        "departures": dg.AssetIn(["marts", "departures"], input_manager_key="warehouse_io"),
        "lateness": dg.AssetIn(
            ["marts", "daily_lateness"],
            partition_mapping=by.history,
            input_manager_key="warehouse_io",
            metadata=OPTIONAL,
        ),
        "aircraft": dg.AssetIn(["marts", "aircraft"], input_manager_key="warehouse_io", metadata=REFERENCE),
    },
    metadata={"partition_expr": "flight_date"},
    automation_condition=on_new_data(),
    freshness_policy=DAILY,
    pool="warehouse",
    group_name="features",
    owners=["team:flights"],
    kinds={"pandas", "deltalake"},
)
def departure_features(departures: pd.DataFrame, lateness: pd.DataFrame, aircraft: pd.DataFrame) -> pd.DataFrame:
    """What is known of a departure before its scheduled hour: calendar, route, aircraft, the weather observed in the
    hour before, the crowd at the airport, and how late its like arrived on the 28 days before.

    One row per scheduled departure. A test changes the future and finds these rows unchanged.
    """
    return build_features(departures, lateness, aircraft)


def window_of(month: str) -> tuple[date, date]:
    """First and last day of the training window that ends with `month` (YYYY-MM)."""
    end = pd.Period(month, "M")
    return (end - (by.TRAINING_MONTHS - 1)).start_time.date(), end.end_time.date()


@dg.asset(
    key=["features", "training_set"],
    partitions_def=by.months,
    backfill_policy=by.one_step,
    ins={
        "features": dg.AssetIn(["features", "departures"], partition_mapping=by.training_window),
        "departures": dg.AssetIn(
            ["marts", "departures"],
            partition_mapping=by.training_window,
            input_manager_key="warehouse_io",
            metadata={"columns": ["departure_id", "flight_date", "late"]},
        ),
    },
    metadata={"partition_expr": "month"},
    automation_condition=on_complete_window(again="*/10 * * * *"),
    freshness_policy=MONTHLY,
    pool="warehouse",
    group_name="features",
    owners=["team:flights"],
    kinds={"pandas", "deltalake"},
)
def training_set(context: dg.AssetExecutionContext, features: pd.DataFrame, departures: pd.DataFrame) -> pd.DataFrame:
    """The versioned snapshot that a month's models are trained on: that month and the two before it (fewer at the
    start of the record), with the label.

    One row per departure that arrived: month (the window's last), the features, late (15 minutes or more after
    schedule, the US DOT's definition). Departures with no arrival, cancelled or diverted, have no label; they are
    kept out and counted.
    """
    labelled = features.merge(
        departures[["departure_id", "late"]], on="departure_id", how="left", validate="one_to_one"
    )
    sets = []
    for month in context.partition_keys:
        first, last = window_of(month)
        window = labelled[labelled["flight_date"].between(first, last)]
        arrived = window.dropna(subset="late").astype({"late": bool})
        context.add_asset_metadata(
            {
                "rows": len(arrived),
                "no_arrival": len(window) - len(arrived),
                "late_share": float(arrived["late"].mean()),
                "window": f"{window['flight_date'].min()} to {window['flight_date'].max()}",
            },
            partition_key=month,
        )
        sets.append(arrived.assign(month=month))
    return pd.concat(sets, ignore_index=True)
