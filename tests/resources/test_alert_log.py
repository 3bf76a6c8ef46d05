"""Messages of alerts lie in the lake: those that matter now in one small partition, the others by their day."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path

import pytest

from resources.alert_log import AlertLog
from resources.lake import Lake
from resources.lake_errors import LakeError
from tilth.observability.alert_messages import Message

AT = datetime(2026, 3, 4, 23, 59, 59, 123456, tzinfo=UTC)
BEGAN = Message(
    id="1",
    incident="materialization raw/sales",
    kind="materialization",
    level="ERROR",
    asset="raw/sales",
    run="r1",
    partitions=("2013-01-01", "2013-01-02"),
    text="ERROR: raw/sales failed\nfor 'reasons' and ünïcode",
    raised_at=AT,
)
OVER = replace(BEGAN, id="2", recovers=True, partitions=(), raised_at=AT + timedelta(hours=1))


@pytest.fixture
def log(tmp_path: Path) -> AlertLog:
    return AlertLog(Lake(str(tmp_path)), "sales")


def periods(log: AlertLog) -> dict[str, str]:
    rows = log.lake.read("alerts/sales", columns=["id", "period"]).to_pylist()
    return {row["id"]: row["period"] for row in rows}


def test_before_the_first_alert_nothing_is_current_and_nothing_is_stored(log: AlertLog) -> None:
    assert log.current() == []
    assert not log.lake.holds(log.table)


def test_messages_come_back_as_they_were_and_in_their_order(log: AlertLog) -> None:
    messages = [replace(BEGAN, id=str(number), attempts=number, last_error="x" * number) for number in (3, 1, 2)]
    log.keep(messages)
    assert log.current() == messages


def test_a_message_is_current_until_it_is_sent_and_its_incident_is_over(log: AlertLog) -> None:
    log.keep([BEGAN])
    sent = replace(BEGAN, sent_at=AT)
    log.keep([sent])
    assert log.current() == [sent]
    over = replace(sent, ended_at=OVER.raised_at)
    log.keep([over, OVER])
    assert log.current() == [OVER]
    log.keep([replace(OVER, sent_at=OVER.raised_at)])
    assert log.current() == []
    assert periods(log) == {"1": "2026-03-04", "2": "2026-03-05"}


def test_messages_of_earlier_are_kept_for_good_when_their_day_gets_more(log: AlertLog) -> None:
    for number in range(5):
        done = replace(BEGAN, id=str(number), sent_at=AT, ended_at=AT)
        log.keep([done])
    assert periods(log) == {str(number): "2026-03-04" for number in range(5)}


def test_code_locations_do_not_see_each_others_messages(log: AlertLog) -> None:
    log.keep([BEGAN])
    assert AlertLog(log.lake, "orders").current() == []


def test_a_lake_that_cannot_be_written_says_so_and_holds_what_it_held(log: AlertLog) -> None:
    log.keep([BEGAN])
    table = Path(log.lake.path(log.table))
    newest = sorted((table / "_delta_log").glob("*.json"))[-1]
    whole = newest.read_text()
    newest.write_text("damaged")
    with pytest.raises(LakeError, match="alerts/sales cannot be"):
        log.keep([BEGAN, OVER])
    newest.write_text(whole)
    assert log.current() == [BEGAN]
