"""What asks for new models and new predictions by itself: content that is new or changed, never a mere re-run."""

import gzip
import time
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace

import dagster as dg
import pytest

from assets.flights import partitions as by
from assets.flights.definitions import definitions
from assets.flights.models import in_service
from assets.flights.sensors import automation_sensors
from resources.registry import StoredModel
from tests.automation import dates
from tests.conftest import QUIET
from tests.example import Platform, copied
from tests.flights.automation import (
    CANDIDATES,
    CHAMPION,
    DAILY_DBT,
    FEATURES,
    IN_SERVICE,
    NEURAL,
    PREDICTIONS,
    QUALITY,
    RAW,
    REFERENCE,
    TRAINING_SET,
    Daemon,
    each,
    flights_definitions,
    models_of,
    once,
)
from tilth.automation.conditions import on_changed_data
from tilth.observability import freshness
from tilth.versioning.inputs import INPUTS

MARTS = "marts/departures"


@pytest.fixture(scope="module")
def flights(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dg.Definitions]:
    with flights_definitions(tmp_path_factory.mktemp("state")) as definitions:
        yield definitions


@pytest.fixture
def platform(with_reference: Path, tmp_path: Path) -> Iterator[Platform]:
    """One on which the reference tables are made."""
    with copied(with_reference, tmp_path) as platform:
        yield platform


@pytest.fixture
def daemon(flights: dg.Definitions) -> Iterator[Daemon]:
    """A daemon that has looked at an empty platform, after which the reference tables were made."""
    with dg.DagsterInstance.ephemeral() as instance:
        daemon = Daemon(flights, instance)
        assert daemon.look() == {}
        daemon.made(REFERENCE)
        yield daemon


@pytest.mark.parametrize(("whole", "part"), [(MARTS, FEATURES), (FEATURES, MARTS)])
def test_a_training_set_is_asked_for_when_both_features_and_marts_of_its_last_day_are_there(
    daemon: Daemon, whole: str, part: str
) -> None:
    *days, last = dates("2013-01-01", "2013-01-31")
    daemon.made([whole], [*days, last])
    daemon.made([part], days)
    assert TRAINING_SET not in daemon.look()
    daemon.made([part], [last])
    assert daemon.look()[TRAINING_SET] == {"2013-01"}
    assert TRAINING_SET not in daemon.look()


def test_a_day_that_never_landed_holds_back_the_months_whose_window_it_is_in_and_no_other(daemon: Daemon) -> None:
    missing = "2013-01-17"
    daemon.made([MARTS, FEATURES], {*dates("2013-01-01", "2013-04-30")} - {missing})
    assert daemon.look()[TRAINING_SET] == {"2013-04"}
    daemon.made([MARTS, FEATURES], [missing])
    assert daemon.look()[TRAINING_SET] == {"2013-01", "2013-02", "2013-03"}


def test_a_day_that_fails_a_dbt_test_holds_back_the_training_set_of_its_month_and_the_lag_of_that_says_so(
    platform: Platform, monkeypatch: pytest.MonkeyPatch
) -> None:
    *others, day = dates("2013-01-01", "2013-01-31")
    platform.land(day)
    header, flight, *more = gzip.decompress(platform.landing.read("flights", f"{day}.csv.gz")).splitlines(keepends=True)
    carrier = flight.split(b",")[9]
    unknown = flight.replace(b"," + carrier + b",", b",ZZ,", 1)
    platform.landing.put("flights", f"{day}.csv.gz", gzip.compress(b"".join([header, unknown, *more])))
    flights = definitions(platform.deployment)
    daemon = Daemon(flights, platform.instance)
    daemon.made([*DAILY_DBT, FEATURES], others)
    failed = platform.materialize([key.split("/") for key in (*RAW, *DAILY_DBT, FEATURES)], day)
    tests = {check.check_name for check in failed.get_asset_check_evaluations() if not check.passed}
    assert "departures_carrier_is_an_airline" in tests
    assert TRAINING_SET not in daemon.look()

    monkeypatch.setattr(freshness, "time", SimpleNamespace(time=lambda: time.time() + 31 * 60))
    repository = flights.get_repository_def()
    context = dg.build_sensor_context(platform.instance, repository_def=repository)
    told = repository.get_sensor_def("partition_lag").evaluate_tick(context).asset_events
    [lag] = [event for event in told if event.asset_key == dg.AssetKey.from_user_string(TRAINING_SET)]
    assert isinstance(lag, dg.AssetCheckEvaluation)
    metadata = {name: value.value for name, value in lag.metadata.items()}
    assert (lag.passed, metadata["oldest"], metadata["cause_partition"]) == (False, "2013-01", day)
    assert metadata["cause_asset"].to_user_string() in DAILY_DBT
    assert metadata["run"] == failed.run_id
    assert f"{day} failed" in (lag.description or "")

    daemon.made([*DAILY_DBT, FEATURES], [day])
    assert daemon.look()[TRAINING_SET] == {"2013-01"}


