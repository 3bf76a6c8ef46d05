"""The flights code location: everything that Dagster loads for this domain."""

import dagster as dg

from assets.flights.dbt_models import daily_models, project, reference_models
from assets.flights.features import departure_features, training_set
from assets.flights.lag import partition_lag
from assets.flights.models import (
    TENSOR_MODELS,
    TRUSTED_TYPES,
    delay_boosted,
    delay_champion,
    delay_logistic,
    delay_neural,
    in_service,
)
from assets.flights.predictions import delays, prediction_quality
from assets.flights.sensors import automation_sensors, reconcilers, reference_tables, weekly_reference_tables
from assets.flights.tables import TABLES, raw_tables
from resources import code_location
from resources.landing import LandingZone
from resources.registry import ModelIOManager, ModelRegistry
from tilth.settings import Deployment


def definitions(deployment: Deployment) -> dg.Definitions:
    """The domain's assets and automation on the stores of `deployment`."""
    lag_checks, lag_sensor = partition_lag(LandingZone.of(deployment))
    return code_location(
        "assets.flights.definitions",
        settings=deployment,
        landing=TABLES,
        dbt=project.project_dir,
        assets=[
            *raw_tables,
            reference_models,
            daily_models,
            departure_features,
            training_set,
            delay_logistic,
            delay_boosted,
            delay_neural,
            delay_champion,
            in_service,
            delays,
            prediction_quality,
        ],
        checks=lag_checks,
        sensors=[*automation_sensors, *reconcilers, lag_sensor],
        jobs=[reference_tables],
        schedules=[weekly_reference_tables],
        resources={"model_io": ModelIOManager(ModelRegistry.of(deployment, TRUSTED_TYPES, TENSOR_MODELS))},
        preload=[
            "assets.flights.estimators",
            "sklearn.metrics",
            "skops.io",
            "safetensors.numpy",
            "matplotlib.figure",
        ],
    )


defs = definitions(Deployment())
