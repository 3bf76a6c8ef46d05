"""The warehouse on a real PostgreSQL: the same rules as on DuckDB, and what only PostgreSQL has."""

import os
import threading
import time
from datetime import datetime
from decimal import Decimal

import pyarrow as pa
import pytest
from hypothesis import given, settings
from pydantic import SecretStr

from resources.warehouse import Warehouse
from tests.round_trips import check, frames
from tests.warehouse_contract import WarehouseContract


@pytest.fixture
def warehouse(postgres_uri: str) -> Warehouse:
    return Warehouse(SecretStr(postgres_uri))


class TestOnPostgreSQL(WarehouseContract):
    """The common tests."""

    @pytest.mark.parametrize(
        ("column", "said"),
        [
            (pa.array([2**63], pa.uint64()), r"uint64 does not fit int64, .*9223372036854775808"),
            (
                pa.array([1_357_095_845_123_456_789], pa.timestamp("ns")),
                r"timestamp\[ns\] does not fit timestamp\[us\]",
            ),
            (pa.array([1], pa.time64("ns")), r"time64\[ns\] does not fit time64\[us\]"),
            (pa.array([2**62], pa.timestamp("s")), r"timestamp\[s\] does not fit timestamp\[us\]"),
        ],
    )
    def test_a_value_that_postgres_would_cut_is_refused(
        self, warehouse: Warehouse, things: str, column: pa.Array, said: str
    ) -> None:
        with pytest.raises(ValueError, match=rf"^{things}, column c: {said}.*Round it or cast it in the asset"):
            warehouse.replace(things, pa.table({"c": column}))
        assert not warehouse.exists(things)

    def test_a_name_that_postgres_would_cut_is_refused(self, warehouse: Warehouse, things: str) -> None:
        with pytest.raises(ValueError, match="its name is longer than 63 bytes"):
            warehouse.replace(things, pa.table({"é" * 32: [1]}))

    def test_numerics_are_decimals_as_they_are_declared_and_text_where_they_are_not(self, warehouse: Warehouse) -> None:
        found = warehouse.read(
            "SELECT 1.5::numeric(10, 2) AS a, 1.5::numeric(50, 3) AS b, 1250::numeric(5, -2) AS c, "
            "0.00012::numeric(2, 5) AS d, 1.5::numeric AS e, "
            "sum(n) AS f, 1::numeric(100, 2) AS g FROM (VALUES (1::bigint), (2)) AS v (n)"
        )
        assert found.equals(
            pa.table(
                {
                    "a": pa.array([Decimal("1.50")], pa.decimal128(10, 2)),
                    "b": pa.array([Decimal("1.500")], pa.decimal256(50, 3)),
                    "c": pa.array([Decimal("1300")], pa.decimal128(7, 0)),
                    "d": pa.array([Decimal("0.00012")], pa.decimal128(5, 5)),
                    "e": ["1.5"],
                    "f": ["3"],
                    "g": ["1.00"],
                }
            )
        )

    def test_a_numeric_that_is_not_a_number_is_no_decimal(self, warehouse: Warehouse) -> None:
        with pytest.raises(ValueError, match=r"column a: .*nan.*casts it to double precision"):
            warehouse.read("SELECT 'NaN'::numeric(10, 2) AS a")

    def test_what_dbt_makes_can_be_put_back(self, warehouse: Warehouse, things: str) -> None:
        with warehouse.transaction() as transaction:
            transaction.execute(f"CREATE SCHEMA {things.split('.')[0]}")
            transaction.execute(
                f"CREATE TABLE {things} AS SELECT n, "
                "CASE n WHEN 1 THEN 'NaN'::numeric WHEN 2 THEN 1e30 ELSE 1.50 END AS mean, "
                "gen_random_uuid() AS u, '[1]'::jsonb AS j, ARRAY[1, 2] AS l, 'a'::varchar(5) AS v, "
                "n::numeric(50, 3) AS d FROM generate_series(1, 4) AS s (n)"
            )
        before = warehouse.read(things).sort_by("n")
        assert before["mean"].to_pylist() == ["nan", "1" + "0" * 30, "1.50", "1.50"]
        warehouse.replace(things, before.slice(1), "n", ["2", "3", "4"])
        assert warehouse.read(things).sort_by("n").equals(before)

    def test_a_decimal_goes_into_a_numeric_of_no_declared_precision(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, pa.table({"n": pa.array([1], pa.int64())}))
        with warehouse.transaction() as transaction:
            transaction.execute(f"ALTER TABLE {things} ALTER COLUMN n TYPE numeric")
            transaction.replace(things, pa.table({"n": pa.array([Decimal("2.50")], pa.decimal128(4, 2))}))
        assert warehouse.read(things).to_pylist() == [{"n": "2.50"}]

    def test_a_view_on_a_table_outlives_its_replacement(self, warehouse: Warehouse, things: str) -> None:
        warehouse.replace(things, pa.table({"n": [1]}))
        with warehouse.transaction() as transaction:
            transaction.execute(f"CREATE VIEW {things}_seen AS SELECT n FROM {things}")
        warehouse.replace(things, pa.table({"n": [2], "at": [datetime(2013, 1, 1)]}))
        assert warehouse.read(f"{things}_seen").to_pylist() == [{"n": 2}]


