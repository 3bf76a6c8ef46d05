"""A feature of a departure uses only what was known before its scheduled hour: another future leaves it as it was."""

import gzip
import json
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import dagster as dg
import pandas as pd
import pytest
from hypothesis import Phase, given, settings
from hypothesis import strategies as st

from assets.flights.dbt_models import project
from assets.flights.features import NUMBERS, build_features
from tests.example import DAILY_DBT, DAILY_RAW, FEATURES, FIVE_DAYS, Platform, copied

DAYS = FIVE_DAYS
# It is noon in New York on this day: what is scheduled for the hour of noon has yet to leave.
TODAY, TOMORROW, NOON = DAYS[3], DAYS[4], 12
RATES = {column for column in NUMBERS if "late_rate" in column}
WEATHER = {"temperature_f", "humidity_percent", "visibility_miles", "wind_speed_mph", "precipitation_inches"}
OUTCOMES = ["dep_time", "dep_delay", "arr_time", "arr_delay", "air_time"]

Line = dict[str, str]


@dataclass
class World:
    """What a platform makes of a record."""

    features: pd.DataFrame  # by departure
    flights: pd.DataFrame  # raw, by their key
    weather: pd.DataFrame  # raw, by their key
    marts: list[pd.DataFrame]  # departures, daily_lateness, aircraft


# The real one; the same with another future after today's noon; the latter with another first day as well.
Worlds = tuple[World, World, World]


def edit(platform: Platform, table: str, day: str, change: Callable[[Line], Line | None]) -> None:
    """Land the day's file again with its lines changed; a line that becomes None is left out."""
    header, *lines = gzip.decompress(platform.landing.read(table, f"{day}.csv.gz")).decode().splitlines()
    changed = [change(dict(zip(header.split(","), line.split(","), strict=True))) for line in lines]
    texts = [header, *(",".join(line.values()) for line in changed if line)]
    platform.landing.put(table, f"{day}.csv.gz", gzip.compress("".join(f"{text}\n" for text in texts).encode()))


def another_outcome(line: Line) -> Line:
    """All that is known only after the scheduled hour: what was late is cancelled, everything else becomes late.

    Which flights are scheduled, with carrier, destination and aircraft, is published before, so that stays.
    """
    late = line["arr_delay"] != "NA" and int(line["arr_delay"]) >= 15
    return line | dict(zip(OUTCOMES, ["NA"] * 5 if late else ["417", "301", "419", "303", "7"], strict=True))


def another_schedule(line: Line) -> Line | None:
    """Of a later day everything may be otherwise: some flights are gone, and others have another aircraft."""
    return [None, another_outcome(line) | {"tailnum": "N0000"}, another_outcome(line)][int(line["flight"]) % 3]


def another_sky(line: Line) -> Line:
    halved = {name: str(float(line[name]) / 2 + 0.123) for name in ("temp", "humid", "visib") if line[name] != "NA"}
    return line | halved | {"wind_speed": "99", "precip": "9"}


def world(platform: Platform) -> World:
    features = platform.lake.read(dg.AssetKey(["features", "departures"])).to_pandas().set_index("departure_id")
    flights = platform.rows("raw.flights").astype({"flight_date": str})
    weather = platform.rows("raw.weather").astype({"observation_date": str})
    return World(
        features.astype({"flight_date": str}).sort_index(),
        flights.set_index(["flight_date", "carrier", "flight", "origin", "sched_dep_time"]).sort_index(),
        weather.set_index(["observation_date", "origin", "time_hour"]).sort_index(),
        [platform.rows(f"marts.{table}") for table in ("departures", "daily_lateness", "aircraft")],
    )


@pytest.fixture(scope="module")
def worlds(with_five_days: Path, tmp_path_factory: pytest.TempPathFactory) -> Worlds:
    with copied(with_five_days, tmp_path_factory.mktemp("state")) as platform:

        def made_again() -> World:
            platform.make([*DAILY_RAW, *DAILY_DBT, *FEATURES], DAYS[0], DAYS[-1])
            return world(platform)

        real = world(platform)
        edit(platform, "flights", TODAY, another_outcome)
        edit(platform, "weather", TODAY, lambda line: another_sky(line) if int(line["hour"]) >= NOON else line)
        edit(platform, "flights", TOMORROW, another_schedule)
        edit(platform, "weather", TOMORROW, another_sky)
        other_future = made_again()
        edit(platform, "flights", DAYS[0], another_outcome)
        return real, other_future, made_again()


def changed(one: pd.DataFrame, other: pd.DataFrame) -> pd.DataFrame:
    """Which values of rows that both have are otherwise; missing is equal to missing."""
    return (one != other) & ~(one.isna() & other.isna())


def test_features_of_what_has_yet_to_leave_at_noon_are_the_same_in_every_future(worlds: Worlds) -> None:
    real, other_future, _ = worlds
    features = real.features
    morning = (features["flight_date"] == TODAY) & (features["scheduled_hour"] <= NOON)
    known = features[(features["flight_date"] < TODAY) | morning]

    assert set(known["flight_date"]) == set(DAYS[:4])
    assert features[morning]["scheduled_hour"].max() == NOON
    pd.testing.assert_frame_equal(other_future.features.loc[known.index], known, check_exact=True)


