"""What can be tried on the candidates from the launchpad."""

import dagster as dg
from pydantic import Field


class LogisticParameters(dg.Config):
    """What can be tried on `models/delay_logistic` from the launchpad."""

    inverse_regularization: float = Field(0.01, gt=0, description="C of scikit-learn: smaller is smoother")
    rare_category: int = Field(50, ge=1, description="categories seen less often are one")
    max_iterations: int = Field(500, ge=1)
    holdout_share: float = Field(0.2, gt=0, lt=1, description="last share of the window's days, for the metrics")


class BoostedParameters(dg.Config):
    """What can be tried on `models/delay_boosted` from the launchpad."""

    learning_rate: float = Field(0.05, gt=0)
    iterations: int = Field(150, ge=1)
    leaves: int = Field(8, ge=2, description="leaves per tree")
    min_rows_in_leaf: int = Field(200, ge=1)
    l2: float = Field(10.0, ge=0)
    features_per_split: float = Field(0.3, gt=0, le=1, description="share of the features tried at each split")
    holdout_share: float = Field(0.2, gt=0, lt=1, description="last share of the window's days, for the metrics")


class NeuralParameters(dg.Config):
    """What can be tried on `models/delay_neural` from the launchpad."""

    learning_rate: float = Field(0.002, gt=0)
    epochs: int = Field(60, ge=1, description="at most; it ends when the latest days gain nothing more")
    patience: int = Field(6, ge=1, description="epochs without gain after which it ends")
    batch_rows: int = Field(1024, ge=1)
    hidden_units: int = Field(32, ge=1, description="per layer")
    layers: int = Field(1, ge=1)
    dropout: float = Field(0.3, ge=0, lt=1)
    weight_decay: float = Field(1.0, ge=0)
    rare_category: int = Field(50, ge=1, description="categories seen less often are one")
    seed: int = Field(0, ge=0)
    holdout_share: float = Field(0.2, gt=0, lt=1, description="last share of the window's days, for the metrics")
