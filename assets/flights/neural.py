"""The neural candidate: what a frame becomes for its network, and what the network's weights say of it.

It is trained with PyTorch (`assets.flights.network`) and scores without, so that whoever compares candidates, puts one
into service or scores a day needs neither PyTorch nor a GPU.
"""

from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from typing import Any, Self

import numpy as np
import pandas as pd

from assets.flights.features import CATEGORIES
from assets.flights.parameters import NeuralParameters


@dataclass(frozen=True)
class Encoding:
    """How rows become arrays; learnt from the rows that a network is trained on.

    `vocabularies` has by category the values that occur often enough, from place 1 on; place 0 is for all others.
    `numbers` are filled with their `medians` where unknown, and standardized by `means` and `scales`. Those in
    `flagged` were unknown for some rows; one more column each says for which.
    """

    vocabularies: Mapping[str, Sequence[str]]
    numbers: Sequence[str]
    medians: Sequence[float]
    means: Sequence[float]
    scales: Sequence[float]
    flagged: Sequence[str]

    @classmethod
    def of(cls, rows: pd.DataFrame, numbers: Sequence[str], rare_category: int) -> Self:
        """The encoding of these rows."""
        counts = {name: rows[name].value_counts() for name in CATEGORIES}
        known = {name: sorted(map(str, seen.index[seen >= rare_category])) for name, seen in counts.items()}
        values = rows[list(numbers)].astype(float)
        medians = values.median()
        filled = values.fillna(medians)
        scales = filled.std(ddof=0).replace(0.0, 1.0)
        flagged = [name for name in numbers if values[name].isna().any()]
        return cls(known, list(numbers), medians.tolist(), filled.mean().tolist(), scales.tolist(), flagged)

    @property
    def sizes(self) -> list[int]:
        """How many places each category's vocabulary has, that of all other values included."""
        return [len(values) + 1 for values in self.vocabularies.values()]

    def codes(self, rows: pd.DataFrame) -> np.ndarray:
        """Places in the vocabularies: (rows, categories), int64."""
        columns = [
            pd.Index(values).get_indexer(rows[name].astype(str)) + 1 for name, values in self.vocabularies.items()
        ]
        return np.column_stack(columns).astype(np.int64)

    def standardized(self, rows: pd.DataFrame) -> np.ndarray:
        """Numbers and flags: (rows, numbers + flagged), float64."""
        values = rows[list(self.numbers)].to_numpy(dtype=np.float64)
        filled = np.where(np.isnan(values), self.medians, values)
        flags = rows[list(self.flagged)].isna().to_numpy(dtype=np.float64)
        return np.hstack([(filled - self.means) / self.scales, flags])


class NeuralClassifier:
    """A network with its encoding, fitted and asked as scikit-learn's classifiers are."""

    def __init__(self, parameters: NeuralParameters, numbers: Sequence[str]) -> None:
        self._parameters, self._numbers = parameters, numbers
        self.encoding: Encoding | None = None
        self.weights: Mapping[str, np.ndarray] = {}
        self.training: Mapping[str, Any] = {}  # on which device, how many epochs

    def fit(self, rows: pd.DataFrame, late: pd.Series) -> Self:
        """Train on rows in the order of time; on a GPU where there is one. Needs PyTorch."""
        from assets.flights.network import trained_weights

        self.encoding = Encoding.of(rows, self._numbers, self._parameters.rare_category)
        self.weights, self.training = trained_weights(
            self.encoding.codes(rows),
            self.encoding.standardized(rows),
            late.to_numpy(dtype=np.float32),
            self.encoding.sizes,
            self._parameters,
        )
        return self

    def predict_proba(self, rows: pd.DataFrame) -> np.ndarray:
        """The probabilities of arriving in time and late: (rows, 2).

        In float64 and to nine digits, so that a row's do not depend on how many others are scored with it.
        """
        if self.encoding is None:
            raise ValueError("This network is not trained: call fit first.")
        weights = {name: tensor.astype(np.float64) for name, tensor in self.weights.items()}
        codes = self.encoding.codes(rows)
        embedded = [weights[f"embeddings.{n}.weight"][codes[:, n]] for n in range(codes.shape[1])]
        row = np.hstack([*embedded, self.encoding.standardized(rows)])
        for n in range(sum(name.startswith("hidden.") and name.endswith(".weight") for name in weights)):
            row = np.maximum(row @ weights[f"hidden.{n}.weight"].T + weights[f"hidden.{n}.bias"], 0)
        log_odds = row @ weights["output.weight"][0] + weights["output.bias"][0]
        late = np.round(0.5 + 0.5 * np.tanh(0.5 * log_odds), 9)  # the logistic function, which so cannot overflow
        return np.column_stack([1 - late, late])

    def to_tensors(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
        """The weights, and all else as plain values."""
        if self.encoding is None:
            raise ValueError("This network is not trained: call fit first.")
        return dict(self.weights), {
            "parameters": self._parameters.model_dump(),
            "encoding": asdict(self.encoding),
            "training": dict(self.training),
        }

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], configuration: Mapping[str, Any]) -> Self:
        """What `to_tensors` was made of."""
        encoding = Encoding(**configuration["encoding"])
        model = cls(NeuralParameters(**configuration["parameters"]), encoding.numbers)
        model.encoding, model.weights, model.training = encoding, tensors, configuration["training"]
        return model
