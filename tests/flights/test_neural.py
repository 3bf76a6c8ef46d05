"""The neural candidate: what it learns where PyTorch is installed, and that all else goes on where it is not."""

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import numpy as np
import pandas as pd
import pyarrow as pa
import pytest
from sklearn.dummy import DummyClassifier
from sklearn.metrics import log_loss

from assets.flights.features import CATEGORIES, FEATURES, NUMBERS
from assets.flights.models import PYTORCH_INSTALLED, TENSOR_MODELS, TRUSTED_TYPES
from assets.flights.neural import Encoding, NeuralClassifier
from assets.flights.parameters import NeuralParameters
from resources.registry import ModelRegistry, StoredModel
from tests.example import MODELS, Platform, copied, platform_in

NEURAL, CHAMPION = ["models", "delay_neural"], ["models", "delay_champion"]
NEWARK = "2013-01|EWR"

without_pytorch = pytest.mark.skipif(PYTORCH_INSTALLED, reason="the extra gpu is installed")
with_pytorch = pytest.mark.skipif(not PYTORCH_INSTALLED, reason="the extra gpu is not installed")


def departures(rows: int = 4000, days: int = 20) -> pd.DataFrame:
    """Days of departures of which those of carrier A, of crowded hours and in strong wind are late more often."""
    random = np.random.default_rng(0)
    frame = pd.DataFrame({name: random.normal(size=rows) for name in NUMBERS})
    frame["carrier"] = random.choice(["A", "B", "C"], rows)
    frame["destination"] = random.choice([f"D{n}" for n in range(20)], rows)
    frame["engine_type"] = random.choice(["jet", "unknown"], rows)
    frame["flight_date"] = np.sort(random.choice(pd.date_range("2013-01-01", periods=days).date, rows))
    odds = (frame["carrier"] == "A") * 1.5 + frame["departures_scheduled_in_hour"] + frame["wind_speed_mph"] - 1.5
    frame["late"] = random.random(rows) < 1 / (1 + np.exp(-odds))
    frame.loc[random.random(rows) < 0.1, "wind_speed_mph"] = np.nan
    frame["month"], frame["origin"], frame["departure_id"] = "2013-01", "EWR", np.arange(rows).astype(str)
    return frame


def test_an_encoding_fills_and_flags_what_is_unknown_and_gives_rare_and_new_categories_one_place() -> None:
    rows = departures()
    encoding = Encoding.of(rows, NUMBERS, rare_category=50)
    assert encoding.flagged == ["wind_speed_mph"]
    numbers = encoding.standardized(rows)
    assert numbers.shape == (len(rows), len(NUMBERS) + 1)
    assert np.abs(numbers[:, :-1].mean(axis=0)).max() < 1e-9
    assert numbers[:, :-1].std(axis=0) == pytest.approx(1)
    assert (numbers[:, -1] == rows["wind_speed_mph"].isna()).all()
    new = rows.head(2).assign(carrier=["C", "Z"])
    assert encoding.codes(new)[:, CATEGORIES.index("carrier")].tolist() == [3, 0]
    assert Encoding.of(rows, NUMBERS, rare_category=10_000).sizes == [1, 1, 1]


