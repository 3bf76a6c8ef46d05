"""Retry policies: a step that fails by a passing error succeeds a little later, in the same run."""

import dagster as dg
import pytest

from tests.conftest import QUIET
from tilth.execution import retries


def test_a_step_that_fails_twice_by_an_os_error_succeeds_at_the_third_attempt() -> None:
    attempts: list[int] = []

    @dg.asset(retry_policy=retries.io)
    def fetched(context: dg.AssetExecutionContext) -> None:
        attempts.append(context.retry_number)
        if len(attempts) < 3:
            raise OSError("the store is busy")

    with dg.DagsterInstance.ephemeral() as instance:
        result = dg.materialize([fetched], instance=instance, run_config=QUIET)
        assert result.success
        assert attempts == [0, 1, 2]
        assert fetched.key in {event.asset_key for event in result.get_asset_materialization_events()}


def test_a_failure_that_would_come_again_is_not_tried_again() -> None:
    attempts: list[int] = []

    @dg.asset(retry_policy=retries.io)
    def refused(context: dg.AssetExecutionContext) -> None:
        attempts.append(context.retry_number)
        raise dg.Failure("wrong password", allow_retries=False)

    result = dg.materialize([refused], run_config=QUIET, raise_on_error=False)
    assert not result.success
    assert attempts == [0]


@pytest.mark.parametrize(
    ("policy", "longest"), [(retries.io, [1, 3, 7, 15]), (retries.spot, [60, 120, 240])], ids=["io", "spot"]
)
def test_the_waits_grow_and_are_spread(policy: dg.RetryPolicy, longest: list[int]) -> None:
    assert policy.max_retries == len(longest)
    for attempt, most in enumerate(longest, start=1):
        waits = {policy.calculate_delay(attempt) for _ in range(20)}
        assert len(waits) > 1
        assert all(0 <= wait <= most for wait in waits)
