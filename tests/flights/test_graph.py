"""The whole graph in one process on five days of the record: everything is made, counted, checked and explained."""

import base64
import gzip
import io
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dagster as dg
import pandas as pd
import pytest
from matplotlib.image import imread
from sklearn.metrics import roc_auc_score
from skops.io.exceptions import UntrustedTypesFoundException

from assets.flights import partitions as by
from assets.flights import replay
from assets.flights.definitions import definitions
from assets.flights.models import TRUSTED_TYPES
from resources.registry import ModelRegistry, StoredModel
from tests.example import FIVE_DAYS, MODELS, SCORED, Platform, copied

DAYS = FIVE_DAYS
NEURAL = "models/delay_neural"
TRAINED_DAYS, SCORED_DAYS = DAYS[:3], DAYS[3:]
TRAINED, SERVED = ([f"{month}|{origin}" for origin in by.ORIGINS] for month in ("2013-01", "2013-02"))
# What is made of the five days, by which partitions; they and the reference tables are there already.
RUNS = [
    ([["features", "training_set"]], by.months, ["2013-01"]),
    (MODELS, by.models, TRAINED),
    ([["models", "in_service"]], by.service, SERVED),
    (SCORED, by.scored_days, SCORED_DAYS),
]
MADE = [(None, []), (by.days, DAYS), *((cut, partitions) for _, cut, partitions in RUNS)]


@dataclass
class Graph:
    """A platform on which everything was made once, and what its definitions declare."""

    platform: Platform
    specs: dict[str, dg.AssetSpec]
    checks: set[dg.AssetCheckKey]

    def events(self, kind: dg.DagsterEventType) -> list[Any]:
        """What the events of a kind say that its runs stored."""
        instance = self.platform.instance
        entries = [entry for run in instance.get_runs() for entry in instance.all_logs(run.run_id, of_type=kind)]
        return [entry.get_dagster_event().event_specific_data for entry in entries]

    def table(self, name: str) -> pd.DataFrame:
        """All that an asset holds, from the warehouse or from the lake."""
        if name.startswith(("raw", "marts")):
            return self.platform.warehouse.read(f"SELECT * FROM {name.replace('/', '.')}").to_pandas()
        return self.platform.lake.read(dg.AssetKey.from_user_string(name)).to_pandas()

    def rows(self, name: str, column: str = "flight_date") -> dict[str, int]:
        """How many rows the asset holds by the value of a column, as text."""
        return self.table(name)[column].astype(str).value_counts().to_dict()

    def metadata(self, name: str, partition: str | None = None) -> dict[str, Any]:
        latest = self.platform.latest(name.split("/"), partition)
        assert latest is not None, f"{name} {partition} was never materialized"
        return {entry: value.value for entry, value in latest.metadata.items()}

    def model(self, name: str, partition: str, trusted: list[str] = TRUSTED_TYPES) -> StoredModel:
        registry = ModelRegistry(self.platform.deployment.models_uri, trusted, self.platform.deployment.branch)
        return registry.load(dg.AssetKey.from_user_string(name), partition)

    @property
    def candidates(self) -> list[str]:
        """The models that the champion is chosen among, without the one that not every environment trains."""
        read = {dep.asset_key.to_user_string() for dep in self.specs["models/delay_champion"].deps}
        return sorted(read - {NEURAL})

    @property
    def counted(self) -> dict[str, str]:
        """The tables that we store by partition, each with its partition column; dbt stores those of its schemas."""
        ours = {name: spec.metadata for name, spec in self.specs.items() if not name.startswith(("staging", "marts"))}
        return {name: metadata["partition_expr"] for name, metadata in ours.items() if "partition_expr" in metadata}


@pytest.fixture(scope="module")
def graph(with_five_days: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Graph]:
    with copied(with_five_days, tmp_path_factory.mktemp("state")) as platform:
        for assets, _, partitions in RUNS:
            platform.materialize(assets, partitions[0], partitions[-1])
        defined = definitions(platform.deployment)
        specs = {spec.key.to_user_string(): spec for spec in defined.resolve_all_asset_specs()}
        yield Graph(platform, specs, set(defined.resolve_asset_graph().asset_check_keys))


def test_every_run_succeeds(graph: Graph) -> None:
    assert [str(failure.error) for failure in graph.events(dg.DagsterEventType.STEP_FAILURE)] == []
    runs = graph.platform.instance.get_runs()
    assert len(runs) == 2 + len(RUNS)
    assert {run.status for run in runs} == {dg.DagsterRunStatus.SUCCESS}


def test_every_asset_of_the_definitions_is_made_for_each_of_its_partitions(graph: Graph) -> None:
    expected = {name: next(p for cut, p in MADE if cut == spec.partitions_def) for name, spec in graph.specs.items()}
    del expected[NEURAL]
    due = [(name, partition) for name, partitions in expected.items() for partition in partitions or [None]]

    assert [(name, made) for name, made in due if graph.platform.latest(name.split("/"), made) is None] == []


@pytest.mark.parametrize(("table", "column"), [("flights", "flight_date"), ("weather", "observation_date")])
def test_every_landed_line_is_accepted_or_rejected(graph: Graph, table: str, column: str) -> None:
    read = graph.platform.landing.read
    lines = {day: len(gzip.decompress(read(table, f"{day}.csv.gz")).splitlines()) - 1 for day in DAYS}
    accepted, rejected = graph.rows(f"raw/{table}", column), graph.rows(f"raw_rejected/{table}", "partition_day")

    assert {day: accepted[day] + rejected.get(day, 0) for day in DAYS} == lines


