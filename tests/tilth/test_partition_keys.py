"""A key of two dimensions is taken apart by their names, however Dagster orders them."""

import dagster as dg
import pyarrow as pa

from tilth.partition_keys import by_dimension, joined, parts, row_keys

BY = dg.MultiPartitionsDefinition(
    {"month": dg.StaticPartitionsDefinition(["2013-01"]), "entity": dg.StaticPartitionsDefinition(["Home & Garden"])}
)
KEY = "Home & Garden|2013-01"


def test_a_key_says_its_parts_by_dimension_and_in_the_order_in_which_it_has_them() -> None:
    assert [str(key) for key in BY.get_partition_keys()] == [KEY]
    assert by_dimension(KEY, BY) == {"month": "2013-01", "entity": "Home & Garden"}
    assert parts(KEY) == ["Home & Garden", "2013-01"]
    assert joined(*parts(KEY)) == KEY


def test_the_keys_of_rows_are_those_that_dagster_makes() -> None:
    rows = pa.table({"month": ["2013-01"], "entity": ["Home & Garden"]})
    assert row_keys(rows, ["entity", "month"]).to_pylist() == [KEY]
    assert row_keys(rows, ["month"]).to_pylist() == ["2013-01"]
