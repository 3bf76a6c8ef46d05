"""Candidate models per month and airport, the champion among them, and who serves when."""

from collections.abc import Callable, Mapping
from functools import partial
from importlib.util import find_spec
from typing import Any

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa

from assets.flights import partitions as by
from assets.flights.features import CATEGORIES, NUMBERS
from assets.flights.freshness import MONTHLY
from assets.flights.neural import NeuralClassifier
from assets.flights.parameters import BoostedParameters, LogisticParameters, NeuralParameters
from assets.flights.scoring import (
    calibration_plot,
    fingerprint,
    fingerprints,
    one_thread,
    probability_scores,
)
from resources.registry import StoredModel
from tilth.automation.conditions import on_changed_data, on_new_data
from tilth.execution.compute import compute
from tilth.execution.partitions import for_each_partition
from tilth.execution.shared_frames import Sliced
from tilth.execution.timeouts import timeout
from tilth.versioning.explain import triggers
from tilth.versioning.inputs import OPTIONAL
from tilth.versioning.partitions import set_data_versions

# Every type beyond skops' own safe list that a stored model of this domain may hold. Reviewed when a candidate is
# added, since loading a file constructs these: the trees' tables, and the check that scikit-learn's own preprocessing
# of categories applies, as a partial function (of a function that must itself be on this list).
TRUSTED_TYPES = [
    "numpy.dtype",
    "sklearn.ensemble._hist_gradient_boosting.predictor.TreePredictor",
    "functools.partial",
    "sklearn.utils.validation.check_array",
]
TENSOR_MODELS = [NeuralClassifier]  # stored as safetensors instead

Parameters = LogisticParameters | BoostedParameters | NeuralParameters

# Found without loading it. Where it is not, nothing asks by itself for what could only fail.
PYTORCH_INSTALLED = find_spec("torch") is not None


def train(
    window: pd.DataFrame, build: Callable[[list[str]], Any], holdout_share: float, card: Mapping[str, Any]
) -> tuple[StoredModel, pd.DataFrame]:
    """Fit on the earlier days of the window, measure on the later ones, then fit again on all of them.

    Returns:
        The model fitted on the whole window, its card with the metrics of the held-out days; and those days' rows
        with columns late and probability.

    Raises:
        ValueError: the earlier days hold one class only.
    """
    days = np.sort(window["flight_date"].unique())
    held_out_from = days[-max(1, round(len(days) * holdout_share))]
    earlier, later = (
        window[window["flight_date"] < held_out_from],
        window[window["flight_date"] >= held_out_from],
    )
    if earlier["late"].nunique() < 2:
        raise ValueError(
            f"{card['asset']} {card['partition']}: the {len(earlier)} rows before {held_out_from} hold one class "
            "only. Land more days of the window, then run this partition again."
        )
    # A number that never varies teaches nothing, and scikit-learn 1.9 cannot bin one that is always missing.
    numbers = [name for name in NUMBERS if earlier[name].min() < earlier[name].max()]
    features = CATEGORIES + numbers
    with one_thread():
        trial = build(numbers).fit(earlier[features], earlier["late"])
        judged = pd.DataFrame({"late": later["late"], "probability": trial.predict_proba(later[features])[:, 1]})
        final = build(numbers).fit(window[features], window["late"])
    return StoredModel(
        final,
        {
            **card,
            "features": features,
            "fingerprint": fingerprint(final, window[features]),
            "metrics": probability_scores(judged["late"], judged["probability"]),
            "trained_rows": len(window),
            "trained_from": str(days[0]),
            "trained_through": str(days[-1]),
            "held_out_from": str(held_out_from),
        },
    ), judged


def train_partition(
    partition: str,
    training_set: pa.Table,
    *,
    asset: str,
    build: Callable[[list[str]], Any],
    parameters: Parameters,
) -> dg.MaterializeResult[StoredModel]:
    """A candidate for one month and airport, with its metrics and calibration plot as metadata.

    `training_set` holds the rows of this partition's window and airport.
    """
    card = {"asset": asset, "partition": partition, "parameters": parameters.model_dump()}
    model, judged = train(training_set.to_pandas(), build, parameters.holdout_share, card)
    return dg.MaterializeResult(
        value=model,
        metadata={
            **model.card["metrics"],
            "trained_rows": model.card["trained_rows"],
            "window": f"{model.card['trained_from']} to {model.card['trained_through']}",
            "held_out_from": model.card["held_out_from"],
            "parameters": dg.MetadataValue.json(model.card["parameters"]),
            "calibration": calibration_plot(judged["late"], judged["probability"], f"{partition} held-out days"),
        },
        data_version=dg.DataVersion(model.card["fingerprint"]),
    )


