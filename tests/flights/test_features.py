"""Features know nothing of the departure's own day, and history rates are what their definition says."""

from datetime import date, timedelta

import pandas as pd
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from assets.flights.features import PRIOR_ARRIVALS, late_rates, window_of

FIRST = date(2013, 3, 1)

counts = st.lists(
    st.tuples(st.integers(0, 39), st.sampled_from(["AA", "UA"]), st.integers(1, 30), st.floats(0, 1)),
    min_size=1,
    max_size=60,
    unique_by=lambda row: row[:2],
)


def lateness(rows: list[tuple[int, str, int, float]]) -> pd.DataFrame:
    return pd.DataFrame(
        [
            {
                "flight_date": pd.Timestamp(FIRST + timedelta(days=day)),
                "dimension": "carrier",
                "value": carrier,
                "arrivals": arrivals,
                "late_arrivals": int(arrivals * share),
            }
            for day, carrier, arrivals, share in rows
        ]
    )


@settings(max_examples=40)
@given(counts, st.integers(0, 40), st.sampled_from([1, 7, 28]))
def test_a_history_rate_counts_exactly_the_days_of_its_window(
    rows: list[tuple[int, str, int, float]], offset: int, window: int
) -> None:
    table, day = lateness(rows), FIRST + timedelta(days=offset)
    rates = late_rates(table, "carrier", pd.DatetimeIndex([day]), window).set_index("value")["rate"]
    earlier = table[
        (table["flight_date"] < pd.Timestamp(day))
        & (table["flight_date"] >= pd.Timestamp(day - timedelta(days=window)))
    ]
    if earlier.empty:
        assert rates.empty
        return
    assert set(rates.index) == set(earlier["value"])
    overall = earlier["late_arrivals"].sum() / earlier["arrivals"].sum()
    for carrier, rate in rates.items():
        of_carrier = earlier[earlier["value"] == carrier]
        late, arrivals = of_carrier["late_arrivals"].sum(), of_carrier["arrivals"].sum()
        assert rate == pytest.approx((late + PRIOR_ARRIVALS * overall) / (arrivals + PRIOR_ARRIVALS))


@settings(max_examples=20)
@given(counts, st.integers(1, 40))
def test_a_day_has_the_same_rates_alone_and_in_a_range(rows: list[tuple[int, str, int, float]], offset: int) -> None:
    table = lateness(rows)
    days = pd.date_range(FIRST, periods=offset + 1)
    alone = late_rates(table, "carrier", days[-1:], 28).reset_index(drop=True)
    together = late_rates(table, "carrier", days, 28)
    pd.testing.assert_frame_equal(together[together["flight_date"] == days[-1]].reset_index(drop=True), alone)


@pytest.mark.parametrize(
    ("month", "window"),
    [
        ("2013-01", (date(2012, 11, 1), date(2013, 1, 31))),
        ("2013-02", (date(2012, 12, 1), date(2013, 2, 28))),
        ("2013-12", (date(2013, 10, 1), date(2013, 12, 31))),
    ],
)
def test_a_training_window_is_the_month_and_the_two_before_it(month: str, window: tuple[date, date]) -> None:
    assert window_of(month) == window
