"""The flights code location: everything that Dagster loads for this domain."""

import dagster as dg

from tilth.execution.executor import executor_of
from tilth.settings import Deployment

# Before the other imports, which take less time after it.
executor = executor_of(
    Deployment(),
    "assets.flights.definitions",
    "assets.flights.schemas",
    "resources.ingestion.validation",
    "adbc_driver_duckdb.dbapi",
    "resources.dbt_runner",
    in_template=[
        "assets.flights.estimators",
        "sklearn.metrics",
        "skops.io",
        "safetensors.numpy",
        "matplotlib.figure",
    ],
)

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
from assets.flights.sensors import automation_sensors, landed_files, reference_tables, sweeps, weekly_reference_tables
from assets.flights.tables import TABLES, raw_tables
from resources.alert_log import AlertLog
from resources.dbt import Dbt, dbt_project
from resources.ingestion.names import landed_names
from resources.lake import Lake
from resources.lake_io import LakeIOManager
from resources.lake_maintenance import lake_maintenance
from resources.landing import LandingZone
from resources.registry import ModelIOManager, ModelRegistry
from resources.warehouse import Warehouse
from resources.warehouse_io import WarehouseIOManager, refuse_shared_tables
from tilth.execution.pools import pool_limits
from tilth.observability.alerts import alert_sensor
from tilth.versioning.code import with_code_versions


def definitions(deployment: Deployment) -> dg.Definitions:
    """The domain's assets and automation on the stores of `deployment`."""
    warehouse, lake = Warehouse(deployment.warehouse_uri), Lake.of(deployment)
    landing = LandingZone.of(deployment)
    lag_checks, lag_sensor = partition_lag(landing)
    name_checks, name_sensor = landed_names(TABLES, landing)
    alert_log = AlertLog(lake, "flights")
    assets = [
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
    ]
    refuse_shared_tables(assets, warehouse, "warehouse_io")
    return dg.Definitions(
        assets=with_code_versions(assets),
        asset_checks=[*lag_checks, *name_checks],
        # Models do not name the versions that they were trained on yet; the retention of more than a year holds them.
        jobs=[reference_tables, lake_maintenance(lake, kept=lambda _: {}, also=[alert_log.table])],
        schedules=[weekly_reference_tables],
        sensors=[
            landed_files,
            *automation_sensors,
            *sweeps,
            lag_sensor,
            name_sensor,
            alert_sensor(alert_log, deployment.alerts_uri),
        ],
        resources={
            "landing": landing,
            "warehouse": warehouse,
            "warehouse_io": WarehouseIOManager(warehouse),
            "io_manager": LakeIOManager(lake),
            "model_io": ModelIOManager(ModelRegistry.of(deployment, TRUSTED_TYPES, TENSOR_MODELS)),
            "dbt": Dbt(dbt_project(project.project_dir, warehouse), warehouse),
        },
        executor=executor,
        # One process writes a DuckDB file; a server takes several transactions at once.
        metadata=pool_limits(warehouse=1 if warehouse.engine == "duckdb" else 4),
    )


defs = definitions(Deployment())