def train_partitions(
    context: dg.AssetExecutionContext,
    training_set: pa.Table,
    build: Callable[[list[str]], Any],
    parameters: Parameters,
) -> dg.MaterializeResult[Any]:
    """A candidate for every month and airport of the step, each stored as soon as it is trained."""
    asset = context.asset_key.to_user_string()
    causes = triggers(context, context.partition_keys, by.ORIGIN)
    for partition, cause in causes.items():
        context.add_asset_metadata({"triggered_by": cause}, partition_key=partition)
    return for_each_partition(
        context,
        partial(train_partition, asset=asset, build=build, parameters=parameters),
        training_set=Sliced(training_set, by=["month", "origin"]),
    )


CANDIDATE = {
    "partitions_def": by.models,
    "backfill_policy": by.training_runs,
    "ins": {"training_set": dg.AssetIn(["features", "training_set"], partition_mapping=by.month_of)},
    "automation_condition": on_changed_data(),
    "io_manager_key": "model_io",
    "op_tags": timeout("6h"),  # nobody waits for a fit that hangs
    "group_name": "models",
    "owners": ["team:flights"],
}


@dg.asset(key=["models", "delay_logistic"], kinds={"scikitlearn"}, **CANDIDATE)
def delay_logistic(
    context: dg.AssetExecutionContext, config: LogisticParameters, training_set: pa.Table
) -> dg.MaterializeResult[Any]:
    """Logistic regression of arriving late, one per airport of origin, trained on a rolling window.

    Metrics are of the window's last days, held out in time order; the stored model is then fitted on all of it.
    """
    from assets.flights.estimators import logistic  # scikit-learn is for the processes that train

    return train_partitions(context, training_set, partial(logistic, config), config)


@dg.asset(key=["models", "delay_boosted"], kinds={"scikitlearn"}, **CANDIDATE)
def delay_boosted(
    context: dg.AssetExecutionContext, config: BoostedParameters, training_set: pa.Table
) -> dg.MaterializeResult[Any]:
    """Gradient-boosted trees for arriving late, one per airport of origin, trained on a rolling window.

    Metrics are of the window's last days, held out in time order; the stored model is then fitted on all of it.
    """
    from assets.flights.estimators import boosted

    return train_partitions(context, training_set, partial(boosted, config), config)


NEURAL_CANDIDATE = {
    **CANDIDATE,
    "automation_condition": on_changed_data() if PYTORCH_INSTALLED else None,
    "op_tags": compute(cpu=2, memory="8Gi", gpu=1, timeout="6h"),
}


@dg.asset(key=["models", "delay_neural"], kinds={"pytorch"}, **NEURAL_CANDIDATE)
def delay_neural(
    context: dg.AssetExecutionContext, config: NeuralParameters, training_set: pa.Table
) -> dg.MaterializeResult[Any]:
    """A neural network for arriving late, one per airport of origin, trained on a rolling window; on a GPU where there
    is one. It needs the extra `gpu`; what scores with it does not.

    Metrics are of the window's last days, held out in time order; the stored model is then fitted on all of it.
    """
    if not PYTORCH_INSTALLED:
        raise dg.Failure(
            "models/delay_neural is trained with PyTorch, which is not installed here: it is in the extra `gpu`. "
            "Install that with `uv pip install -r requirements/gpu.lock`, or the same by pip, and materialize these "
            "partitions again; on Kubernetes, give the code location the image `gpu`. The champion is chosen without.",
            allow_retries=False,
        )
    return train_partitions(context, training_set, partial(NeuralClassifier, config), config)


