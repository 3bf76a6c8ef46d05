"""Trained models on disk: skops files, one per asset and partition, never unpickled."""

import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import quote
from uuid import uuid4

import dagster as dg


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

    def __post_init__(self) -> None:
        if "://" in self.uri:
            raise ValueError(f"TILTH_MODELS_URI is {self.uri}: models are stored in a folder; name its path.")

    def path(self, key: dg.AssetKey, partition: str) -> Path:
        """Where the model of a partition lies; the dimensions of its key are folders, quoted as in an address."""
        *folders, name = (quote(part, safe=" ").replace(".", "%2E") for part in partition.split("|"))
        return Path(self.uri, self.branch, *key.path, *folders, f"{name}.skops")

    def save(self, key: dg.AssetKey, partition: str, model: StoredModel) -> Path:
        """Store the model; a reader sees the old file or the new one, never half of one."""
        import skops.io  # and with it scikit-learn: for the processes that train or score

        path = self.path(key, partition)
        path.parent.mkdir(parents=True, exist_ok=True)
        hidden = path.with_name(f".{path.name}.{uuid4().hex}")
        try:
            with hidden.open("xb") as file:
                file.write(skops.io.dumps({"estimator": model.estimator, "card": json.dumps(dict(model.card))}))
                file.flush()
                os.fsync(file.fileno())
            hidden.replace(path)
        finally:
            hidden.unlink(missing_ok=True)
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
        import skops.io

        stored = skops.io.load(path, trusted=list(self.trusted))
        return StoredModel(stored["estimator"], json.loads(stored["card"]))


class ModelIOManager(dg.IOManager):
    """Stores a dict of partition key → StoredModel, or of a single partition its model; hands on such a dict for the
    partitions that the mapping asks for.

    Partitions that the mapping names but that hold no model are left out of the dict: whether that is an error is
    for the asset to say.
    """

    def __init__(self, registry: ModelRegistry) -> None:
        self._registry = registry

    def handle_output(self, context: dg.OutputContext, obj: Mapping[str, StoredModel] | StoredModel) -> None:
        expected = set(context.asset_partition_keys)
        if isinstance(obj, StoredModel) and len(expected) == 1:
            obj = dict.fromkeys(expected, obj)
        if not isinstance(obj, Mapping):
            raise TypeError(
                f"{context.asset_key.to_user_string()} {', '.join(sorted(expected))} must return a dict of partition "
                f"key to StoredModel, or of one partition its StoredModel; not a {type(obj).__name__}."
            )
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
