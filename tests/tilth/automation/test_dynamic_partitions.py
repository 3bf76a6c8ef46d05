"""Partitions whose keys are kept in the instance work wherever those of a definition do."""

from collections.abc import Iterator

import dagster as dg
import pytest

from tests.conftest import QUIET
from tilth.automation.conditions import on_complete_window, on_new_data
from tilth.automation.followers import with_followers
from tilth.automation.page import page
from tilth.automation.ranges import range_tags
from tilth.automation.reconciler import reconciler
from tilth.automation.sensor import automation_sensor
from tilth.execution.partitions import for_each_partition
from tilth.observability.freshness import partition_lag_checks
from tilth.observability.incidents import find_incidents
from tilth.observability.plan import plan
from tilth.versioning.inputs import INPUTS

SHOPS = dg.DynamicPartitionsDefinition(name="shops")
DAYS = dg.StaticPartitionsDefinition(["monday", "tuesday"])
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "shop": SHOPS})
ALL_AT_ONCE = dg.BackfillPolicy.single_run()
EVERYTHING = dg.AssetSelection.all()


@dg.asset(partitions_def=SHOPS, backfill_policy=ALL_AT_ONCE)
def sales() -> None: ...


@dg.asset(partitions_def=SHOPS, backfill_policy=ALL_AT_ONCE, deps=[sales], automation_condition=on_new_data())
def cleaned() -> None: ...


@dg.asset(deps=[cleaned], automation_condition=on_complete_window())
def total() -> None: ...


@dg.asset(partitions_def=BOTH, backfill_policy=ALL_AT_ONCE)
def visits() -> None: ...


@dg.asset(partitions_def=BOTH, backfill_policy=ALL_AT_ONCE, deps=[visits], automation_condition=on_new_data())
def shoppers() -> None: ...


@dg.asset(partitions_def=DAYS, deps=[shoppers], automation_condition=on_new_data())
def crowds() -> None: ...


def made(key: str) -> dg.MaterializeResult[None]:
    return dg.MaterializeResult(data_version=dg.DataVersion(f"{key} made"))


@dg.asset(partitions_def=SHOPS, backfill_policy=ALL_AT_ONCE, output_required=False)
def batch(context: dg.AssetExecutionContext) -> dg.MaterializeResult[None]:
    return for_each_partition(context, made, workers=1)


ASSETS = [sales, cleaned, total, visits, shoppers, crowds, batch]
KEYS = [asset.key for asset in ASSETS]
CHECKS, LAGS = partition_lag_checks(KEYS)
SENSOR = automation_sensor("sensor", EVERYTHING, "All of them.")
RECONCILER = reconciler("reconciler", EVERYTHING, patience_seconds=0)
defs = dg.Definitions(ASSETS, asset_checks=CHECKS, sensors=[SENSOR, RECONCILER, LAGS])
REPOSITORY = defs.get_repository_def()
FIRST, LAST = "Łódź", "a b"


@pytest.fixture
def instance() -> Iterator[dg.DagsterInstance]:
    with dg.DagsterInstance.ephemeral() as instance:
        instance.add_dynamic_partitions("shops", [FIRST, "3", LAST])
        yield instance


def came(instance: dg.DagsterInstance, key: str, *partitions: str) -> None:
    for partition in partitions:
        instance.report_runless_asset_event(dg.AssetMaterialization(key, partition=partition))


