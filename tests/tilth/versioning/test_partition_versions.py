"""Each partition of a step is recorded with a data version of its own, and nothing of it reaches another step."""

import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import dagster as dg
import pytest
from dagster._core.execution.plan import execute_step
from pydantic import Field

from tests.conftest import QUIET
from tilth._dagster import step_events
from tilth.versioning import partitions as partition_versions
from tilth.versioning.partitions import set_data_versions

DAYS = dg.StaticPartitionsDefinition(["a", "b", "c"])
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "airport": dg.StaticPartitionsDefinition(["EWR", "JFK"])})
ONE_RUN = dg.BackfillPolicy.single_run()
VERSION = "dagster/data_version"


class Versions(dg.Config):
    of: dict[str, str] = Field(default_factory=dict)
    fails: bool = False


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield instance


@pytest.fixture
def on_disk(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def asset(name: str = "things", partitions: dg.PartitionsDefinition = DAYS) -> dg.AssetsDefinition:
    @dg.asset(name=name, partitions_def=partitions, backfill_policy=ONE_RUN)
    def made(context: dg.AssetExecutionContext, config: Versions) -> dg.MaterializeResult:
        set_data_versions(context, context.asset_key, config.of)
        if config.fails:
            raise RuntimeError("before anything is recorded")
        for key in context.partition_keys:
            context.add_asset_metadata({"key": key}, partition_key=key)
        return dg.MaterializeResult(metadata={"of_the_step": 1}, tags={"said": "by-the-step"})

    return made


def run(
    instance: dg.DagsterInstance, *assets: dg.AssetsDefinition, first: str, last: str, **config: Any
) -> dg.ExecuteInProcessResult:
    return dg.materialize(
        assets,
        instance=instance,
        tags={"dagster/asset_partition_range_start": first, "dagster/asset_partition_range_end": last},
        run_config=QUIET | {"ops": {made.op.name: {"config": config} for made in assets}},
        raise_on_error=False,
    )


def recorded(instance: dg.DagsterInstance, name: str = "things") -> dict[str, dg.AssetMaterialization]:
    """The newest materialization of each partition, as it comes back from Dagster's storage."""
    found: dict[str, dg.AssetMaterialization] = {}
    for record in instance.fetch_materializations(dg.AssetKey(name), limit=100).records:
        assert record.asset_materialization is not None
        found.setdefault(str(record.partition_key), record.asset_materialization)
    return found


def versions(instance: dg.DagsterInstance, name: str = "things") -> dict[str, str]:
    return {key: (event.tags or {})[VERSION] for key, event in recorded(instance, name).items()}


def test_each_partition_of_a_step_has_its_own_data_version(on_disk: dg.DagsterInstance) -> None:
    assert run(on_disk, asset(), first="a", last="c", of={"a": "1", "b": "2", "c": "3"}).success
    assert versions(on_disk) == {"a": "1", "b": "2", "c": "3"}
    assert run(on_disk, asset(), first="b", last="b", of={"b": "4"}).success
    assert versions(on_disk) == {"a": "1", "b": "4", "c": "3"}


def test_dagster_takes_it_for_a_version_that_the_user_gave(instance: dg.DagsterInstance) -> None:
    assert run(instance, asset(), first="a", last="b", of={"a": "1", "b": "2"}).success
    for event in recorded(instance).values():
        assert (event.tags or {})["dagster/data_version_is_user_provided"] == "true"


def test_metadata_and_tags_of_the_materialization_stay(instance: dg.DagsterInstance) -> None:
    assert run(instance, asset(), first="a", last="b", of={"a": "1", "b": "2"}).success
    for key, event in recorded(instance).items():
        assert {name: value.value for name, value in event.metadata.items()} == {"key": key, "of_the_step": 1}
        assert (event.tags or {})["said"] == "by-the-step"
        assert "dagster/code_version" in (event.tags or {})


def test_a_partition_of_two_dimensions_keeps_the_tags_of_both(instance: dg.DagsterInstance) -> None:
    of = {key: f"v{number}" for number, key in enumerate(BOTH.get_partition_keys())}
    assert run(instance, asset(partitions=BOTH), first="EWR|a", last="JFK|c", of=of).success
    assert versions(instance) == of
    assert len(of) == 6
    for key, event in recorded(instance).items():
        airport, day = key.split("|")
        tags = event.tags or {}
        assert (tags["dagster/partition/airport"], tags["dagster/partition/day"]) == (airport, day)


def test_a_partition_that_was_given_none_has_dagsters_own(instance: dg.DagsterInstance) -> None:
    run(instance, asset(), first="a", last="b", of={"a": "1"})
    found = versions(instance)
    assert found["a"] == "1"
    assert len(found["b"]) > 30  # Dagster's hash of the run and its inputs


def test_two_assets_of_one_run_do_not_share_versions(instance: dg.DagsterInstance) -> None:
    run(instance, asset(), asset("others"), first="a", last="a", of={"a": "1"})
    run(instance, asset("others"), first="a", last="a")
    assert versions(instance)["a"] == "1"
    assert versions(instance, "others")["a"] != "1"


def test_one_step_of_several_assets_has_versions_for_each(instance: dg.DagsterInstance) -> None:
    @dg.multi_asset(
        specs=[dg.AssetSpec("one"), dg.AssetSpec("two")], partitions_def=DAYS, backfill_policy=ONE_RUN, name="several"
    )
    def several(context: dg.AssetExecutionContext) -> Iterator[dg.MaterializeResult]:
        for name in ("one", "two"):
            set_data_versions(context, dg.AssetKey(name), {key: f"{name} {key}" for key in context.partition_keys})
        for name in ("two", "one"):
            yield dg.MaterializeResult(asset_key=name)

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "b"}
    assert dg.materialize([several], instance=instance, tags=tags, run_config=QUIET).success
    assert versions(instance, "one") == {"a": "one a", "b": "one b"}
    assert versions(instance, "two") == {"a": "two a", "b": "two b"}


