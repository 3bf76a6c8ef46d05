"""As tests/resources/test_mutated_feeds.py, a thousand times."""

import pytest
from hypothesis import given, settings

from tests.feeds import Receiver, feeds


@pytest.fixture(scope="module")
def receiver(tmp_path_factory: pytest.TempPathFactory) -> Receiver:
    return Receiver(tmp_path_factory.mktemp("receiver"))


@settings(max_examples=1000, derandomize=True)
@given(feed=feeds())
def test_none_of_a_thousand_mutated_feeds_is_stored_as_anything_but_what_was_meant(
    receiver: Receiver, feed: tuple[str, bytes]
) -> None:
    receiver.check(*feed)
