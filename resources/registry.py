"""Trained models on disk: skops files, one per asset and partition, never unpickled."""

import json
import os
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import skops.io


@dataclass(frozen=True)
class StoredModel:
    """A fitted estimator with its card: what it is, what it was trained on, how good it was (plain JSON values)."""

    estimator: Any
    card: Mapping[str, Any]


@dataclass(frozen=True)
class ModelRegistry:
    """Models under `<uri>/<branch>/<asset key>/<partition>.skops`.

    `trusted` names every type beyond skops' own safe list that a file may hold; a file with any other is refused.
    """

    uri: str
    trusted: Sequence[str]
    branch: str = "main"

    def path(self, key: dg.AssetKey, partition: str) -> Path:
        """Where the model of a partition lies; the dimensions of its key are folders."""
        return Path(self.uri, self.branch, *key.path, *partition.split("|")).with_suffix(".skops")

    def save(self, key: dg.AssetKey, partition: str, model: StoredModel) -> Path:
        """Store the model; a reader sees the old file or the new one, never half of one."""
        path = self.path(key, partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, prefix=".", delete=False) as file:
            file.write(skops.io.dumps({"estimator": model.estimator, "card": json.dumps(dict(model.card))}))
            file.flush()
            os.fsync(file.fileno())
        Path(file.name).replace(path)
        return path

    def load(self, key: dg.AssetKey, partition: str) -> StoredModel:
        """The model of a partition.

        Raises:
            FileNotFoundError: none was stored.
            skops.io.exceptions.UntrustedTypesFoundException: the file holds a type that is not trusted.
        """
        path = self.path(key, partition)
        if not path.is_file():
            raise FileNotFoundError(
                f"{key.to_user_string()} {partition} has no model at {path}; materialize that partition first."
            )
        stored = skops.io.load(path, trusted=list(self.trusted))
        return StoredModel(stored["estimator"], json.loads(stored["card"]))


class ModelIOManager(dg.IOManager):
    """Stores a dict of partition key → StoredModel; hands on the same for the partitions that the mapping asks for.

    Partitions that the mapping names but that hold no model are left out of the dict: whether that is an error is
    for the asset to say.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def handle_output(self, context: dg.OutputContext, obj: Mapping[str, StoredModel]) -> None:
        expected = set(context.asset_partition_keys)
        if set(obj) != expected:
            raise ValueError(
                f"{context.asset_key.to_user_string()} must return a model for each partition of the step; "
                f"missing {sorted(expected - set(obj))}, too many {sorted(set(obj) - expected)}."
            )
        for partition, model in obj.items():
            self._registry.save(context.asset_key, partition, model)

    def load_input(self, context: dg.InputContext) -> dict[str, StoredModel]:
        key = context.asset_key
        return {
            partition: self._registry.load(key, partition)
            for partition in sorted(context.asset_partition_keys)
            if self._registry.path(key, partition).is_file()
        }