def test_a_text_with_nul_is_refused_by_its_columns_name(warehouse: Warehouse) -> None:
    with pytest.raises(ValueError, match=r"raw\.with_nul, column note: a text holds the character NUL"):
        warehouse.replace("raw.with_nul", pa.table({"n": [1], "note": ["a\0b"]}))
    assert not warehouse.exists("raw.with_nul")


def test_a_table_of_a_longer_name_than_postgresql_keeps_is_refused(warehouse: Warehouse) -> None:
    with pytest.raises(ValueError, match=r"postgresql keeps 63 bytes of a name .* Give the asset a shorter key"):
        warehouse.replace("raw." + "x" * 64, pa.table({"n": [1]}))


@settings(max_examples=int(os.environ.get("FRAMES", "40")))
@given(frame=frames())
def test_a_frame_is_read_back_equal_by_every_reader_or_refused_by_the_tables_name(
    postgres_uri: str, frame: object
) -> None:
    check(frame, Warehouse(SecretStr(postgres_uri)))


def test_an_empty_table_that_another_fills_meanwhile_keeps_its_rows_and_its_readers(warehouse: Warehouse) -> None:
    empty = pa.table({"day": pa.array([], pa.string()), "value": pa.array([], pa.float64())})
    warehouse.replace("raw.first", empty, "day", ["0"])
    refused: list[Exception] = []

    def other() -> None:
        try:
            warehouse.replace("raw.first", pa.table({"day": ["2"], "value": ["text"]}), "day", ["2"])
        except ValueError as error:
            refused.append(error)

    with warehouse.transaction() as transaction:
        transaction.replace("raw.first", pa.table({"day": ["1"], "value": [1.5]}), "day", ["1"])
        meanwhile = threading.Thread(target=other)
        meanwhile.start()
        time.sleep(0.5)
    meanwhile.join()
    assert warehouse.read("raw.first")["day"].to_pylist() == ["1"]
    assert "double is stored, string came" in str(refused[0])


def test_the_first_rows_of_an_empty_table_leave_others_rights_on_it(warehouse: Warehouse) -> None:
    warehouse.replace("raw.granted", pa.table({"day": pa.array([], pa.string()), "value": pa.array([], pa.float64())}))
    with warehouse.transaction() as transaction:
        transaction.execute("GRANT SELECT ON raw.granted TO PUBLIC")
    warehouse.replace("raw.granted", pa.table({"day": ["2"], "value": ["text"]}))
    granted = (
        "SELECT grantee FROM information_schema.table_privileges WHERE table_name = 'granted' AND grantee = 'PUBLIC'"
    )
    assert warehouse.read(granted).num_rows == 1


@pytest.mark.parametrize("column", [pa.array([2**31 - 1], pa.date32()), pa.array([-(2**62)], pa.timestamp("us"))])
def test_a_date_that_postgresql_has_none_for_is_refused_by_its_columns_name(
    warehouse: Warehouse, column: pa.Array
) -> None:
    with pytest.raises(ValueError, match=r"^raw\.far, column at: a value lies before or after all that PostgreSQL has"):
        warehouse.replace("raw.far", pa.table({"at": column}))
    assert not warehouse.exists("raw.far")
