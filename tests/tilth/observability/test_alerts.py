"""What fails is told once, and its recovery; a webhook that is slow, wrong or down delays nothing and loses nothing."""

import json
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from pathlib import Path

import dagster as dg
import pytest
from pydantic import SecretStr

from resources.alert_log import AlertLog
from resources.lake import Lake
from tests.alerts import SECRET, Shop, Webhook
from tilth.observability.alerts import alert_sensor

FIRST, SECOND, THIRD = "2013-01-01", "2013-01-02", "2013-01-03"
Later = Callable[[float], None]


@pytest.fixture
def webhook() -> Iterator[Webhook]:
    webhook = Webhook()
    with webhook.up():
        yield webhook


@pytest.fixture
def outbox(tmp_path: Path) -> AlertLog:
    return AlertLog(Lake(str(tmp_path / "lake")), "shop")


@pytest.fixture
def shop(webhook: Webhook, outbox: AlertLog) -> Iterator[Shop]:
    with dg.DagsterInstance.ephemeral() as instance:
        yield Shop(instance, outbox, webhook.address)


@pytest.fixture
def later(monkeypatch: pytest.MonkeyPatch) -> Later:
    """Let so many seconds pass."""
    now, passed = time.time, [0.0]
    monkeypatch.setattr(time, "time", lambda: now() + passed[0])

    def pass_by(seconds: float) -> None:
        passed[0] += seconds

    return pass_by


def told(webhook: Webhook, shop: Shop) -> list[str]:
    """What the webhook got in a look and in one more, which must add nothing."""
    before = len(webhook.texts)
    shop.tick()
    found = webhook.texts[before:]
    shop.tick()
    assert webhook.texts[before:] == found
    return found


def headlines(texts: list[str]) -> list[str]:
    return [text.splitlines()[0] for text in texts]


# Failed assets


def test_a_failed_day_is_told_once_with_its_error_run_and_owners_and_so_is_its_recovery(
    shop: Shop, webhook: Webhook
) -> None:
    assert told(webhook, shop) == []
    shop.broken = {SECOND}
    shop.run("orders", day=FIRST)
    run = shop.run("orders", day=SECOND)
    assert told(webhook, shop) == [
        f"ERROR: orders failed for {SECOND}\nValueError: {SECOND} is broken\nRun {run}.\n"
        "Owners: ada@example.com, team:shop."
    ]
    shop.run("orders", day=SECOND)
    assert told(webhook, shop) == []
    shop.broken = set()
    shop.run("orders", day=SECOND)
    assert told(webhook, shop) == [f"RECOVERED after 0 min: orders failed for {SECOND}"]


def test_many_failed_days_of_an_asset_are_one_message_that_names_the_first(shop: Shop, webhook: Webhook) -> None:
    shop.broken = {"orders"}
    for day in range(1, 8):
        shop.run("orders", day=f"2013-01-{day:02}")
    named = ", ".join(f"2013-01-{day:02}" for day in range(1, 6))
    assert headlines(told(webhook, shop)) == [f"ERROR: orders failed for {named} and 2 more"]
    shop.broken = set()
    for day in range(1, 7):
        shop.run("orders", day=f"2013-01-{day:02}")
    assert told(webhook, shop) == []
    shop.run("orders", day="2013-01-07")
    assert len(told(webhook, shop)) == 1


def test_what_was_not_made_because_its_input_failed_in_the_same_run_is_not_told_of(
    shop: Shop, webhook: Webhook
) -> None:
    shop.broken = {"orders"}
    shop.run("orders", "revenue", day=FIRST)
    assert headlines(told(webhook, shop)) == [f"ERROR: orders failed for {FIRST}"]


def test_an_asset_without_partitions_that_fails_is_told_of(shop: Shop, webhook: Webhook) -> None:
    shop.run("prices")
    shop.broken = {"prices"}
    shop.run("prices")
    assert headlines(told(webhook, shop)) == ["ERROR: prices failed"]
    shop.broken = set()
    shop.run("prices")
    assert headlines(told(webhook, shop)) == ["RECOVERED after 0 min: prices failed"]


