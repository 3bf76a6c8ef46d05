"""Trained models, a file per asset and partition, never unpickled: skops, or safetensors for what is made of arrays."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any, Protocol, Self
from urllib.parse import quote

import dagster as dg
import numpy as np

from resources.model_files import ModelFiles, model_files
from tilth.partition_keys import parts
from tilth.settings import Deployment

# Where both are there, the first is the model: see `ModelRegistry.save`.
TENSORS, SKOPS = ".safetensors", ".skops"


@dataclass(frozen=True)
class StoredModel:
    """A fitted estimator with its card: what it is, what it was trained on, how good it was (plain JSON values)."""

    estimator: Any
    card: Mapping[str, Any]


class TensorModel(Protocol):
    """An estimator that is stored as named arrays, and a configuration of plain JSON values."""

    def to_tensors(self) -> tuple[dict[str, np.ndarray], dict[str, Any]]: ...

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], configuration: Mapping[str, Any]) -> Self: ...


@dataclass(frozen=True)
class ModelRegistry:
    """Models under `<uri>/<branch>/<asset key>/<partition>`, in a folder or an object store.

    `trusted` names every type beyond skops' own safe list that a `.skops` file may hold. `tensor_models` are the types
    that are stored as `.safetensors` instead, with configuration and card in the file's metadata. A file of any other
    type is refused: what a file names is looked up here and never imported.
    """

    uri: str
    trusted: Sequence[str]
    branch: str = "main"
    tensor_models: Sequence[type[TensorModel]] = ()
    s3_endpoint_url: str = ""
    s3_region: str = ""

    def __post_init__(self) -> None:
        model_files(self.uri, self.s3_endpoint_url, self.s3_region)  # an address of no known kind is refused here

    @classmethod
    def of(cls, deployment: Deployment, trusted: Sequence[str], tensor_models: Sequence[type[TensorModel]]) -> Self:
        """The models of a deployment."""
        return cls(
            deployment.models_uri,
            trusted,
            deployment.branch,
            tensor_models,
            deployment.s3_endpoint_url,
            deployment.s3_region,
        )

    @cached_property
    def _files(self) -> ModelFiles:
        return model_files(self.uri, self.s3_endpoint_url, self.s3_region)

    def _name(self, key: dg.AssetKey, partition: str) -> str:
        """The dimensions of a partition's key are folders, quoted as in an address."""
        folders = (quote(part, safe=" ").replace(".", "%2E") for part in parts(partition))
        return "/".join([self.branch, *key.path, *folders])

    def holds(self, key: dg.AssetKey, partition: str) -> bool:
        """Whether a model of the partition is stored."""
        return any(self._files.holds(self._name(key, partition) + suffix) for suffix in (TENSORS, SKOPS))

    def save(self, key: dg.AssetKey, partition: str, model: StoredModel) -> str:
        """Store the model in place of the partition's last one, and return its address.

        A reader sees the old one or the new one. Where they are of different formats the change is the moment at which
        the safetensors file comes, or goes: as long as it is there, the other is not looked at.

        Raises:
            ValueError: it could not be loaded again, as what holds a lambda; the last one stays.
        """
        name = self._name(key, partition)
        card = json.dumps(dict(model.card))
        try:
            suffix, data = self._written(model.estimator, card)
            self._read(suffix, data, self._files.address(name + suffix))
        except Exception as error:
            raise ValueError(
                f"{key.to_user_string()} {partition}: this {type(model.estimator).__name__} is not stored, for it "
                f"could not be loaded again: {error} Make it of functions and classes at the top level of modules, and "
                "name each type of theirs that you trust in the registry's `trusted` or `tensor_models`."
            ) from error
        self._files.write(name + suffix, data)
        self._files.remove(name + (SKOPS if suffix == TENSORS else TENSORS))
        return self._files.address(name + suffix)

    def load(self, key: dg.AssetKey, partition: str) -> StoredModel:
        """The model of a partition.

        Raises:
            FileNotFoundError: none was stored.
            ValueError: its file is damaged.
            skops.io.exceptions.UntrustedTypesFoundException: the skops file holds a type that is not trusted.
            TypeError: the safetensors file is of a type that is not among `tensor_models`.
        """
        name = self._name(key, partition)
        for suffix in (TENSORS, SKOPS, TENSORS):  # again, for one that came in place of the other meanwhile
            try:
                data = self._files.read(name + suffix)
            except FileNotFoundError:
                continue
            try:
                return self._read(suffix, data, self._files.address(name + suffix))
            except TypeError:  # of a type that is not trusted
                raise
            except Exception as error:
                raise ValueError(
                    f"{self._files.address(name + suffix)} is damaged: {error}. Materialize {key.to_user_string()} "
                    f"{partition} again, or bring the file back from a backup."
                ) from error
        raise FileNotFoundError(
            f"{key.to_user_string()} {partition} has no model at {self._files.address(name)}{SKOPS} or {TENSORS}; "
            "materialize that partition first."
        )

    def _written(self, estimator: Any, card: str) -> tuple[str, bytes]:
        if type(estimator) not in self.tensor_models:
            import skops.io  # and with it scikit-learn: for the processes that train or score

            return SKOPS, skops.io.dumps({"estimator": estimator, "card": card})
        import safetensors.numpy

        tensors, configuration = estimator.to_tensors()
        names = {"model": type(estimator).__name__, "configuration": json.dumps(configuration), "card": card}
        return TENSORS, safetensors.numpy.save(tensors, metadata=names)

    def _read(self, suffix: str, data: bytes, address: str) -> StoredModel:
        return self._of_tensors(data, address) if suffix == TENSORS else self._of_skops(data, address)

    def _of_skops(self, data: bytes, address: str) -> StoredModel:
        import skops.io
        from skops.io.exceptions import UntrustedTypesFoundException

        try:
            stored = skops.io.loads(data, trusted=list(self.trusted))
        except UntrustedTypesFoundException as error:
            error.args = (f"{address}: {error}",)
            raise
        return StoredModel(stored["estimator"], json.loads(stored["card"]))

    def _of_tensors(self, data: bytes, address: str) -> StoredModel:
        import safetensors.numpy

        tensors = safetensors.numpy.load(data)  # which also finds a damaged file
        # The library reads metadata from files on disk only; by its format, eight bytes say how long the header is.
        stored = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")]).get("__metadata__", {})
        kinds = {kind.__name__: kind for kind in self.tensor_models}
        if stored.get("model") not in kinds:
            raise TypeError(
                f"{address} is of type {stored.get('model')}, which is not among the types that models may be made of "
                f"here ({', '.join(sorted(kinds)) or 'none'}); add it to tensor_models of the registry if you trust it."
            )
        estimator = kinds[stored["model"]].from_tensors(tensors, json.loads(stored["configuration"]))
        return StoredModel(estimator, json.loads(stored["card"]))


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
            if self._registry.holds(key, partition)
        }
