"""Models come back as they were stored, and a file with a type nobody vouched for is refused."""

import json
import pickle
from collections.abc import Mapping
from functools import partial
from pathlib import Path
from typing import Any

import dagster as dg
import numpy as np
import pytest
from pyarrow.fs import FileSelector
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops.io.exceptions import UntrustedTypesFoundException

from resources.model_files import Folder, ObjectStore
from resources.registry import ModelRegistry, StoredModel
from tests.s3 import S3
from tilth.settings import Deployment

KEY = dg.AssetKey(["models", "guess"])


def fitted() -> DummyClassifier:
    return DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [0, 0, 0, 1])


def test_a_model_and_its_card_come_back_as_they_were_stored(tmp_path: Path) -> None:
    registry = ModelRegistry(str(tmp_path), trusted=[])
    address = registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {"auc": 0.5}))
    assert Path(address) == tmp_path / "main" / "models" / "guess" / "2013-01" / "EWR.skops"
    model = registry.load(KEY, "2013-01|EWR")
    assert model.card == {"auc": 0.5}
    assert model.estimator.predict_proba(np.zeros((1, 1))).tolist() == [[0.75, 0.25]]


def test_a_type_that_is_not_on_the_list_is_refused(tmp_path: Path) -> None:
    odd = make_pipeline(FunctionTransformer(np.testing.assert_equal), fitted())
    function = "numpy.testing._private.utils.assert_equal"
    address = ModelRegistry(str(tmp_path), trusted=[function]).save(KEY, "2013-01|EWR", StoredModel(odd, {}))
    with pytest.raises(UntrustedTypesFoundException, match="assert_equal") as raised:
        ModelRegistry(str(tmp_path), trusted=[]).load(KEY, "2013-01|EWR")
    assert str(raised.value).startswith(f"{address}: ")


class Unlisted:
    """As `Line`, but of no type that the registry knows."""

    def fit(self) -> None: ...


class Broken:
    """A model of arrays that forgets what it needs to come back."""

    def to_tensors(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        return {"weights": np.zeros(1)}, {}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], configuration: Mapping[str, str]) -> "Broken":
        raise KeyError(f"unit of {len(tensors)} tensors, {len(configuration)} settings")


@pytest.mark.parametrize(
    "estimator",
    [
        make_pipeline(FunctionTransformer(lambda x: x), fitted()),
        make_pipeline(FunctionTransformer(partial(np.add, 1)), FunctionTransformer(lambda x: x)),
        make_pipeline(FunctionTransformer(np.testing.assert_equal), fitted()),
        Unlisted(),
        Broken(),
        (number for number in range(3)),
    ],
)
def test_what_could_not_be_loaded_again_is_not_stored_and_the_last_model_stays(tmp_path: Path, estimator: Any) -> None:
    registry = ModelRegistry(str(tmp_path), trusted=[], tensor_models=[Broken])
    registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {"auc": 0.5}))
    with pytest.raises(ValueError, match=r"models/guess 2013-01\|EWR: this \w+ is not stored.*top level of modules"):
        registry.save(KEY, "2013-01|EWR", StoredModel(estimator, {}))
    assert registry.load(KEY, "2013-01|EWR").card == {"auc": 0.5}


@pytest.mark.parametrize("what", ["skops", "tensors"])
@pytest.mark.parametrize("damage", ["empty", "cut", "cut at the start", "zeros", "text"])
def test_a_damaged_file_is_named_by_its_address_with_what_to_do(
    registry: ModelRegistry, what: str, damage: str
) -> None:
    model = StoredModel(fitted(), {}) if what == "skops" else line({})
    address = registry.save(KEY, "2013-01|EWR", model)
    (name,) = stored(registry)
    data = registry._files.read(name)
    cut = len(data) // 2
    changed = {"empty": b"", "cut": data[:cut], "cut at the start": data[cut:], "zeros": bytes(cut), "text": b"<html>"}
    registry._files.write(name, changed[damage])

    with pytest.raises(ValueError, match=r"Materialize models/guess 2013-01\|EWR again") as raised:
        registry.load(KEY, "2013-01|EWR")
    assert str(raised.value).startswith(f"{address} is damaged: ")


def test_a_missing_model_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"models/guess 2013-01\|EWR has no model at .*; materialize"):
        ModelRegistry(str(tmp_path), trusted=[]).load(KEY, "2013-01|EWR")


class Line:
    """A model of arrays, as the neural candidate is."""

    def __init__(self, weights: np.ndarray, unit: str) -> None:
        self.weights, self.unit = weights, unit

    def to_tensors(self) -> tuple[dict[str, np.ndarray], dict[str, str]]:
        return {"weights": self.weights}, {"unit": self.unit}

    @classmethod
    def from_tensors(cls, tensors: Mapping[str, np.ndarray], configuration: Mapping[str, str]) -> "Line":
        return cls(tensors["weights"], configuration["unit"])


def line(card: dict[str, float]) -> StoredModel:
    return StoredModel(Line(np.array([1.5, -2.0], np.float32), "nats"), card)


@pytest.fixture(params=["folder", "s3"])
def registry(request: pytest.FixtureRequest, tmp_path: Path) -> ModelRegistry:
    """One on disk and one on S3, in which lines may be stored."""
    if request.param == "folder":
        return ModelRegistry(str(tmp_path), [], tensor_models=[Line])
    s3: S3 = request.getfixturevalue("s3")
    uri = f"s3://{s3.bucket()}/some models"
    return ModelRegistry(uri, [], "main", [Line], s3.endpoint_url, s3.region)