@pytest.mark.parametrize("upstream", [MARTS, FEATURES])
def test_a_training_set_is_asked_for_again_when_a_day_changed_and_not_when_it_was_made_the_same_again(
    daemon: Daemon, upstream: str
) -> None:
    # Changes are gathered for up to ten minutes.
    moments = iter(datetime(2100, 1, 1, tzinfo=UTC) + timedelta(minutes=6 * n) for n in range(20))

    def asked() -> set[str | None]:
        return daemon.look(next(moments)).get(TRAINING_SET, set())

    daemon.made([MARTS, FEATURES], dates("2013-01-01", "2013-02-28"))
    assert asked() == {"2013-01", "2013-02"}
    daemon.made([TRAINING_SET], ["2013-01", "2013-02"])
    daemon.made([upstream], dates("2013-01-01", "2013-01-05"))
    assert [asked(), asked(), asked()] == [set()] * 3
    daemon.made([upstream], ["2013-02-03"], "corrected")
    assert set.union(asked(), asked(), asked()) == {"2013-02"}
    daemon.made([TRAINING_SET], ["2013-02"], "corrected")
    assert [asked(), asked(), asked()] == [set()] * 3
    daemon.made([upstream], ["2013-01-03"], "corrected")
    assert set.union(asked(), asked(), asked()) == {"2013-01", "2013-02"}


def test_models_of_all_airports_are_asked_for_when_a_training_set_changed_and_not_when_it_is_the_same(
    daemon: Daemon,
) -> None:
    models = each([*CANDIDATES, CHAMPION], models_of("2013-01"))
    daemon.made([TRAINING_SET], ["2013-01"])
    assert daemon.look() == models
    daemon.made(models, models_of("2013-01"))
    daemon.made([IN_SERVICE], models_of("2013-02", "2013-03", "2013-04"))
    assert daemon.look() == {}
    daemon.made([TRAINING_SET], ["2013-01"])
    assert daemon.look() == {}
    daemon.made([TRAINING_SET], ["2013-01"], "corrected")
    assert daemon.look() == models
    assert daemon.look() == {}


def test_a_champion_waits_for_both_candidates(daemon: Daemon) -> None:
    newark = models_of("2013-01", origins=["EWR"])
    daemon.made(["models/delay_logistic"], newark)
    assert daemon.look() == {}
    daemon.made(["models/delay_boosted"], newark)
    assert daemon.look() == {CHAMPION: newark}


def test_a_neural_candidate_is_never_waited_for_and_asks_for_the_comparison_again_when_it_comes(
    daemon: Daemon,
) -> None:
    newark = models_of("2013-01", origins=["EWR"])
    daemon.made([TRAINING_SET], ["2013-01"])
    daemon.look()
    daemon.made([*CANDIDATES, CHAMPION], newark)
    daemon.made([IN_SERVICE], models_of("2013-02", "2013-03", "2013-04"))
    assert daemon.look() == {}
    daemon.made([NEURAL], newark)  # by hand: it has no condition where PyTorch is not installed
    assert daemon.look() == {CHAMPION: newark}
    daemon.made([CHAMPION], newark, "another")
    daemon.made([IN_SERVICE], models_of("2013-02", "2013-03", "2013-04"), "another")
    daemon.made([NEURAL], newark)
    assert daemon.look() == {}


def test_where_pytorch_is_installed_a_neural_candidate_is_asked_for_in_a_run_of_its_own(
    tmp_path: Path,
) -> None:
    with (
        flights_definitions(tmp_path, neural=on_changed_data()) as definitions,
        dg.DagsterInstance.ephemeral() as instance,
    ):
        daemon = Daemon(definitions, instance)
        daemon.made([TRAINING_SET], ["2013-01"])
        assert daemon.look() == each([*CANDIDATES, NEURAL, CHAMPION], models_of("2013-01"))
        asked_by = {sensor.name: sensor.asset_selection for sensor in automation_sensors}
        graph, key = definitions.resolve_asset_graph(), dg.AssetKey.from_user_string(NEURAL)
        assert asked_by["training_neural"].resolve(graph) == {key}
        assert key not in asked_by["training"].resolve(graph)


def test_a_champion_with_new_content_is_asked_into_service_for_the_three_months_after_its_own(daemon: Daemon) -> None:
    served = ["2013-02", "2013-03", "2013-04"]
    daemon.made([CHAMPION], models_of("2013-01"))
    assert daemon.look() == {IN_SERVICE: models_of(*served)}
    daemon.made([IN_SERVICE], models_of(*served))
    daemon.made([CHAMPION], models_of("2013-01"))
    assert daemon.look() == {}
    daemon.made([CHAMPION], models_of("2013-01", origins=["EWR"]), "another")
    assert daemon.look() == {IN_SERVICE: models_of(*served, origins=["EWR"])}