def test_a_cancelled_run_and_one_that_goes_on_neither_begin_nor_end_an_incident(shop: Shop, webhook: Webhook) -> None:
    for asset, day in (("orders", FIRST), ("prices", None)):
        shop.instance.report_run_canceled(shop.start(asset, day=day))
        assert told(webhook, shop) == []
        shop.broken = {asset}
        shop.run(asset, day=day)
        assert len(told(webhook, shop)) == 1
        shop.instance.report_run_canceled(shop.start(asset, day=day))
        shop.start(asset, day=day)
        assert told(webhook, shop) == []
        shop.broken = set()
        shop.run(asset, day=day)
        assert len(told(webhook, shop)) == 1
        shop.instance.report_run_canceled(shop.start(asset, day=day))
        assert told(webhook, shop) == []


def test_what_is_reported_as_made_is_over_though_a_run_was_cancelled_after_it(shop: Shop, webhook: Webhook) -> None:
    shop.broken = {"orders"}
    shop.run("orders", day=FIRST)
    assert len(told(webhook, shop)) == 1
    shop.instance.report_runless_asset_event(dg.AssetMaterialization("orders", partition=FIRST))
    shop.instance.report_run_canceled(shop.start("orders", day=FIRST))
    assert len(told(webhook, shop)) == 1


def test_a_day_that_fails_an_hour_after_another_that_stays_broken_is_told_of(
    shop: Shop, webhook: Webhook, later: Later
) -> None:
    shop.broken = {FIRST, SECOND}
    shop.run("orders", day=FIRST)
    assert len(told(webhook, shop)) == 1
    later(600)
    shop.run("orders", day=FIRST)
    shop.run("orders", day=SECOND)
    assert told(webhook, shop) == []
    later(3600)
    assert headlines(told(webhook, shop)) == [f"ERROR: orders failed for {FIRST}, {SECOND}"]
    later(3600)
    shop.run("orders", day=SECOND)
    assert told(webhook, shop) == []
    shop.broken = {FIRST}
    shop.run("orders", day=SECOND)
    assert told(webhook, shop) == []
    shop.broken = {FIRST, SECOND}
    shop.run("orders", day=SECOND)
    assert headlines(told(webhook, shop)) == [f"ERROR: orders failed for {FIRST}, {SECOND}"]


def test_what_recovers_and_fails_again_is_told_of_again(shop: Shop, webhook: Webhook) -> None:
    for _ in range(3):
        shop.broken = {"prices"}
        shop.run("prices")
        assert headlines(told(webhook, shop)) == ["ERROR: prices failed"]
        shop.broken = set()
        shop.run("prices")
        assert len(told(webhook, shop)) == 1


def test_the_same_holds_on_the_event_log_that_keeps_each_run_in_a_file_of_its_own(
    webhook: Webhook, outbox: AlertLog, tmp_path: Path
) -> None:
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        shop = Shop(instance, outbox, webhook.address)
        assert told(webhook, shop) == []
        shop.broken = {"orders"}
        shop.run("orders", day=FIRST)
        assert headlines(told(webhook, shop)) == [f"ERROR: orders failed for {FIRST}"]
        shop.broken = set()
        shop.run("orders", day=FIRST)
        assert len(told(webhook, shop)) == 1


def test_an_incident_is_told_once_however_often_is_looked_and_whatever_else_happens(
    shop: Shop, webhook: Webhook
) -> None:
    shop.broken = {"orders", "positive", "tidy"}
    shop.run("orders", day=FIRST)
    shop.run(job="tidy")
    for _ in range(5):
        shop.run("prices")
        shop.freshness("PASS")
        for _ in range(3):
            shop.tick()
    assert len(webhook.texts) == 3


