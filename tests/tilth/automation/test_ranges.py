"""Ranges cover exactly the partitions that are wanted, as Dagster reads them, and no range is longer than it may be."""

from collections import Counter

import dagster as dg
from hypothesis import given
from hypothesis import strategies as st

from tilth.automation.ranges import ranges

DAYS = dg.DailyPartitionsDefinition("2013-01-01", end_date="2013-02-15")
NAMES = dg.StaticPartitionsDefinition(["EWR", "JFK", "LGA", "BOS"])
BOTH = dg.MultiPartitionsDefinition({"day": DAYS, "name": NAMES})
"""Keys are `<day>|<name>`: Dagster orders dimensions by name."""

limits = st.none() | st.integers(1, 8)


def read(definition: dg.PartitionsDefinition, found: list[tuple[str, str]]) -> list[list[str]]:
    return [
        [str(key) for key in definition.get_partition_keys_in_range(dg.PartitionKeyRange(start, end))]
        for start, end in found
    ]


@given(wanted=st.sets(st.sampled_from(DAYS.get_partition_keys())), most=limits)
def test_days_are_covered_once_by_the_fewest_ranges(wanted: set[str], most: int | None) -> None:
    covered = read(DAYS, ranges(wanted, DAYS, most))
    assert [key for keys in covered for key in keys] == sorted(wanted)
    if most:
        assert max(map(len, covered), default=0) <= most
    else:
        keys = DAYS.get_partition_keys()
        starts = [key for key in wanted if keys.index(key) == 0 or keys[keys.index(key) - 1] not in wanted]
        assert len(covered) == len(starts)


@given(wanted=st.sets(st.sampled_from([str(key) for key in BOTH.get_partition_keys()])), most=limits)
def test_partitions_of_two_dimensions_are_covered_once(wanted: set[str], most: int | None) -> None:
    covered = read(BOTH, ranges(wanted, BOTH, most))
    assert Counter(key for keys in covered for key in keys) == Counter(wanted)
    assert most is None or max(map(len, covered), default=0) <= most


def test_a_product_of_both_dimensions_is_one_range() -> None:
    wanted = [f"2013-01-{day:02}|{name}" for day in range(5, 10) for name in ("EWR", "JFK", "LGA")]
    assert ranges(wanted, BOTH) == [("2013-01-05|EWR", "2013-01-09|LGA")]
