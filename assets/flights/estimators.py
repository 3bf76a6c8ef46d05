"""The candidates as scikit-learn pipelines: what is fitted, apart from how and on what."""

import numpy as np
from sklearn.compose import ColumnTransformer
from sklearn.ensemble import HistGradientBoostingClassifier
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.pipeline import Pipeline, make_pipeline
from sklearn.preprocessing import OneHotEncoder, OrdinalEncoder, StandardScaler

from assets.flights.features import CATEGORIES, NUMBERS
from assets.flights.parameters import BoostedParameters, LogisticParameters

# More lateness in the past, more rain and less sight never make a flight likelier to be on time. Without this the trees
# learn single days by their weather and lose 0.01 of AUC on the next month.
MONOTONIC = {
    **{name: 1 for name in NUMBERS if "late_rate" in name},
    "precipitation_inches": 1,
    "visibility_miles": -1,
}


def logistic(parameters: LogisticParameters, numbers: list[str]) -> Pipeline:
    """One-hot categories and standardized numbers (median where unknown, with a flag) into a logistic regression."""
    columns = ColumnTransformer(
        [
            (
                "categories",
                OneHotEncoder(handle_unknown="infrequent_if_exist", min_frequency=parameters.rare_category),
                CATEGORIES,
            ),
            (
                "numbers",
                make_pipeline(
                    SimpleImputer(strategy="median", add_indicator=True),
                    StandardScaler(),
                ),
                numbers,
            ),
        ]
    )
    return make_pipeline(
        columns,
        LogisticRegression(C=parameters.inverse_regularization, max_iter=parameters.max_iterations),
    )


def boosted(parameters: BoostedParameters, numbers: list[str]) -> Pipeline:
    """Gradient-boosted trees on histograms; categories as such, numbers as they are, unknown as its own branch."""
    columns = ColumnTransformer(
        [
            (
                "categories",
                OrdinalEncoder(handle_unknown="use_encoded_value", unknown_value=np.nan, max_categories=200),
                CATEGORIES,
            ),
            ("numbers", "passthrough", numbers),
        ]
    )
    return make_pipeline(
        columns,
        HistGradientBoostingClassifier(
            learning_rate=parameters.learning_rate,
            max_iter=parameters.iterations,
            max_leaf_nodes=parameters.leaves,
            min_samples_leaf=parameters.min_rows_in_leaf,
            l2_regularization=parameters.l2,
            max_features=parameters.features_per_split,
            categorical_features=list(range(len(CATEGORIES))),
            monotonic_cst=[0] * len(CATEGORIES) + [MONOTONIC.get(name, 0) for name in numbers],
            early_stopping=False,
            random_state=0,
        ),
    )
