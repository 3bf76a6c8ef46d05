"""Limits of pools are declared with the definitions, and an instance takes them over."""

import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import dagster as dg
import pytest

from tilth.execution import pools
from tilth.execution.pools import apply_pool_limits, pool_limits

HERE = "assets.here.definitions"


@pytest.fixture
def instance(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[dg.DagsterInstance]:
    (tmp_path / "dagster.yaml").write_text("telemetry: {enabled: false}\n")
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path))
    with dg.DagsterInstance.get() as instance:
        yield instance


def limit_of(instance: dg.DagsterInstance, pool: str) -> int:
    return instance.event_log_storage.get_concurrency_info(pool).slot_count


@dg.asset(pool="printer")
def page() -> None: ...


defs = dg.Definitions([page], metadata=pool_limits(printer=1))


def test_the_command_sets_the_limits_that_the_definitions_declare(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(sys, "argv", ["tilth.execution.pools", __name__])
    pools.main()
    assert capsys.readouterr().out == "pool printer: 1 step at once\n"
    assert limit_of(instance, "printer") == 1


def test_the_command_says_which_other_location_has_the_smaller_limit(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    others = dg.Definitions([page], metadata=pool_limits(printer=2))
    apply_pool_limits(others, instance, HERE)
    monkeypatch.setattr(sys.modules[__name__], "defs", dg.Definitions([page], metadata=pool_limits(printer=3)))
    monkeypatch.setattr(sys, "argv", ["tilth.execution.pools", __name__])
    pools.main()
    assert capsys.readouterr().out == f"pool printer: 2 steps at once, the limit of {HERE}\n"


def test_of_locations_that_declare_their_limits_at_once_none_is_lost(instance: dg.DagsterInstance) -> None:
    limits = range(1, 9)

    def declare(limit: int) -> None:
        apply_pool_limits(dg.Definitions([page], metadata=pool_limits(printer=limit)), instance, f"assets.of_{limit}")

    with ThreadPoolExecutor(len(limits)) as at_once:
        list(at_once.map(declare, limits))
    for limit in limits[:-1]:
        assert limit_of(instance, "printer") == limit
        apply_pool_limits(dg.Definitions([page]), instance, f"assets.of_{limit}")
    assert limit_of(instance, "printer") == limits[-1]


def test_where_nothing_can_be_written_beside_the_configuration_the_limits_are_set_all_the_same(
    instance: dg.DagsterInstance, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setenv("DAGSTER_HOME", str(tmp_path / "nowhere"))
    assert apply_pool_limits(defs, instance, HERE) == {"printer": 1}


def test_a_changed_limit_is_changed_in_the_instance(instance: dg.DagsterInstance) -> None:
    for limit in (3, 2):
        assert apply_pool_limits(dg.Definitions([page], metadata=pool_limits(printer=limit)), instance, HERE)
        assert limit_of(instance, "printer") == limit


def test_of_a_pool_that_two_locations_share_the_smaller_limit_holds_whoever_comes_last(
    instance: dg.DagsterInstance,
) -> None:
    def declare(location: str, limit: int) -> dict[str, int]:
        return apply_pool_limits(dg.Definitions([page], metadata=pool_limits(printer=limit)), instance, location)

    assert declare(HERE, 1) == {"printer": 1}
    assert declare("assets.there.definitions", 4) == {"printer": 1}
    assert limit_of(instance, "printer") == 1
    assert declare(HERE, 6) == {"printer": 4}
    assert limit_of(instance, "printer") == 4
    assert apply_pool_limits(dg.Definitions([page]), instance, "assets.there.definitions") == {"printer": 6}
    assert limit_of(instance, "printer") == 6


def test_definitions_without_pools_change_none(instance: dg.DagsterInstance) -> None:
    instance.event_log_storage.set_concurrency_slots("printer", 5)
    assert apply_pool_limits(dg.Definitions([page]), instance, HERE) == {}
    assert limit_of(instance, "printer") == 5


def test_a_pool_that_no_asset_is_in_is_an_error_that_names_those_there_are(instance: dg.DagsterInstance) -> None:
    misspelled = dg.Definitions([page], metadata=pool_limits(primter=1))
    with pytest.raises(ValueError, match="No asset is in the pool 'primter'; they are in printer"):
        apply_pool_limits(misspelled, instance, HERE)


def test_a_limit_by_which_nothing_could_begin_is_an_error() -> None:
    with pytest.raises(ValueError, match="No step of the pool 'printer' could ever begin with a limit of 0"):
        pool_limits(printer=0)
