"""Scores for each day's departures, and how they compare with what happened."""

import dagster as dg
import pandas as pd

from assets.flights import partitions as by
from assets.flights.freshness import DAILY
from assets.flights.scoring import calibration_plot, late_probability, probability_scores
from resources.registry import StoredModel
from tilth.automation.conditions import on_changed_data, on_new_data


@dg.asset(
    key=["predictions", "delays"],
    partitions_def=by.scored_days,
    backfill_policy=by.one_step,
    ins={
        "features": dg.AssetIn(["features", "departures"]),
        "models": dg.AssetIn(["models", "in_service"], partition_mapping=by.month_of),
    },
    metadata={"partition_expr": "flight_date"},
    automation_condition=on_changed_data(),
    freshness_policy=DAILY,
    group_name="predictions",
    owners=["team:flights"],
    kinds={"scikitlearn", "deltalake"},
)
def delays(features: pd.DataFrame, models: dict[str, StoredModel]) -> pd.DataFrame:
    """The probability that a scheduled departure arrives 15 minutes late or more, by the model in service.

    One row per scheduled departure: departure_id, flight_date, origin, probability (0 to 1), candidate, champion
    (the month and airport it was trained for).

    Raises:
        KeyError: no model is in service for a month and airport of the day.
    """
    columns = ["departure_id", "flight_date", "origin"]
    nothing = {"probability": pd.Series(dtype="float64"), "candidate": pd.Series(dtype="str")}
    scored = [features[columns].head(0).assign(**nothing, champion=nothing["candidate"])]
    month = pd.to_datetime(features["flight_date"]).dt.strftime("%Y-%m")
    for (served, origin), rows in features.groupby([month, "origin"], sort=True):
        if (partition := dg.MultiPartitionKey({"month": str(served), "origin": str(origin)})) not in models:
            raise KeyError(
                f"predictions/delays: models/in_service holds no model for {partition}; "
                "materialize that partition first."
            )
        model = models[partition]
        scored.append(
            rows[columns].assign(
                probability=late_probability(model, rows),
                candidate=model.card["asset"],
                champion=model.card["partition"],
            )
        )
    return pd.concat(scored).sort_index()


@dg.asset(
    key=["reports", "prediction_quality"],
    partitions_def=by.scored_days,
    backfill_policy=by.one_step,
    ins={
        "predictions": dg.AssetIn(["predictions", "delays"]),
        "departures": dg.AssetIn(
            ["marts", "departures"],
            input_manager_key="warehouse_io",
            metadata={"columns": ["departure_id", "flight_date", "late"]},
        ),
    },
    metadata={"partition_expr": "flight_date"},
    automation_condition=on_new_data(),
    pool="warehouse",
    group_name="reports",
    owners=["team:flights"],
    kinds={"pandas", "deltalake"},
)
def prediction_quality(
    context: dg.AssetExecutionContext, predictions: pd.DataFrame, departures: pd.DataFrame
) -> pd.DataFrame:
    """The day's predictions against what happened.

    One row per day and airport: flight_date, origin, departures, rows (those that arrived), late_share, auc, log_loss
    (nats), brier, calibration_error; auc is empty where all or none were late.
    """
    joined = predictions.merge(
        departures[["departure_id", "late"]], on="departure_id", how="left", validate="one_to_one"
    )
    arrived = joined.dropna(subset="late").astype({"late": bool})
    rows = []
    for (day, origin), group in joined.groupby(["flight_date", "origin"], sort=True):
        known = arrived.loc[arrived.index.intersection(group.index)]
        scores = probability_scores(known["late"], known["probability"]) if len(known) else {"rows": 0}
        rows.append({"flight_date": day, "origin": origin, "departures": len(group), **scores})
    for day, known in arrived.groupby("flight_date"):
        scores = probability_scores(known["late"], known["probability"])
        context.add_asset_metadata(
            {name: value for name, value in scores.items() if pd.notna(value)}, partition_key=str(day)
        )
    if len(arrived):
        first, last = arrived["flight_date"].min(), arrived["flight_date"].max()
        title = f"{first}" if first == last else f"{first} to {last}"
        context.add_asset_metadata({"calibration": calibration_plot(arrived["late"], arrived["probability"], title)})
    measures = ["auc", "log_loss", "brier", "calibration_error", "late_share"]
    return pd.DataFrame(rows, columns=["flight_date", "origin", "departures", "rows", *measures]).astype(
        {**dict.fromkeys(measures, float), "departures": int, "rows": int}
    )