def test_what_is_not_defined_any_more_is_over(shop: Shop, webhook: Webhook) -> None:
    shop.broken = {"orders"}
    shop.run("orders", day=FIRST)
    assert len(told(webhook, shop)) == 1
    shop.without("orders")
    shop.run("prices")
    assert headlines(told(webhook, shop)) == [f"RECOVERED after 0 min: orders failed for {FIRST}"]


# Failed runs


def test_a_failed_job_without_assets_is_told_once_until_it_succeeds(shop: Shop, webhook: Webhook) -> None:
    shop.run(job="tidy")
    assert told(webhook, shop) == []
    shop.broken = {"tidy"}
    run = shop.run(job="tidy")
    assert told(webhook, shop) == [f"ERROR: The job tidy failed\nValueError: tidy is broken\nRun {run} of tidy."]
    shop.run(job="tidy")
    assert told(webhook, shop) == []
    shop.broken = set()
    shop.run(job="tidy")
    assert told(webhook, shop) == ["RECOVERED after 0 min: The job tidy failed"]


def test_a_run_whose_process_died_is_one_message_and_over_when_its_assets_are_made(
    shop: Shop, webhook: Webhook
) -> None:
    run = shop.start("orders", "revenue", day=FIRST)
    shop.dies(run)
    assert told(webhook, shop) == [
        "ERROR: A run failed before it had made orders, revenue\nThe run's process was killed: out of memory.\n"
        f"Run {run.run_id}.\nOwners: ada@example.com, team:finance, team:shop."
    ]
    shop.run("orders", day=FIRST)
    assert told(webhook, shop) == []
    shop.run("revenue", day=FIRST)
    assert len(told(webhook, shop)) == 1


@pytest.mark.parametrize("looks", [0, 1, 3])
def test_a_run_is_told_of_though_a_look_came_between_its_last_event_and_its_status(
    shop: Shop, webhook: Webhook, looks: int
) -> None:
    for _ in range(looks):
        shop.tick()
    run = shop.start("prices")
    finish = shop.writes_its_failure(run)
    shop.tick()
    assert webhook.texts == []
    finish()
    assert headlines(told(webhook, shop)) == ["ERROR: A run failed before it had made prices"]


def test_a_failed_run_that_is_tried_again_is_told_of_only_if_that_fails_too_or_does_not_come(
    webhook: Webhook, outbox: AlertLog, later: Later
) -> None:
    with dg.DagsterInstance.ephemeral(settings={"run_retries": {"enabled": True, "max_retries": 1}}) as instance:
        shop = Shop(instance, outbox, webhook.address)
        first = shop.start("prices")
        shop.dies(first)
        assert told(webhook, shop) == []
        second = shop.start("prices")
        instance.add_run_tags(first.run_id, {"dagster/auto_retry_run_id": second.run_id})
        later(601)
        assert told(webhook, shop) == []
        instance.add_run_tags(second.run_id, {"dagster/max_retries": "0"})
        shop.dies(second)
        assert headlines(told(webhook, shop)) == ["ERROR: A run failed before it had made prices"]
        shop.run("prices")
        assert len(told(webhook, shop)) == 1
        shop.dies(shop.start("orders", day=FIRST))
        assert told(webhook, shop) == []
        later(601)
        assert headlines(told(webhook, shop)) == ["ERROR: A run failed before it had made orders"]


# Checks


def test_a_failed_check_is_told_once_with_what_it_says_until_it_passes(shop: Shop, webhook: Webhook) -> None:
    shop.broken = {"positive"}
    run = shop.run("prices")
    assert told(webhook, shop) == [
        f"ERROR: prices: the check positive failed\n3 prices are &lt; 0 &amp; wrong\nRun {run}.\nOwners: team:shop."
    ]
    shop.run("prices")
    assert told(webhook, shop) == []
    shop.broken = set()
    shop.run("prices")
    assert told(webhook, shop) == ["RECOVERED after 0 min: prices: the check positive failed"]