def test_an_io_manager_can_say_them_as_well(instance: dg.DagsterInstance) -> None:
    class Store(dg.IOManager):
        def handle_output(self, context: dg.OutputContext, obj: Mapping[str, str]) -> None:
            set_data_versions(context, context.asset_key, obj)

        def load_input(self, context: dg.InputContext) -> None: ...

    @dg.asset(partitions_def=DAYS, backfill_policy=ONE_RUN)
    def things(context: dg.AssetExecutionContext) -> dict[str, str]:
        return {key: f"stored {key}" for key in context.partition_keys}

    tags = {"dagster/asset_partition_range_start": "a", "dagster/asset_partition_range_end": "c"}
    assert dg.materialize(
        [things], instance=instance, tags=tags, resources={"io_manager": Store()}, run_config=QUIET
    ).success
    assert versions(instance) == {"a": "stored a", "b": "stored b", "c": "stored c"}


def test_a_step_that_fails_leaves_nothing_for_the_next(instance: dg.DagsterInstance) -> None:
    assert not run(instance, asset(), first="a", last="b", of={"a": "1", "b": "2"}, fails=True).success
    assert recorded(instance) == {}
    assert run(instance, asset(), first="a", last="b").success
    assert {"1", "2"} & set(versions(instance).values()) == set()


def test_a_step_that_is_tried_again_in_the_same_run_has_the_versions_of_the_last_try(
    instance: dg.DagsterInstance,
) -> None:
    @dg.asset(partitions_def=DAYS, retry_policy=dg.RetryPolicy(max_retries=1))
    def things(context: dg.AssetExecutionContext) -> None:
        again = context.op_execution_context.retry_number
        set_data_versions(context, context.asset_key, {"a": f"try {again}"} if again else {"a": "try 0", "b": "try 0"})
        if not again:
            raise RuntimeError("the first time")

    tags = {"dagster/partition": "a"}
    assert dg.materialize([things], instance=instance, tags=tags, run_config=QUIET).success
    assert versions(instance) == {"a": "try 1"}


def test_what_was_recorded_is_forgotten(instance: dg.DagsterInstance) -> None:
    before = dict(partition_versions._recorded)
    assert run(instance, asset(), first="a", last="b", of={"a": "1", "b": "2"}).success
    assert partition_versions._recorded == before


def test_the_function_of_dagster_that_is_replaced_is_still_the_one_that_makes_a_steps_asset_events() -> None:
    moved = (
        "Dagster makes a step's asset events elsewhere than in execute_step._get_output_asset_events: every partition "
        "of a range would get the same data version. See docs/upgrading.md on tilth/_dagster/step_events.py."
    )
    own = step_events._dagsters
    assert own.__module__ == "dagster._core.execution.plan.execute_step", moved
    assert execute_step._get_output_asset_events is step_events._changed, moved
    taken = "asset_key, asset_partitions, output, output_def, io_manager_metadata, step_context, execution_type"
    assert own.__code__.co_varnames[: own.__code__.co_argcount] == tuple(taken.split(", ")), moved


@pytest.mark.parametrize("imported", ["content", "inputs", "partitions"])
def test_a_partition_has_its_own_version_and_its_inputs_whatever_is_imported(imported: str) -> None:
    changes = f"import tilth.versioning.{imported}; from tilth._dagster import step_events as made; "
    names = "print(*(change.__name__ for change in made._changes))"
    found = subprocess.run([sys.executable, "-c", changes + names], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["with_own_versions", "with_inputs"]