def test_the_other_future_is_another_one_in_every_outcome_and_observation(worlds: Worlds) -> None:
    real, other_future, _ = worlds
    flights = changed(real.flights.loc[TODAY], other_future.flights.loc[TODAY])
    weather = changed(real.weather.loc[TODAY], other_future.weather.loc[TODAY])
    afternoon = real.weather.loc[TODAY, "hour"] >= NOON

    assert flights[OUTCOMES].all(axis=None)
    assert not flights.drop(columns=OUTCOMES).any(axis=None)
    assert weather[afternoon][["temp", "wind_speed", "precip"]].all(axis=None)
    assert not weather[~afternoon].any(axis=None)
    assert 0 < len(other_future.flights.loc[TOMORROW]) < len(real.flights.loc[TOMORROW])


def test_of_the_afternoon_only_the_weather_changes_and_it_does(worlds: Worlds) -> None:
    real, other_future, _ = worlds
    features = real.features
    afternoon = features[(features["flight_date"] == TODAY) & (features["scheduled_hour"] > NOON)]
    differs = changed(afternoon, other_future.features.loc[afternoon.index])
    observed = afternoon["temperature_f"].notna()

    assert observed.any()
    assert differs["temperature_f"].equals(observed)
    assert set(differs.columns[differs.any()]) == WEATHER


def test_outcomes_change_the_history_rates_of_later_days_and_nothing_else(worlds: Worlds) -> None:
    _, before, after = worlds
    differs = changed(before.features, after.features).groupby(before.features["flight_date"]).any()

    assert not differs.loc[DAYS[0]].any()
    for day in DAYS[1:]:
        # Yesterday's rate is of the first day on the second day only.
        expected = RATES if day == DAYS[1] else RATES - {"origin_late_rate_yesterday"}
        assert set(differs.columns[differs.loc[day]]) == expected


def test_the_weather_of_a_departure_is_that_of_the_hour_before_the_scheduled_one(worlds: Worlds) -> None:
    weather, features = worlds[0].weather.reset_index(), worlds[0].features
    weather["next_hour"] = pd.to_datetime(weather["observation_date"]) + pd.to_timedelta(weather["hour"] + 1, unit="h")
    scheduled = pd.to_datetime(features["flight_date"]) + pd.to_timedelta(features["scheduled_hour"], unit="h")
    keys = pd.MultiIndex.from_arrays([features["origin"], scheduled])
    observed = weather.set_index(["origin", "next_hour"]).reindex(keys)

    for column, feature in [("temp", "temperature_f"), ("wind_dir", "wind_direction_degrees"), ("dewp", "dew_point_f")]:
        assert observed[column].notna().any()
        assert observed[column].reset_index(drop=True).equals(features[feature].reset_index(drop=True))


def test_features_do_not_look_at_the_outcomes_of_the_departures_given(worlds: Worlds) -> None:
    columns = json.loads(project.manifest_path.read_text())["nodes"]["model.flights.departures"]["columns"]
    outcomes = [name for name, column in columns.items() if column["description"].startswith("Outcome.")]
    departures, *others = worlds[0].marts
    shuffled = departures.assign(**{name: departures[name].to_numpy()[::-1] for name in outcomes})

    assert "late" in outcomes
    assert not shuffled.equals(departures)
    expected = build_features(departures, *others)
    pd.testing.assert_frame_equal(build_features(shuffled, *others), expected, check_exact=True)
    pd.testing.assert_frame_equal(
        build_features(departures.drop(columns=outcomes), *others), expected, check_exact=True
    )


@pytest.fixture(scope="module")
def few(worlds: Worlds) -> tuple[pd.DataFrame, ...]:
    """Some departures, lateness, all aircraft, and the features of these departures: enough to be quick about it."""
    departures, lateness, aircraft = worlds[0].marts
    departures, lateness = departures[::40], lateness[::10]
    return departures, lateness, aircraft, build_features(departures, lateness, aircraft)


# Not shrunk when it fails: an example takes too long for the hundreds of trials, and its values say enough.
@settings(max_examples=12, phases=[Phase.generate])
@given(st.sampled_from(DAYS), st.floats(0, 1), st.integers(1, 500), st.floats(0, 1), st.integers(0, 99))
def test_lateness_of_a_day_and_of_later_ones_changes_none_of_its_features(
    few: tuple[pd.DataFrame, ...], day: str, kept: float, more: int, late: float, seed: int
) -> None:
    departures, lateness, aircraft, expected = few
    future = lateness["flight_date"].astype(str) >= day
    other = lateness[future].sample(frac=kept, random_state=seed)
    other = other.assign(arrivals=other["arrivals"] + more, late_arrivals=lambda rows: rows["arrivals"] * late // 1)

    found = build_features(departures, pd.concat([lateness[~future], other]), aircraft)
    until = expected["flight_date"].astype(str) <= day
    pd.testing.assert_frame_equal(found[until], expected[until], check_exact=True)