@pytest.fixture(scope="module")
def trained_once(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The state of a platform with one month's training set, of one airport, and the two candidates always trained."""
    home = tmp_path_factory.mktemp("trained")
    with platform_in(home) as platform:
        rows = pa.Table.from_pandas(departures(), preserve_index=False)
        platform.lake.replace("features/training_set", rows, ["2013-01"], ["month"])
        platform.make(MODELS[:-1], NEWARK)
    return home


@pytest.fixture
def trained(trained_once: Path, tmp_path: Path) -> Iterator[Platform]:
    with copied(trained_once, tmp_path) as platform:
        yield platform


def registry_of(platform: Platform) -> ModelRegistry:
    return ModelRegistry.of(platform.deployment, TRUSTED_TYPES, TENSOR_MODELS)


def errors(result: dg.ExecuteInProcessResult) -> str:
    failures = [event.step_failure_data for event in result.all_events if event.is_step_failure]
    return "\n".join(f"{failure.error} {failure.user_failure_data}" for failure in failures)


@without_pytorch
def test_without_pytorch_training_says_what_to_install_and_the_champion_is_chosen_without_it(trained: Platform) -> None:
    result = trained.materialize([NEURAL], NEWARK)
    assert not result.success
    assert "models/delay_neural" in errors(result)
    assert "extra `gpu`" in errors(result)
    assert "uv pip install -r requirements/gpu.lock" in errors(result)
    trained.make([CHAMPION], NEWARK)
    champion = registry_of(trained).load(dg.AssetKey(CHAMPION), NEWARK)
    assert champion.card["asset"] in ("models/delay_logistic", "models/delay_boosted")


def stand_in(trained: Platform, *, rows: int, log_loss: float) -> None:
    """Stores as the neural candidate a model that says it was judged on so many rows, and how well."""
    registry = registry_of(trained)
    card = registry.load(dg.AssetKey(MODELS[0]), NEWARK).card
    metrics = card["metrics"] | {"rows": card["metrics"]["rows"] + rows, "log_loss": log_loss}
    guess = DummyClassifier(strategy="prior").fit(np.zeros((2, 1)), [0, 1])
    model = StoredModel(guess, {**card, "asset": "models/delay_neural", "metrics": metrics, "fingerprint": "stand-in"})
    registry.save(dg.AssetKey(NEURAL), NEWARK, model)


@pytest.mark.parametrize(("log_loss", "chosen"), [(0.001, True), (9.0, False)])
def test_a_stored_neural_candidate_is_compared_with_the_others(
    trained: Platform, log_loss: float, chosen: bool
) -> None:
    stand_in(trained, rows=0, log_loss=log_loss)
    trained.make([CHAMPION], NEWARK)
    made = trained.latest(CHAMPION, NEWARK)
    assert made is not None
    assert (made.metadata["candidate"].value == "models/delay_neural") == chosen
    assert "| models/delay_neural |" in str(made.metadata["comparison"].value)


def test_a_neural_candidate_that_was_judged_on_other_rows_is_left_out(trained: Platform) -> None:
    stand_in(trained, rows=1, log_loss=0.001)
    trained.make([CHAMPION], NEWARK)
    made = trained.latest(CHAMPION, NEWARK)
    assert made is not None
    assert made.metadata["candidate"].value != "models/delay_neural"
    assert "models/delay_neural" not in str(made.metadata["comparison"].value)


@pytest.fixture(scope="module")
def network() -> NeuralClassifier:
    """Trained on the earlier half of the days."""
    pytest.importorskip("torch")
    rows = departures().head(2000)
    return NeuralClassifier(NeuralParameters(), NUMBERS).fit(rows[FEATURES], rows["late"])


def test_a_network_is_better_than_the_base_rate_on_later_days(network: NeuralClassifier) -> None:
    later = departures().tail(2000)
    base_rate = np.full(len(later), departures().head(2000)["late"].mean())
    assert log_loss(later["late"], network.predict_proba(later)[:, 1]) < 0.9 * log_loss(later["late"], base_rate)


def test_the_same_rows_and_seed_give_the_same_network_and_another_seed_gives_another(network: NeuralClassifier) -> None:
    rows = departures().head(2000)
    again, other = (
        NeuralClassifier(NeuralParameters(seed=seed), NUMBERS).fit(rows[FEATURES], rows["late"]) for seed in (0, 1)
    )
    assert (again.predict_proba(rows) == network.predict_proba(rows)).all()
    assert (other.predict_proba(rows) != network.predict_proba(rows)).any()


def test_a_gpu_repeats_a_recorded_step_as_it_would_make_it_anew(monkeypatch: pytest.MonkeyPatch) -> None:
    torch = pytest.importorskip("torch")
    if not torch.cuda.is_available():
        pytest.skip("no CUDA device here")
    from assets.flights import network

    rows = departures().head(2500)  # two batches of one size and one of another

    def weights() -> dict[str, np.ndarray]:
        return dict(NeuralClassifier(NeuralParameters(), NUMBERS).fit(rows[FEATURES], rows["late"]).weights)

    recorded = weights()
    never = SimpleNamespace(batch=[])  # no batch has its size
    monkeypatch.setattr(network, "Recorded", lambda *_: never)
    anew = weights()
    assert {name: (anew[name] == recorded[name]).all() for name in anew} == dict.fromkeys(anew, True)


def test_scoring_says_what_the_network_says_in_pytorch(network: NeuralClassifier) -> None:
    import torch

    from assets.flights.network import Network

    rows, encoding = departures().tail(100), network.encoding
    assert encoding is not None
    inputs = torch.as_tensor(encoding.codes(rows)), torch.as_tensor(encoding.standardized(rows), dtype=torch.float32)
    module = Network(encoding.sizes, inputs[1].shape[1], NeuralParameters())
    module.load_state_dict({name: torch.as_tensor(tensor) for name, tensor in network.weights.items()})
    with torch.inference_mode():
        said = torch.sigmoid(module.eval()(*inputs)).numpy()
    assert network.predict_proba(rows)[:, 1] == pytest.approx(said, abs=1e-6)


def test_a_row_is_scored_alone_as_among_others(network: NeuralClassifier) -> None:
    rows = departures().tail(50)
    alone = [network.predict_proba(rows.iloc[[n]])[0, 1] for n in range(len(rows))]
    assert network.predict_proba(rows)[:, 1].tolist() == alone


def test_what_comes_back_from_the_registry_scores_the_same_and_without_pytorch(
    network: NeuralClassifier, tmp_path: Path
) -> None:
    rows = departures().tail(100)
    registry = ModelRegistry(str(tmp_path), [], tensor_models=TENSOR_MODELS)
    address = registry.save(dg.AssetKey(NEURAL), NEWARK, StoredModel(network, {"auc": 0.5}))
    assert address.endswith("EWR.safetensors")
    loaded = registry.load(dg.AssetKey(NEURAL), NEWARK).estimator
    assert (loaded.predict_proba(rows) == network.predict_proba(rows)).all()
    assert loaded.training == network.training
    rows.to_parquet(tmp_path / "rows.parquet")
    script = f"""
import sys, dagster as dg, pandas as pd, json
sys.modules["torch"] = None  # as where it is not installed
from assets.flights.models import TENSOR_MODELS
from resources.registry import ModelRegistry
model = ModelRegistry({str(tmp_path)!r}, [], tensor_models=TENSOR_MODELS).load(dg.AssetKey({NEURAL!r}), {NEWARK!r})
print(json.dumps(model.estimator.predict_proba(pd.read_parquet({str(tmp_path / "rows.parquet")!r}))[:, 1].tolist()))
"""
    printed = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True).stdout
    assert json.loads(printed) == network.predict_proba(rows)[:, 1].tolist()


