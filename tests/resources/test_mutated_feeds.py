"""A feed in another form is stored as what it means, or refused in a sentence while the table keeps what it had."""

from pathlib import Path

import pytest
from hypothesis import given, settings

from tests.feeds import IN_TEXT, Receiver, feeds, text_of


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    return Receiver(tmp_path_factory.mktemp("receiver"))


@settings(max_examples=40, derandomize=True)
@given(feed=feeds())
def test_a_mutated_feed_is_stored_as_it_was_meant_or_not_at_all(receiver: Receiver, feed: tuple[str, bytes]) -> None:
    receiver.check(*feed)


@pytest.mark.parametrize("form", ["line end '\\r\\n'", "decimal point", "exponent", "plus", "header quoted"])
def test_forms_that_mean_the_same_are_stored_whole(tmp_path: Path, form: str) -> None:
    receiver = Receiver(tmp_path)
    assert receiver.check("meters", IN_TEXT[form](text_of("meters")).encode())
    assert receiver.held["meters"] == receiver.sent["meters"]
