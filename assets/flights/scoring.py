"""How good probabilities of arriving late are: scores and the calibration plot.

scikit-learn and matplotlib are imported where they are used: every process of the platform loads the definitions, and
these two would take longer than all else in them.
"""

import base64
import hashlib
import io
from collections.abc import Mapping
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
from threadpoolctl import threadpool_limits

from resources.registry import StoredModel

CALIBRATION_BINS = 10


def one_thread() -> threadpool_limits:
    """A context in which BLAS and OpenMP use one thread.

    A month of one airport is too small for more: alone on two cores a boosted fit takes as long with one thread as with
    two, and with one core busy elsewhere the threads' barriers made it take ten times as long.
    """
    return threadpool_limits(limits=1)


def late_probability(model: StoredModel, features: pd.DataFrame) -> np.ndarray:
    """The model's probability of arriving late (0 to 1) for each row of features."""
    with one_thread():
        return model.estimator.predict_proba(features[model.card["features"]])[:, 1]


def calibration_table(late: pd.Series, probability: pd.Series) -> pd.DataFrame:
    """Ten bins of equal count by predicted probability: predicted (mean), observed (late share), rows."""
    bins = pd.qcut(probability.rank(method="first"), min(CALIBRATION_BINS, len(probability)), labels=False)
    rows = pd.DataFrame({"bin": bins, "predicted": probability, "observed": late.astype(float)})
    return rows.groupby("bin").agg(
        predicted=("predicted", "mean"), observed=("observed", "mean"), rows=("predicted", "size")
    )


def probability_scores(late: pd.Series, probability: pd.Series) -> dict[str, float | int]:
    """Scores of predicted probabilities against what happened.

    Returns:
        rows; late_share; auc (NaN where only one class occurred); log_loss in nats; brier; calibration_error, the mean
        over ten equal-count bins of |predicted - observed|, weighted by rows (expected calibration error, Naeini et
        al. 2015, with equal-count bins).
    """
    from sklearn.metrics import brier_score_loss, log_loss, roc_auc_score

    table = calibration_table(late, probability)
    gap = (table["predicted"] - table["observed"]).abs()
    return {
        "rows": len(late),
        "late_share": float(late.mean()),
        "auc": float(roc_auc_score(late, probability)) if late.nunique() == 2 else float("nan"),
        "log_loss": float(log_loss(late, probability, labels=[False, True])),
        "brier": float(brier_score_loss(late, probability)),
        "calibration_error": float(np.average(gap, weights=table["rows"])),
    }


def calibration_plot(late: pd.Series, probability: pd.Series, title: str) -> dg.MetadataValue:
    """Predicted against observed share of late arrivals, as a picture in markdown."""
    from matplotlib.figure import Figure

    table = calibration_table(late, probability)
    figure = Figure(figsize=(3.6, 3.2), dpi=80, layout="constrained")
    axes = figure.add_subplot()
    limit = float(np.ceil(max(table["predicted"].max(), table["observed"].max()) * 10 + 0.5) / 10)
    axes.plot([0, limit], [0, limit], color="0.7", linewidth=1)
    axes.plot(table["predicted"], table["observed"], marker="o", markersize=4, color="#3b5bdb")
    axes.set(xlim=(0, limit), ylim=(0, limit), xlabel="predicted", ylabel="observed late share")
    axes.set_title(title, fontsize=9)
    picture = io.BytesIO()
    figure.savefig(picture, format="png")
    encoded = base64.b64encode(picture.getvalue()).decode()
    return dg.MetadataValue.md(f"![{title}](data:image/png;base64,{encoded})")


def fingerprint(estimator: Any, features: pd.DataFrame) -> str:
    """A hash of what the estimator predicts for these features, to nine digits: equal for models that say the same,
    where skops files of one model differ in bytes from run to run.
    """
    with one_thread():
        probability = estimator.predict_proba(features)[:, 1]
    return hashlib.sha256(np.round(probability, 9).tobytes()).hexdigest()[:16]


def fingerprints(models: Mapping[str, StoredModel]) -> dict[str, str]:
    """The data version of each partition's model: the fingerprint on its card."""
    return {partition: model.card["fingerprint"] for partition, model in models.items()}