def test_an_untrained_network_says_so() -> None:
    with pytest.raises(ValueError, match="call fit first"):
        NeuralClassifier(NeuralParameters(), NUMBERS).predict_proba(departures())


def test_a_window_of_two_rows_is_enough_to_train_on() -> None:
    pytest.importorskip("torch")
    rows = departures().head(2)
    fitted = NeuralClassifier(NeuralParameters(), NUMBERS[:3]).fit(rows, pd.Series([False, True]))
    assert np.isfinite(fitted.predict_proba(rows)).all()


@with_pytorch
def test_the_asset_stores_a_candidate_with_its_metrics_which_the_champion_and_predictions_take(
    trained: Platform,
) -> None:
    trained.make([NEURAL], NEWARK)
    made, version = trained.latest(NEURAL, NEWARK), trained.data_version(NEURAL, NEWARK)
    assert made is not None
    assert float(made.metadata["auc"].value) > 0.7
    trained.make([NEURAL], NEWARK)
    assert trained.data_version(NEURAL, NEWARK) == version
    trained.make([CHAMPION], NEWARK)
    champion = trained.latest(CHAMPION, NEWARK)
    assert champion is not None
    assert "| models/delay_neural |" in str(champion.metadata["comparison"].value)

    registry, key = registry_of(trained), dg.AssetKey(NEURAL)
    neural = registry.load(key, NEWARK)
    better = {**neural.card, "metrics": neural.card["metrics"] | {"log_loss": 0.001}}
    registry.save(key, NEWARK, StoredModel(neural.estimator, better))
    trained.make([CHAMPION], NEWARK)
    trained.make([["models", "in_service"]], "2013-02|EWR")
    features = departures(100).assign(flight_date=pd.Timestamp("2013-02-01").date())
    stored = pa.Table.from_pandas(features.drop(columns=["late", "month"]), preserve_index=False)
    trained.lake.replace("features/departures", stored, ["2013-02-01"], ["flight_date"])
    trained.make([["predictions", "delays"]], "2013-02-01")
    predicted = trained.lake.read("predictions/delays").to_pandas()
    assert set(predicted["candidate"]) == {"models/delay_neural"}
    expected = neural.estimator.predict_proba(features)[:, 1]
    assert predicted["probability"].tolist() == expected.tolist()