@dg.asset(
    key=["models", "delay_champion"],
    partitions_def=by.models,
    backfill_policy=by.one_step,
    ins={
        "logistic": dg.AssetIn(["models", "delay_logistic"]),
        "boosted": dg.AssetIn(["models", "delay_boosted"]),
        "neural": dg.AssetIn(["models", "delay_neural"], metadata=OPTIONAL),
    },
    automation_condition=on_new_data(),
    freshness_policy=MONTHLY,
    io_manager_key="model_io",
    group_name="models",
    owners=["team:flights"],
    kinds={"scikitlearn"},
)
def delay_champion(
    context: dg.AssetExecutionContext,
    logistic: dict[str, StoredModel],
    boosted: dict[str, StoredModel],
    neural: dict[str, StoredModel],
) -> dict[str, StoredModel]:
    """The candidate with the lowest log loss on the held-out days of its window, per month and airport.

    The neural one takes part where it is stored and was judged on the same rows. It is trained in runs of its own; when
    it comes later, the candidates are compared again.
    """
    champions = {}
    causes = triggers(context, context.partition_keys, by.ORIGIN)
    for partition in context.partition_keys:
        candidates = [found[partition] for found in (logistic, boosted) if partition in found]
        judged = {judged_on(model) for model in candidates}
        if len(judged) > 1:
            raise ValueError(
                f"models/delay_champion {partition}: the candidates were judged on different rows (from, how many: "
                f"{sorted(judged)}); train them on one training set with one holdout_share, then compare them."
            )
        if joining := neural.get(partition):
            if judged in (set(), {judged_on(joining)}):
                candidates.append(joining)
            else:
                context.log.warning(
                    f"{partition}: models/delay_neural was judged on other rows (from, how many: {judged_on(joining)}) "
                    f"than the others ({judged.pop()}) and is left out; train it on the present training set."
                )
        if not candidates:
            raise ValueError(f"models/delay_champion {partition}: no candidate is stored; train one first.")
        champion = min(candidates, key=lambda model: model.card["metrics"]["log_loss"])
        champions[partition] = champion
        context.add_asset_metadata(
            {
                "candidate": champion.card["asset"],
                "triggered_by": causes[partition],
                **champion.card["metrics"],
                "comparison": comparison_table(candidates),
                "window": f"{champion.card['trained_from']} to {champion.card['trained_through']}",
            },
            partition_key=partition,
        )
    set_data_versions(context, context.asset_key, fingerprints(champions))
    return champions


def judged_on(model: StoredModel) -> tuple[str, int]:
    """The first of the days that a candidate's metrics are of, and their rows."""
    return model.card["held_out_from"], model.card["metrics"]["rows"]


def comparison_table(candidates: list[StoredModel]) -> dg.MetadataValue:
    """The candidates' metrics side by side, as markdown."""
    names = ["log_loss", "auc", "brier", "calibration_error"]
    lines = ["| candidate | " + " | ".join(names) + " |", "|---" * (len(names) + 1) + "|"]
    for model in candidates:
        metrics = model.card["metrics"]
        lines.append(f"| {model.card['asset']} | " + " | ".join(f"{metrics[n]:.4f}" for n in names) + " |")
    return dg.MetadataValue.md("\n".join(lines))


@dg.asset(
    key=["models", "in_service"],
    partitions_def=by.service,
    backfill_policy=by.one_step,
    ins={
        "champions": dg.AssetIn(["models", "delay_champion"], partition_mapping=by.earlier_champions, metadata=OPTIONAL)
    },
    automation_condition=on_changed_data(),
    io_manager_key="model_io",
    group_name="models",
    owners=["team:flights"],
    kinds={"scikitlearn"},
)
def in_service(context: dg.AssetExecutionContext, champions: dict[str, StoredModel]) -> dict[str, StoredModel]:
    """The model that scores a month's departures: the champion of the last complete month before it, up to three
    months back. Never one that has seen the month.
    """
    serving = {}
    causes = triggers(context, context.partition_keys, by.ORIGIN)
    for partition in context.partition_keys:
        month, origin = by.month_and_origin(partition)
        of_key = {key: by.month_and_origin(key) for key in champions}
        earlier = [key for key, (trained, airport) in of_key.items() if airport == origin and trained < month]
        if not earlier:
            raise ValueError(
                f"models/in_service {partition}: models/delay_champion holds no model for {origin} in the three months "
                f"before {month}; materialize one of them first."
            )
        serving[partition] = champions[max(earlier)]
        context.add_asset_metadata(
            {
                "champion": max(earlier),
                "candidate": serving[partition].card["asset"],
                "triggered_by": causes[partition],
            },
            partition_key=partition,
        )
    set_data_versions(context, context.asset_key, fingerprints(serving))
    return serving
