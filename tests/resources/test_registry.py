"""Models come back as they were stored, and a file with a type nobody vouched for is refused."""

from pathlib import Path

import dagster as dg
import numpy as np
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import FunctionTransformer
from skops.io.exceptions import UntrustedTypesFoundException

from resources.registry import ModelRegistry, StoredModel

KEY = dg.AssetKey(["models", "guess"])


def fitted() -> DummyClassifier:
    return DummyClassifier(strategy="prior").fit(np.zeros((4, 1)), [0, 0, 0, 1])


def test_a_model_and_its_card_come_back_as_they_were_stored(tmp_path: Path) -> None:
    registry = ModelRegistry(str(tmp_path), trusted=[])
    path = registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {"auc": 0.5}))
    assert path == tmp_path / "main" / "models" / "guess" / "2013-01" / "EWR.skops"
    model = registry.load(KEY, "2013-01|EWR")
    assert model.card == {"auc": 0.5}
    assert model.estimator.predict_proba(np.zeros((1, 1))).tolist() == [[0.75, 0.25]]


def test_saving_again_leaves_one_file(tmp_path: Path) -> None:
    registry = ModelRegistry(str(tmp_path), trusted=[])
    for auc in (0.5, 0.6):
        path = registry.save(KEY, "2013-01|EWR", StoredModel(fitted(), {"auc": auc}))
    assert list(path.parent.iterdir()) == [path]
    assert registry.load(KEY, "2013-01|EWR").card == {"auc": 0.6}


def test_a_type_that_is_not_on_the_list_is_refused(tmp_path: Path) -> None:
    registry = ModelRegistry(str(tmp_path), trusted=[])
    odd = make_pipeline(FunctionTransformer(np.testing.assert_equal), fitted())
    registry.save(KEY, "2013-01|EWR", StoredModel(odd, {}))
    with pytest.raises(UntrustedTypesFoundException, match="assert_equal"):
        registry.load(KEY, "2013-01|EWR")


def test_a_missing_model_is_named_with_the_next_step(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError, match=r"models/guess 2013-01\|EWR has no model at .*; materialize"):
        ModelRegistry(str(tmp_path), trusted=[]).load(KEY, "2013-01|EWR")
