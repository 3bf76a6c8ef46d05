"""A sensor or schedule that fails is told of once, and once when it succeeds again."""

import time
from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest
from dagster._core.remote_origin import (
    InProcessCodeLocationOrigin,
    RemoteInstigatorOrigin,
    RemoteRepositoryOrigin,
)
from dagster._core.scheduler.instigation import (
    InstigatorState,
    InstigatorStatus,
    InstigatorType,
    ScheduleInstigatorData,
    TickData,
    TickStatus,
)
from dagster._core.types.loadable_target_origin import LoadableTargetOrigin
from dagster._utils.error import SerializableErrorInfo

from resources.alert_log import AlertLog
from resources.lake import Lake
from tests.alerts import Shop, Webhook

USER_ERROR = SerializableErrorInfo(
    "SensorExecutionError: Error occurred during the execution of arrivals\n",
    [],
    "SensorExecutionError",
    cause=SerializableErrorInfo("ConnectionError: the door is shut\nand locked\n", [], "ConnectionError"),
)


def unreachable(why: str) -> SerializableErrorInfo:
    name = "DagsterUserCodeUnreachableError"
    grpc = SerializableErrorInfo("grpc._channel._InactiveRpcError: <_Inactive\n", [], "_InactiveRpcError")
    cause = SerializableErrorInfo(f"{name}: {why}\n", [], name, cause=grpc)
    return SerializableErrorInfo(f"{name}: Unable to reach the user code server.\n", [], name, cause=cause)


class Clock:
    """Ticks as the daemon records them, of a sensor or a schedule that `shop` has beside its others."""

    def __init__(self, instance: dg.DagsterInstance, name: str, kind: str, location: str = "") -> None:
        target = LoadableTargetOrigin(module_name=location or "shop")
        origin = RemoteRepositoryOrigin(InProcessCodeLocationOrigin(target, location_name=location), "__repository__")
        self.instance, self.kind = instance, InstigatorType(kind)
        self.state = InstigatorState(
            RemoteInstigatorOrigin(origin, name),
            self.kind,
            InstigatorStatus.DECLARED_IN_CODE,
            ScheduleInstigatorData("0 3 * * *") if kind == "SCHEDULE" else None,
        )
        instance.add_instigator_state(self.state)

    def ticked(self, status: TickStatus, error: SerializableErrorInfo | None = None) -> None:
        data = TickData(
            self.state.instigator_origin_id, self.state.name, self.kind, status, time.time(), error=error,
            selector_id=self.state.selector_id,
        )  # fmt: skip
        self.instance.create_tick(data)

    def stopped(self) -> None:
        self.instance.update_instigator_state(self.state.with_status(InstigatorStatus.STOPPED))


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    with webhook.up():
        yield webhook


@pytest.fixture
def shop(webhook: Webhook, tmp_path: Path) -> Iterator[Shop]:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        shop = Shop(instance, AlertLog(Lake(str(tmp_path / "lake")), "shop"), webhook.address)

        @dg.sensor(job_name="tidy")
        def arrivals() -> None: ...

        @dg.schedule(cron_schedule="0 3 * * *", job_name="tidy")
        def nightly() -> None: ...

        shop.definitions = dg.Definitions.merge(
            shop.definitions, dg.Definitions(sensors=[arrivals], schedules=[nightly])
        )
        yield shop


def told(webhook: Webhook, shop: Shop) -> list[str]:
    before = len(webhook.texts)
    for _ in range(3):
        shop.tick()
    return webhook.texts[before:]


@pytest.mark.parametrize(("name", "kind"), [("arrivals", "SENSOR"), ("nightly", "SCHEDULE")])
def test_it_is_told_of_at_its_first_failed_tick_not_at_the_next_and_when_one_succeeds(
    shop: Shop, webhook: Webhook, name: str, kind: str
) -> None:
    clock = Clock(shop.instance, name, kind)
    clock.ticked(TickStatus.SKIPPED)
    assert told(webhook, shop) == []
    clock.ticked(TickStatus.FAILURE, USER_ERROR)
    (text,) = told(webhook, shop)
    assert text.splitlines()[:2] == [f"ERROR: The {kind.lower()} {name} fails", "ConnectionError: the door is shut"]
    for _ in range(3):
        clock.ticked(TickStatus.FAILURE, USER_ERROR)
        clock.ticked(TickStatus.STARTED)
        assert told(webhook, shop) == []
    clock.ticked(TickStatus.SKIPPED)
    (text,) = told(webhook, shop)
    assert text == f"RECOVERED after 0 min: The {kind.lower()} {name} fails"


def test_one_that_takes_too_long_is_told_of_with_the_time_that_it_has(shop: Shop, webhook: Webhook) -> None:
    clock = Clock(shop.instance, "arrivals", "SENSOR")
    clock.ticked(TickStatus.FAILURE, unreachable("The sensor tick timed out due to taking longer than 60 seconds"))
    (text,) = told(webhook, shop)
    assert "The sensor tick timed out due to taking longer than 60 seconds" in text


def test_a_code_server_that_is_away_for_one_tick_is_not_told_of(shop: Shop, webhook: Webhook) -> None:
    clock = Clock(shop.instance, "arrivals", "SENSOR")
    clock.ticked(TickStatus.SKIPPED)
    clock.ticked(TickStatus.FAILURE, unreachable("Could not reach user code server"))
    assert told(webhook, shop) == []
    clock.ticked(TickStatus.FAILURE, unreachable("Could not reach user code server"))
    assert len(told(webhook, shop)) == 1


def test_one_that_is_stopped_while_it_fails_has_not_recovered(shop: Shop, webhook: Webhook) -> None:
    clock = Clock(shop.instance, "arrivals", "SENSOR")
    clock.ticked(TickStatus.FAILURE, USER_ERROR)
    assert len(told(webhook, shop)) == 1
    clock.stopped()
    shop.run("stock")
    assert told(webhook, shop) == []


def test_what_is_not_defined_here_is_not_told_of(shop: Shop, webhook: Webhook) -> None:
    Clock(shop.instance, "elsewhere", "SENSOR").ticked(TickStatus.FAILURE, USER_ERROR)
    Clock(shop.instance, "alerts", "SENSOR").ticked(TickStatus.FAILURE, USER_ERROR)
    assert told(webhook, shop) == []