def test_a_warning_is_told_as_one_and_again_when_it_becomes_an_error(shop: Shop, webhook: Webhook) -> None:
    shop.check("positive", passed=False, severity=dg.AssetCheckSeverity.WARN, description="late by 40 min")
    assert told(webhook, shop) == ["WARNING: prices: the check positive failed\nlate by 40 min\nOwners: team:shop."]
    shop.check("positive", passed=False, description="late by 3 h")
    assert headlines(told(webhook, shop)) == ["ERROR: prices: the check positive failed"]
    shop.check("positive", passed=False, severity=dg.AssetCheckSeverity.WARN)
    assert told(webhook, shop) == []
    shop.check("positive", passed=True)
    assert headlines(told(webhook, shop)) == ["RECOVERED after 0 min: prices: the check positive failed"]


def test_a_check_that_raises_is_told_of_and_a_check_under_way_ends_nothing(shop: Shop, webhook: Webhook) -> None:
    shop.broken = {"positive itself"}
    shop.run("prices")
    assert headlines(told(webhook, shop)) == ["ERROR: prices: the check positive could not be evaluated"]
    shop.start("prices")
    assert told(webhook, shop) == []
    shop.broken = set()
    shop.run("prices")
    assert len(told(webhook, shop)) == 1


def test_a_check_of_an_asset_that_failed_in_the_same_step_is_not_told_of_beside_it(
    shop: Shop, webhook: Webhook
) -> None:
    shop.broken = {"stock"}
    shop.run("stock")
    assert headlines(told(webhook, shop)) == ["ERROR: stock failed"]


def test_a_check_that_fails_on_one_day_is_not_over_when_it_passes_on_another(shop: Shop, webhook: Webhook) -> None:
    shop.broken = {f"complete {FIRST}"}
    shop.run("orders", day=FIRST)
    shop.run("orders", day=SECOND)
    assert headlines(told(webhook, shop)) == [f"ERROR: orders: the check complete failed for {FIRST}"]
    shop.broken = set()
    shop.run("orders", day=FIRST)
    assert len(told(webhook, shop)) == 1


# Freshness


def test_an_asset_that_is_late_is_told_as_a_warning_then_as_an_error_until_it_is_made(
    shop: Shop, webhook: Webhook
) -> None:
    shop.run("prices")
    shop.freshness("PASS")
    assert told(webhook, shop) == []
    shop.freshness("WARN", "PASS")
    (warned,) = told(webhook, shop)
    assert warned.startswith("WARNING: prices is late\nIts freshness policy: made again within 26 hours. It was last ")
    assert warned.endswith("UTC.\nOwners: team:shop.")
    shop.freshness("FAIL", "WARN")
    assert "ERROR: prices is late\nIts freshness policy: made again within 48 hours." in told(webhook, shop)[0]
    shop.freshness("UNKNOWN", "FAIL")
    assert told(webhook, shop) == []
    shop.freshness("PASS", "UNKNOWN")
    assert told(webhook, shop) == ["RECOVERED after 0 min: prices is late"]


# First look, cursor, quiet looks


def test_the_first_look_tells_what_is_wrong_now_and_nothing_that_is_over(shop: Shop, webhook: Webhook) -> None:
    shop.broken = {"orders", "positive", "tidy"}
    shop.run("orders", day=FIRST)
    shop.run("prices")
    shop.run(job="tidy")
    shop.broken = {SECOND}
    shop.run("orders", day=FIRST)
    shop.run("orders", day=SECOND)
    shop.run("prices")
    shop.run(job="tidy")
    assert headlines(told(webhook, shop)) == [f"ERROR: orders failed for {SECOND}"]


@pytest.mark.parametrize("cursor", [None, "7", '{"seen": "x"}', '{"seen": 1, "open": {}}'])
def test_with_a_cursor_of_another_release_nothing_is_told_twice_and_nothing_is_missed(
    shop: Shop, webhook: Webhook, cursor: str | None
) -> None:
    shop.broken = {"orders", "positive"}
    shop.run("orders", day=FIRST)
    assert len(told(webhook, shop)) == 1
    shop.cursor = cursor
    shop.run("prices")
    assert headlines(told(webhook, shop)) == ["ERROR: prices: the check positive failed"]


