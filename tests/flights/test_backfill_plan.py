"""What a plan says of a year, without anything that a past run took."""

from collections.abc import Iterator
from pathlib import Path

import dagster as dg
import pytest

from assets.flights.definitions import defs
from tilth.observability.plan import plan


@pytest.fixture
def unused(tmp_path: Path) -> Iterator[dg.DagsterInstance]:
    """An instance without a past."""
    with dg.DagsterInstance.local_temp(str(tmp_path)) as instance:
        yield instance


def test_a_year_of_flights_is_a_step_for_each_op_up_to_the_features(unused: dg.DagsterInstance) -> None:
    daily = ["raw/flights", "raw/weather", "staging/flights", "staging/weather", "marts/d*", "features/*"]
    planned = plan(defs, unused, " or ".join(f'key:"{name}"' for name in daily), ("2013-01-01", "2013-12-31"))
    assert [(op.assets[0], op.partitions) for op in planned] == [
        ("raw/flights", 365),
        ("raw/weather", 365),
        ("staging/flights", 365),
        ("features/departures", 365),
        ("features/training_set", 12),
    ]


def test_models_of_a_range_of_months_are_those_that_read_from_it(unused: dg.DagsterInstance) -> None:
    training_set, *models = plan(defs, unused, 'key:"features/training_set"+2', ("2013-04", "2013-06"))
    assert training_set.partitions == 3
    assert {op.partitions for op in models} == {3 * 3}  # months and airports
    assert len(models) == 4  # the candidates and the champion