def looked(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> list[tuple[list[str], str, str]]:
    """The assets that the sensor asks for, and the first and last partition of each request."""
    context = dg.build_sensor_context(instance, repository_def=REPOSITORY)
    asked = sensor.evaluate_tick(context).run_requests or []
    ends = ["dagster/asset_partition_range_start", "dagster/asset_partition_range_end"]
    return sorted(
        (
            [key.to_user_string() for key in request.asset_selection or []],
            *(request.partition_key or request.tags.get(end, "") for end in ends),
        )
        for request in asked
    )


def ran(instance: dg.DagsterInstance, asset: dg.AssetsDefinition, first: str = "", last: str = "") -> None:
    result = dg.materialize(
        ASSETS,
        selection=[asset],
        instance=instance,
        partition_key=first if first == last and first else None,
        tags=range_tags(first, last) if first != last else {},
        run_config=QUIET,
    )
    assert result.success


@pytest.mark.parametrize("sensor", [SENSOR, RECONCILER], ids=["automation", "reconciler"])
def test_a_range_of_keys_is_asked_for_in_one_run(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> None:
    assert looked(instance, sensor) == []
    came(instance, "sales", FIRST, "3", LAST)
    assert looked(instance, sensor) == [(["cleaned"], FIRST, LAST)]


@pytest.mark.parametrize("sensor", [SENSOR, RECONCILER], ids=["automation", "reconciler"])
def test_a_dimension_may_be_dynamic(instance: dg.DagsterInstance, sensor: dg.SensorDefinition) -> None:
    came(instance, "visits", f"monday|{FIRST}", "monday|3", f"tuesday|{FIRST}", "tuesday|3")
    assert looked(instance, sensor) == [(["shoppers"], f"monday|{FIRST}", "tuesday|3")]


@pytest.mark.parametrize("sensor", [SENSOR, RECONCILER], ids=["automation", "reconciler"])
def test_what_reads_all_keys_is_asked_for_when_all_are_there(
    instance: dg.DagsterInstance, sensor: dg.SensorDefinition
) -> None:
    came(instance, "cleaned", FIRST, "3")
    assert (["total"], "", "") not in looked(instance, sensor)
    came(instance, "cleaned", LAST)
    assert (["total"], "", "") in looked(instance, sensor)


def test_a_key_that_is_added_is_asked_for_and_one_that_is_deleted_is_not(instance: dg.DagsterInstance) -> None:
    came(instance, "sales", FIRST, "3", LAST)
    came(instance, "cleaned", FIRST, "3", LAST)
    assert looked(instance, RECONCILER) == [(["total"], "", "")]
    # Two, as a built context, unlike the daemon's, lets Dagster find no single one.
    instance.add_dynamic_partitions("shops", ["new", "newer"])
    came(instance, "sales", "new", "newer", "3")
    instance.delete_dynamic_partition("shops", "3")
    assert looked(instance, RECONCILER) == [(["cleaned"], "new", "newer")]


def test_a_run_is_recorded_with_what_it_read(instance: dg.DagsterInstance) -> None:
    ran(instance, sales, FIRST, LAST)
    ran(instance, cleaned, FIRST, LAST)
    ran(instance, total)
    ran(instance, crowds, "monday", "monday")
    event = instance.get_latest_materialization_event(total.key)
    assert event is not None
    assert event.asset_materialization is not None
    assert event.asset_materialization.metadata[INPUTS].value["cleaned"].keys() == {FIRST, "3", LAST}
    assert looked(instance, RECONCILER) == []


def test_each_key_of_a_batch_is_recorded_by_itself(instance: dg.DagsterInstance) -> None:
    ran(instance, batch, FIRST, "3")
    assert instance.get_materialized_partitions(batch.key) == {FIRST, "3"}


def test_lag_is_of_each_key(instance: dg.DagsterInstance) -> None:
    came(instance, "sales", FIRST)
    context = dg.build_sensor_context(instance, repository_def=REPOSITORY)
    evaluated = {e.asset_key: e for e in LAGS.evaluate_tick(context).asset_events}
    assert evaluated[cleaned.key].metadata["oldest"].value == FIRST
    assert evaluated[batch.key].passed


def test_followers_of_a_range_are_taken_along(instance: dg.DagsterInstance) -> None:
    request = dg.RunRequest(asset_selection=[sales.key], tags=range_tags(FIRST, "3"))
    (found,) = with_followers([request], instance, REPOSITORY, EVERYTHING)
    assert found.asset_selection == [sales.key, cleaned.key]


def test_a_plan_is_of_the_keys_that_there_are(instance: dg.DagsterInstance) -> None:
    planned = plan(defs, instance, 'key:"sales"+', (FIRST, LAST))
    assert [(op.assets, op.partitions) for op in planned] == [(("sales",), 3), (("cleaned",), 3), (("total",), 1)]
    both = plan(defs, instance, 'key:"visits" or key:"shoppers"', (f"monday|{FIRST}", "tuesday|3"))
    assert [op.partitions for op in both] == [4, 4]


def test_what_is_wrong_is_found_beside_dynamic_partitions(instance: dg.DagsterInstance) -> None:
    assert find_incidents(instance, REPOSITORY, None, {}, None, 0.0).incidents == {}


def test_the_page_needs_no_instance() -> None:
    text = page(defs, "shops")
    assert "| `cleaned` | name | `on new data` | `sales` |" in text
    assert "| `total` |  | `on complete window` | `cleaned` (each of shops) |" in text
    assert "| `shoppers` | day x shop | `on new data` | `visits` |" in text