def test_every_accepted_flight_is_one_departure_one_row_of_features_and_one_prediction(graph: Graph) -> None:
    flights = graph.rows("raw/flights")

    assert graph.rows("marts/departures") == graph.rows("features/departures") == flights
    assert graph.rows("predictions/delays") == {day: flights[day] for day in SCORED_DAYS}
    assert graph.rows("features/departures", "departure_id") == graph.rows("marts/departures", "departure_id")


def test_the_training_set_is_every_arrival_of_its_window_and_nothing_later(graph: Graph) -> None:
    departures = graph.table("marts/departures").set_index("departure_id")
    window = departures[departures["flight_date"].astype(str).isin(TRAINED_DAYS)]["late"]

    assert graph.table("features/training_set").set_index("departure_id")["late"].to_dict() == window.dropna().to_dict()
    assert graph.metadata("features/training_set", "2013-01")["no_arrival"] == window.isna().sum()


def test_the_recorded_rows_of_each_partition_are_those_it_holds(graph: Graph) -> None:
    held = {(name, day): n for name, column in graph.counted.items() for day, n in graph.rows(name, column).items()}

    assert {key: graph.metadata(*key)["dagster/partition_row_count"] for key in held} == held


def test_the_recorded_columns_of_raw_and_lake_tables_are_those_they_have(graph: Graph) -> None:
    names = {*graph.counted, *(f"raw/{table}" for table in replay.REFERENCE)}
    recorded = {name: [c.name for c in graph.metadata(name)["dagster/column_schema"].columns] for name in names}

    assert recorded == {name: list(graph.table(name).columns) for name in names}


def test_every_check_of_the_definitions_is_evaluated_and_none_fails_as_an_error(graph: Graph) -> None:
    evaluated = graph.events(dg.DagsterEventType.ASSET_CHECK_EVALUATION)

    assert {check.asset_check_key for check in evaluated} == graph.checks
    assert [c.check_name for c in evaluated if not c.passed and c.severity == dg.AssetCheckSeverity.ERROR] == []


@pytest.mark.parametrize("partition", TRAINED)
def test_every_candidate_shows_its_scores_and_a_calibration_picture(graph: Graph, partition: str) -> None:
    training_set = graph.table("features/training_set").astype({"flight_date": str})
    for candidate in graph.candidates:
        shown = graph.metadata(candidate, partition)
        held_out = training_set["flight_date"] >= shown["held_out_from"]
        late = training_set[held_out & (training_set["origin"] == partition.split("|")[1])]["late"]
        assert (shown["rows"], shown["late_share"]) == (len(late), late.mean())
        assert all(shown[score] > 0 for score in ("auc", "log_loss", "brier", "calibration_error"))
        title, _, picture = shown["calibration"].removesuffix(")").partition("](data:image/png;base64,")
        assert title.startswith("![")
        assert min(imread(io.BytesIO(base64.b64decode(picture, validate=True)), format="png").shape[:2]) > 100


@pytest.mark.parametrize("partition", TRAINED)
def test_the_champion_is_the_candidate_with_the_lower_log_loss(graph: Graph, partition: str) -> None:
    losses = {name: graph.metadata(name, partition)["log_loss"] for name in graph.candidates}
    best = min(losses, key=lambda name: losses[name])

    assert len(losses) > 1
    assert graph.metadata("models/delay_champion", partition)["candidate"] == best
    assert graph.model("models/delay_champion", partition).card == graph.model(best, partition).card


def test_every_prediction_is_by_its_airports_model_of_the_month_before(graph: Graph) -> None:
    used = graph.table("predictions/delays")[["origin", "champion"]].drop_duplicates()

    assert sorted(used.itertuples(index=False, name=None)) == [(p.split("|")[1], p) for p in TRAINED]
    assert {graph.model("models/in_service", p).card["trained_through"] for p in SERVED} == {TRAINED_DAYS[-1]}


@pytest.mark.parametrize("day", SCORED_DAYS)
def test_the_reported_quality_is_what_predictions_and_outcomes_give(graph: Graph, day: str) -> None:
    outcomes = graph.table("marts/departures")[["departure_id", "late"]].dropna().astype({"late": bool})
    known = graph.table("predictions/delays").merge(outcomes, on="departure_id")
    known, report = (t[t["flight_date"].astype(str) == day] for t in (known, graph.table("reports/prediction_quality")))
    auc = {origin: roc_auc_score(rows["late"], rows["probability"]) for origin, rows in known.groupby("origin")}

    assert dict(zip(report["origin"], report["auc"], strict=True)) == auc
    of_day = graph.metadata("reports/prediction_quality", day)
    assert of_day["auc"] == roc_auc_score(known["late"], known["probability"])


def test_a_stored_model_loads_only_where_its_types_are_trusted(graph: Graph) -> None:
    for candidate in graph.candidates:
        assert graph.model(candidate, TRAINED[0]).card["asset"] == candidate
        with pytest.raises(UntrustedTypesFoundException):
            graph.model(candidate, TRAINED[0], trusted=[])