def test_predictions_wait_for_the_models_of_all_airports_and_change_with_any_of_them(daemon: Daemon) -> None:
    scored = ["2013-02-01", "2013-02-02"]
    daemon.made([*DAILY_DBT, FEATURES], [*scored, "2013-03-01"])
    daemon.made([IN_SERVICE], models_of("2013-02", origins=["EWR", "JFK"]))
    assert daemon.look() == {}
    daemon.made([IN_SERVICE], models_of("2013-02", origins=["LGA"]))
    assert daemon.look() == each([PREDICTIONS, QUALITY], scored)
    daemon.made([PREDICTIONS, QUALITY], scored)
    daemon.made([IN_SERVICE], models_of("2013-02"))
    assert daemon.look() == {}
    daemon.made([IN_SERVICE], models_of("2013-02", origins=["EWR"]), "another")
    assert daemon.look() == each([PREDICTIONS, QUALITY], scored)


def test_quality_follows_predictions_that_were_made_by_hand(daemon: Daemon) -> None:
    daemon.made([*DAILY_DBT, FEATURES], ["2013-02-01"])
    assert daemon.look() == {}
    daemon.made([PREDICTIONS], ["2013-02-01"])
    assert daemon.look() == {QUALITY: {"2013-02-01"}}


def test_a_day_sent_again_goes_as_far_as_its_content_is_new(daemon: Daemon) -> None:
    day, january, served = ["2013-01-05"], models_of("2013-01"), models_of("2013-02", "2013-03", "2013-04")
    daemon.made([*RAW, *DAILY_DBT, FEATURES], dates("2013-01-01", "2013-02-03"))
    daemon.made([TRAINING_SET], ["2013-01"])
    daemon.made([*CANDIDATES, CHAMPION], january)
    daemon.made([IN_SERVICE], served)
    daemon.made([PREDICTIONS, QUALITY], dates("2013-02-01", "2013-02-03"))
    assert daemon.look() == {}

    daemon.made(RAW, day)
    assert daemon.follow() == once({})

    daemon.made(RAW, day, "corrected")
    rows = {**each(DAILY_DBT, day), FEATURES: {*dates("2013-01-05", "2013-02-02")}}
    models = {TRAINING_SET: {"2013-01"}, **each([*CANDIDATES, CHAMPION], january), IN_SERVICE: served}
    scores = each([PREDICTIONS, QUALITY], dates("2013-02-01", "2013-02-03"))
    # The first two days of February have new features before there is a new model, so these are scored twice.
    scored_before = each([PREDICTIONS, QUALITY], dates("2013-02-01", "2013-02-02"))
    looks = {"begin": datetime(2100, 1, 1, tzinfo=UTC), "every": timedelta(minutes=11)}
    assert daemon.follow("corrected", **looks) == once({**rows, **models, **scores}) + once(scored_before)


def test_models_in_service_that_were_wiped_are_asked_for_where_a_champion_is_and_nowhere_else(daemon: Daemon) -> None:
    served = models_of("2013-02", "2013-03", "2013-04")
    daemon.made([CHAMPION], models_of("2013-01"))
    daemon.made([IN_SERVICE], served)
    assert daemon.look() == {}
    daemon.instance.wipe_assets([dg.AssetKey.from_user_string(IN_SERVICE)])
    assert daemon.look() == {IN_SERVICE: served}


class Champion(dg.IOManager):
    """Holds one model, of Newark in January."""

    def load_input(self, context: dg.InputContext) -> dict[str, StoredModel]:  # noqa: ARG002
        return {"2013-01|EWR": StoredModel(None, {"asset": "models/delay_boosted", "fingerprint": "1"})}

    def handle_output(self, context: dg.OutputContext, obj: object) -> None: ...


def test_a_model_in_service_says_what_set_it_off_back_to_the_days_of_dbt(daemon: Daemon) -> None:
    day, newark = "2013-01-31", "2013-01|EWR"
    version = f"{MARTS} {day} first"
    daemon.made([MARTS], [day])
    daemon.instance.report_runless_asset_event(
        dg.AssetMaterialization(
            CHAMPION.split("/"),
            partition=newark,
            tags={"dagster/data_version": "of January"},
            metadata={INPUTS: dg.MetadataValue.json({MARTS: {day: version}})},
        )
    )
    made = dg.materialize(
        [dg.AssetSpec(CHAMPION.split("/"), partitions_def=by.models).with_io_manager_key("model_io"), in_service],
        partition_key="2013-02|EWR",
        instance=daemon.instance,
        resources={"model_io": Champion()},
        run_config=QUIET,
    )
    [event] = made.asset_materializations_for_node("models__in_service")
    assert event.metadata["triggered_by"].value == {
        MARTS: {day: {"version": version}},
        CHAMPION: {newark: {"version": "of January"}},
    }