def test_when_nothing_happens_a_look_asks_for_one_number(
    shop: Shop, outbox: AlertLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.broken = {"orders"}
    shop.run("orders", day=FIRST)
    for _ in range(3):
        shop.tick()
    monkeypatch.setattr(AlertLog, "current", lambda _: pytest.fail("the lake was read"))
    assert shop.tick() == "Nothing happened since the last tick."
    assert len(shop.cursor or "") < 200


# The webhook


def test_the_webhook_gets_json_with_a_text_and_nothing_else(shop: Shop, webhook: Webhook) -> None:
    shop.check("positive", passed=False, description="<!channel> ü")
    shop.tick()
    assert json.loads(webhook.bodies[0]) == {
        "text": "ERROR: prices: the check positive failed\n&lt;!channel&gt; ü\nOwners: team:shop."
    }


def test_a_webhook_that_is_down_loses_nothing_and_gets_all_in_order_when_it_is_back(
    outbox: AlertLog, later: Later
) -> None:
    webhook = Webhook()
    with webhook.up():
        pass
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(instance, outbox, webhook.address)
        shop.broken = {"prices", FIRST}
        for _ in range(2):
            shop.run("prices")
            shop.tick()
            shop.broken ^= {"prices"}
        shop.run("orders", day=FIRST)
        shop.tick()
        assert [message.attempts for message in outbox.current()] == [1, 0, 0]
        assert "Connection refused" in outbox.current()[0].last_error
        with webhook.up():
            assert told(webhook, shop) == []  # it waits
            later(31)
            assert headlines(told(webhook, shop)) == [
                "ERROR: prices failed",
                "RECOVERED after 0 min: prices failed",
                f"ERROR: orders failed for {FIRST}",
            ]
        assert [message.text.splitlines()[0] for message in outbox.current()] == [f"ERROR: orders failed for {FIRST}"]


def test_tries_come_at_growing_pauses_that_end_at_fifteen_minutes(shop: Shop, webhook: Webhook, later: Later) -> None:
    webhook.status = 503
    shop.check("positive", passed=False)
    waited = []
    for tries in range(8):
        for seconds in range(0, 1000, 30):
            shop.tick()
            if webhook.requests > tries:
                waited.append(seconds)
                break
            later(30)
    assert waited == [0, 30, 60, 120, 240, 480, 900, 900]


def test_a_message_that_is_not_taken_holds_back_those_after_it_and_those_before_are_not_sent_again(
    shop: Shop, webhook: Webhook, later: Later
) -> None:
    webhook.refuses = lambda text: "prices failed" in text
    shop.broken = {"orders", "prices", "tidy"}
    shop.run("orders", day=FIRST)
    shop.run("prices")
    shop.run(job="tidy")
    assert headlines(told(webhook, shop)) == [f"ERROR: orders failed for {FIRST}"]
    webhook.refuses = lambda _: False
    later(31)
    assert headlines(told(webhook, shop)) == ["ERROR: prices failed", "ERROR: The job tidy failed"]


def test_a_webhook_that_hangs_is_given_up_after_its_time(
    shop: Shop, webhook: Webhook, outbox: AlertLog, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth.observability.webhook.TIMEOUT_SECONDS", 0.3)
    webhook.pause = 30
    shop.broken = {"prices", "tidy"}
    shop.run("prices")
    shop.run(job="tidy")
    began = time.monotonic()
    shop.tick()
    assert time.monotonic() - began < 3
    assert [message.last_error for message in outbox.current()] == [
        "The webhook cannot be reached: no answer within 0.3 s",
        "",
    ]


def test_a_slow_webhook_gets_in_one_look_what_fits_into_its_time_and_the_rest_in_the_next(
    shop: Shop, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("tilth.observability.alerts._DELIVERY_SECONDS", 0.3)
    webhook.pause = 0.2
    shop.broken = {"orders", "prices", "tidy"}
    shop.run("orders", day=FIRST)
    shop.run("prices")
    shop.run(job="tidy")
    shop.tick()
    assert len(webhook.texts) == 2
    shop.tick()
    assert headlines(webhook.texts)[2:] == ["ERROR: The job tidy failed"]


@pytest.mark.parametrize("status", [301, 404, 410])
def test_a_wrong_address_is_named_by_its_setting_and_the_message_is_kept(
    shop: Shop, webhook: Webhook, outbox: AlertLog, status: int, capfd: pytest.CaptureFixture[str]
) -> None:
    webhook.status, webhook.headers = status, {"Location": f"http://127.0.0.1:{webhook.port}/elsewhere"}
    shop.check("positive", passed=False)
    shop.tick()
    (kept,) = outbox.current()
    assert kept.last_error.startswith(f"The webhook answered {status} ")
    assert kept.last_error.endswith("its address is wrong or no longer valid; correct TILTH_ALERTS_URI")
    assert f"{kept.last_error}. 1 alerts wait and are kept; the next try is in 30 s." in capfd.readouterr().err
    assert webhook.requests == 1


@pytest.mark.parametrize("status", [400, 413, 422])
def test_a_message_that_is_refused_itself_is_sent_shortened_and_holds_back_no_other(
    shop: Shop, webhook: Webhook, outbox: AlertLog, status: int
) -> None:
    webhook.refuses, webhook.refusal = (lambda text: "is broken" in text and "prices" in text), status
    shop.broken = {"prices", "tidy"}
    shop.run("prices")
    shop.run(job="tidy")
    assert told(webhook, shop) == [
        "ERROR: prices failed\n(Shortened: the whole was refused. The lake holds it.)",
        next(message.text for message in outbox.current() if message.kind == "run").replace("&", "&amp;"),
    ]
    assert all(message.sent_at for message in outbox.current())


def test_a_message_that_is_refused_also_shortened_is_given_up_after_three_tries_and_kept(
    shop: Shop, webhook: Webhook, outbox: AlertLog, later: Later, capfd: pytest.CaptureFixture[str]
) -> None:
    webhook.refuses, webhook.refusal = (lambda text: "prices failed" in text), 400
    shop.broken = {"prices"}
    shop.run("prices")
    for _ in range(5):
        shop.tick()
        later(301)
    assert webhook.requests == 3 * 2
    assert "The webhook answered 400 Bad Request to this message, which is kept: ERROR: prices failed" in (
        capfd.readouterr().err
    )
    (kept,) = outbox.current()
    assert (kept.sent_at, kept.last_error) == (None, "Refused: The webhook answered 400 Bad Request to this message")
    webhook.refuses = lambda _: False
    shop.broken = set()
    shop.run("prices")
    assert len(told(webhook, shop)) == 1  # that it is over
    assert outbox.current() == []


@pytest.mark.parametrize("as_date", [False, True])
def test_a_webhook_that_asks_for_a_pause_gets_it(shop: Shop, webhook: Webhook, later: Later, as_date: bool) -> None:
    after = formatdate(time.time() + 120, usegmt=True) if as_date else "120"
    webhook.status, webhook.headers = 429, {"Retry-After": after}
    shop.check("positive", passed=False)
    shop.tick()
    webhook.status = 200
    later(100)
    assert told(webhook, shop) == []
    later(25)
    assert len(told(webhook, shop)) == 1


def test_more_than_twenty_that_begin_in_one_look_are_one_message_and_each_is_kept(
    webhook: Webhook, outbox: AlertLog
) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(instance, outbox, webhook.address, more=25)
        shop.broken = {"extras"}
        names = [f"extra_{number:02}" for number in range(25)]
        shop.run(*names)
        (summary,) = told(webhook, shop)
        assert summary.splitlines()[:2] == ["25 incidents began at once:", "• ERROR: extra_00 failed"]
        assert summary.splitlines()[-1] == "and 5 more; the lake holds all of their messages"
        assert len(summary.splitlines()) == 22
        assert [message.asset for message in outbox.current()] == names
        assert all(message.sent_at for message in outbox.current())
        shop.broken = set()
        shop.run(*names)
        assert headlines(told(webhook, shop)) == ["25 incidents are over:"]
        assert outbox.current() == []


# Crashes and secrets


def test_a_look_that_is_repeated_after_a_crash_stores_and_sends_nothing_twice(
    shop: Shop, webhook: Webhook, outbox: AlertLog
) -> None:
    told(webhook, shop)
    shop.broken = {"orders", "positive"}
    shop.run("orders", day=FIRST)
    shop.run("prices")
    shop.tick(keep_cursor=False)
    assert len(webhook.texts) == len(outbox.current()) == 2
    shop.run("orders", day=FIRST)
    shop.tick(keep_cursor=False)
    assert told(webhook, shop) == []
    assert len(outbox.current()) == 2


def test_a_crash_between_outbox_and_delivery_loses_nothing_though_it_is_over_by_the_next_look(
    shop: Shop, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.broken = {"prices"}
    shop.run("prices")
    with monkeypatch.context() as crash:
        crash.setattr("tilth.observability.alerts.post", lambda *_: (_ for _ in ()).throw(KeyboardInterrupt))
        with pytest.raises(KeyboardInterrupt):
            shop.tick()
    shop.broken = set()
    shop.run("prices")
    assert headlines(told(webhook, shop)) == ["ERROR: prices failed", "RECOVERED after 0 min: prices failed"]


def test_when_the_lake_takes_nothing_the_look_fails_and_the_next_one_tells_it(
    shop: Shop, webhook: Webhook, monkeypatch: pytest.MonkeyPatch
) -> None:
    shop.check("positive", passed=False)
    with monkeypatch.context() as full:
        full.setattr(AlertLog, "keep", lambda *_: (_ for _ in ()).throw(OSError("full")))
        with pytest.raises(OSError, match="full"):
            shop.tick()
    assert webhook.texts == []
    assert len(told(webhook, shop)) == 1


@pytest.mark.parametrize("status", [200, 404, 500, None])
def test_the_address_is_in_no_log_cursor_or_file_of_the_lake(
    shop: Shop, webhook: Webhook, tmp_path: Path, status: int | None, capfd: pytest.CaptureFixture[str]
) -> None:
    webhook.status = status or 200
    if status is None:
        shop.webhook = SecretStr(f"http://127.0.0.1:1/{SECRET} it")  # what urllib refuses with the address in its error
        shop.__post_init__()
    shop.check("positive", passed=False)
    said = shop.tick()
    assert (tmp_path / "lake").exists()
    stored = b"".join(path.read_bytes() for path in (tmp_path / "lake").rglob("*") if path.is_file())
    shown = f"{said} {shop.cursor} {capfd.readouterr()} {shop.definitions} {stored!r}"
    assert "check positive failed" in str(shop.outbox.current())
    for part in SECRET.split("/"):
        assert part not in shown


@pytest.mark.parametrize("address", ["ftp://host/SECRET", "hooks.example.com/SECRET", "file:///etc/SECRET", "SECRET"])
def test_an_address_that_is_not_http_is_refused_when_the_definitions_load(address: str, outbox: AlertLog) -> None:
    with pytest.raises(ValueError, match="TILTH_ALERTS_URI is no address") as refused:
        alert_sensor(outbox, SecretStr(address))
    assert "SECRET" not in str(refused.value)


def test_without_a_webhook_the_log_says_it(outbox: AlertLog, capfd: pytest.CaptureFixture[str]) -> None:
    with dg.DagsterInstance.ephemeral() as instance:
        shop = Shop(instance, outbox, SecretStr(" \n"))
        shop.broken = {"prices"}
        shop.run("prices")
        shop.tick()
        shop.broken = set()
        shop.run("prices")
        shop.tick()
        shop.tick()
    lines = [line for line in capfd.readouterr().err.splitlines() if "prices failed" in line]
    assert [("ERROR" in line, "INFO" in line) for line in lines] == [(True, False), (False, True)]
    assert outbox.current() == []