def stored(registry: ModelRegistry) -> list[str]:
    """The names of all that is stored."""
    files = registry._files
    if isinstance(files, Folder):
        return sorted(str(path.relative_to(files.path)) for path in files.path.rglob("*") if path.is_file())
    assert isinstance(files, ObjectStore)
    filesystem, root = files._place
    found = filesystem.get_file_info(FileSelector(root, recursive=True))
    return sorted(entry.path.removeprefix(f"{root}/") for entry in found if entry.is_file)


def test_folders_and_buckets_keep_models_alike(registry: ModelRegistry) -> None:
    assert not registry.holds(KEY, "2013-01|EWR")
    for auc in (0.5, 0.6):
        address = registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {"auc": auc}))
    assert address == f"{registry.uri}/main/models/guess/2013-01/EWR.skops"
    assert stored(registry) == ["main/models/guess/2013-01/EWR.skops"]
    assert registry.holds(KEY, "2013-01|EWR")
    assert not registry.holds(KEY, "2013-01|JFK")
    assert registry.load(KEY, "2013-01|EWR").card == {"auc": 0.6}
    with pytest.raises(FileNotFoundError, match=r"models/guess 2013-01\|JFK has no model at .*; materialize"):
        registry.load(KEY, "2013-01|JFK")


def test_a_model_of_arrays_comes_back_with_its_configuration_and_card_and_its_file_holds_no_pickle(
    registry: ModelRegistry,
) -> None:
    pytest.importorskip("safetensors")
    registry.save(KEY, "2013-01|EWR", line({"auc": 0.5}))
    [name] = stored(registry)
    assert name == "main/models/guess/2013-01/EWR.safetensors"
    data = registry._files.read(name)
    header = json.loads(data[8 : 8 + int.from_bytes(data[:8], "little")])
    assert header["weights"]["dtype"] == "F32"
    assert header["__metadata__"]["model"] == "Line"
    with pytest.raises(pickle.UnpicklingError):
        pickle.loads(data)  # noqa: S301
    model = registry.load(KEY, "2013-01|EWR")
    assert model.card == {"auc": 0.5}
    assert (model.estimator.weights.tolist(), model.estimator.unit) == ([1.5, -2.0], "nats")


def test_a_model_of_another_format_takes_the_place_of_the_one_before(registry: ModelRegistry) -> None:
    pytest.importorskip("safetensors")
    for auc in (0.5, 0.7):
        registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {"auc": auc}))
        registry.save(KEY, "2013-01|EWR", line({"auc": auc + 0.1}))
        assert stored(registry) == ["main/models/guess/2013-01/EWR.safetensors"]
        assert registry.load(KEY, "2013-01|EWR").card == {"auc": auc + 0.1}
    registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {"auc": 0.9}))
    assert stored(registry) == ["main/models/guess/2013-01/EWR.skops"]
    assert registry.load(KEY, "2013-01|EWR").card == {"auc": 0.9}


@pytest.mark.parametrize("first", ["skops", "safetensors"])
def test_at_every_moment_of_a_change_of_format_a_reader_sees_the_old_model_or_the_new_one(
    first: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("safetensors")
    registry = ModelRegistry(str(tmp_path), [], tensor_models=[Line])
    models = [StoredModel(fitted(), {"auc": 0.1}), line({"auc": 0.2})]
    old, new = models if first == "skops" else models[::-1]
    registry.save(KEY, "2013-01|EWR", old)
    seen = []

    def watch(step: str) -> None:
        do = getattr(Folder, step)

        def watched(files: Folder, *given: object) -> None:
            do(files, *given)
            seen.append(registry.load(KEY, "2013-01|EWR").card)

        monkeypatch.setattr(Folder, step, watched)

    watch("write")
    watch("remove")
    registry.save(KEY, "2013-01|EWR", new)
    assert seen == [new.card if first == "skops" else old.card, new.card]


def test_a_model_of_arrays_of_a_type_that_is_not_on_the_list_is_refused(tmp_path: Path) -> None:
    pytest.importorskip("safetensors")
    ModelRegistry(str(tmp_path), [], tensor_models=[Line]).save(KEY, "2013-01|EWR", line({}))
    with pytest.raises(TypeError, match=r"EWR.safetensors is of type Line, which is not among .*\(none\)"):
        ModelRegistry(str(tmp_path), []).load(KEY, "2013-01|EWR")


def test_a_bucket_that_is_not_there_is_named_with_the_next_step(s3: S3) -> None:
    registry = ModelRegistry("s3://no-such-bucket/models", [], "main", [], s3.endpoint_url, s3.region)
    with pytest.raises(OSError, match=r"s3://no-such-bucket/models .*TILTH_MODELS_URI names a bucket that exists"):
        registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {}))


@pytest.mark.parametrize("uri", ["postgresql://host/models", "http://host/models"])
def test_an_address_of_no_known_kind_is_refused_when_the_registry_is_made(uri: str) -> None:
    with pytest.raises(ValueError, match=f"TILTH_MODELS_URI is {uri}: .* or at s3://"):
        ModelRegistry(uri, [])


def test_the_settings_of_a_deployment_are_enough(s3: S3, monkeypatch: pytest.MonkeyPatch) -> None:
    uri = f"s3://{s3.bucket()}/models"
    for name, value in {"MODELS_URI": uri, "S3_ENDPOINT_URL": s3.endpoint_url}.items():
        monkeypatch.setenv(f"TILTH_{name}", value)
    address = ModelRegistry.of(Deployment(), [], []).save(KEY, "2013-01|EWR", StoredModel(fitted(), {}))
    assert address == f"{uri}/main/models/guess/2013-01/EWR.skops"
