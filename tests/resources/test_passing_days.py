"""Of a range that fails its tests, the days that pass are found in few attempts."""

from collections.abc import Sequence

from hypothesis import given
from hypothesis import strategies as st

from resources.dbt_assets import MAX_ATTEMPTS, passing_days

numbers = st.integers(1, 365).flatmap(lambda n: st.tuples(st.just(n), st.sets(st.integers(0, n - 1), min_size=1)))


def search(count: int, bad: set[int]) -> tuple[set[str], set[str], int]:
    """The days found to pass, the bad ones, and how many parts were tried."""
    days = [f"{n:03}" for n in range(count)]
    rejected = {days[n] for n in bad}
    tried: list[Sequence[str]] = []

    def passes(part: Sequence[str]) -> bool:
        tried.append(part)
        return rejected.isdisjoint(part)

    return set(passing_days(passes, days)), rejected, len(tried)


@given(numbers)
def test_no_bad_day_ever_passes_and_the_attempts_are_bounded(case: tuple[int, set[int]]) -> None:
    passing, rejected, tried = search(*case)
    assert passing.isdisjoint(rejected)
    assert tried <= MAX_ATTEMPTS + 1


@given(st.integers(1, 365).flatmap(lambda n: st.tuples(st.just(n), st.integers(0, n - 1))))
def test_one_bad_day_of_a_year_holds_back_no_other(case: tuple[int, int]) -> None:
    passing, rejected, _ = search(case[0], {case[1]})
    assert len(passing) == case[0] - len(rejected)
