"""Scores agree with their definitions."""

import numpy as np
import pandas as pd
import pytest
from hypothesis import given
from hypothesis import strategies as st
from sklearn.linear_model import LogisticRegression

from assets.flights.scoring import (
    calibration_plot,
    calibration_table,
    fingerprint,
    fingerprints,
    probability_scores,
)
from resources.registry import StoredModel


def test_scores_of_a_small_case_worked_by_hand() -> None:
    late = pd.Series([True, False, True, False])
    probability = pd.Series([0.8, 0.4, 0.3, 0.1])
    scores = probability_scores(late, probability)
    assert scores["rows"] == 4
    assert scores["late_share"] == 0.5
    assert scores["auc"] == 0.75  # of four pairs one is the wrong way round: 0.3 late below 0.4 on time
    assert scores["brier"] == pytest.approx((0.2**2 + 0.4**2 + 0.7**2 + 0.1**2) / 4)
    assert scores["log_loss"] == pytest.approx(-np.log([0.8, 0.6, 0.3, 0.9]).mean())
    assert scores["calibration_error"] == pytest.approx((0.2 + 0.4 + 0.7 + 0.1) / 4)


def test_one_class_has_no_auc_but_all_other_scores() -> None:
    scores = probability_scores(pd.Series([False, False]), pd.Series([0.1, 0.2]))
    assert np.isnan(scores.pop("auc"))
    assert np.isfinite(list(scores.values())).all()


@given(st.lists(st.tuples(st.booleans(), st.floats(0.001, 0.999)), min_size=1, max_size=200))
def test_calibration_bins_hold_every_row_once(rows: list[tuple[bool, float]]) -> None:
    late, probability = pd.Series([r[0] for r in rows]), pd.Series([r[1] for r in rows])
    table = calibration_table(late, probability)
    assert table["rows"].sum() == len(rows)
    assert (table["observed"] * table["rows"]).sum() == pytest.approx(late.sum())
    assert table["rows"].max() - table["rows"].min() <= 1


def test_the_calibration_plot_is_a_picture_in_markdown() -> None:
    plot = calibration_plot(pd.Series([True, False] * 20), pd.Series(np.linspace(0.1, 0.9, 40)), "2013-03|EWR")
    assert str(plot.value).startswith("![2013-03|EWR](data:image/png;base64,iVBORw0KGgo")


def test_models_that_say_the_same_have_the_same_data_version() -> None:
    numbers = pd.DataFrame({"number": np.linspace(-1, 1, 50)})

    def version(shift: float) -> str:
        late = np.random.default_rng(0).random(50) < 0.5
        model = LogisticRegression().fit(numbers, late)
        model.intercept_ = model.intercept_ + shift
        stored = StoredModel(model, {"fingerprint": fingerprint(model, numbers)})
        return fingerprints({"2013-01|JFK": stored})["2013-01|JFK"]

    assert version(0) == version(1e-13)
    assert version(0) != version(1e-6)
