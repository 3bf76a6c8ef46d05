"""The warehouse on a DuckDB file, whose turn it waits for; and by addresses of other engines."""

import logging
import os
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import adbc_driver_sqlite.dbapi
import duckdb
import pyarrow as pa
import pytest
from pydantic import SecretStr

import resources.duckdb_file
from resources.dbt import connection_environment
from resources.warehouse import Warehouse, WarehouseBusyError
from tests.warehouse_contract import FIRST, WarehouseContract, rows

HOLD = """
import duckdb, sys, time
held = duckdb.connect(sys.argv[1])
print("held", flush=True)
time.sleep(float(sys.argv[2]))
"""


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "warehouse.duckdb"


@pytest.fixture
def warehouse(path: Path) -> Warehouse:
    return Warehouse(SecretStr(f"duckdb:///{path}"))


@contextmanager
def held(path: Path, seconds: float) -> Iterator[int]:
    """The file is in another process' hands for so long, or until the end; the process' number."""
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    try:
        assert process.stdout
        assert process.stdout.readline() == "held\n"
        yield process.pid
    finally:
        process.kill()
        process.wait()


def briefly(path: Path) -> Warehouse:
    return Warehouse(SecretStr(f"duckdb:///{path}"), wait_seconds=0.3)


class TestOnDuckDB(WarehouseContract):
    """The common tests."""

    def test_a_decimal_of_more_digits_than_duckdb_has_is_refused(self, warehouse: Warehouse) -> None:
        came = pa.table({"c": pa.nulls(1, pa.decimal256(39, 2))})
        with pytest.raises(ValueError, match=r"^raw\.t, column c: decimal256\(39, 2\) has more digits .*Cast it"):
            warehouse.replace("raw.t", came)


def test_what_dbt_makes_can_be_put_back(warehouse: Warehouse) -> None:
    with warehouse.transaction() as transaction:
        transaction.execute("CREATE SCHEMA marts")
        transaction.execute(
            "CREATE TABLE marts.t AS SELECT 'b'::ENUM('a', 'b') AS e, [1, 2] AS l, {'x': 1} AS s, uuid() AS u, "
            "sum(range) AS total, '[1]'::JSON AS j FROM range(3)"
        )
    before = warehouse.read("marts.t")
    warehouse.replace("marts.t", before)
    assert warehouse.read("marts.t").equals(before)


def test_it_waits_while_another_process_holds_the_file_and_says_which(
    warehouse: Warehouse, path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.duckdb_file, "SAY_EVERY_SECONDS", 0.7)
    warehouse.replace("raw.things", rows([FIRST], 1))
    with caplog.at_level(logging.INFO, "tilth.warehouse"), held(path, 1.2) as pid:
        started = time.monotonic()
        assert warehouse.read("raw.things").num_rows == 1
        assert time.monotonic() - started > 0.5
    said = [record.getMessage() for record in caplog.records if record.name == "tilth.warehouse"]
    assert 1 <= len(said) <= 2
    assert f"{path} is held by " in said[0]
    assert f"(PID {pid})" in said[0]
    assert Path(sys.executable).resolve().name in said[0]
    assert "0 of at most 120 s" in said[0]


def test_it_gives_up_with_the_holder_and_the_next_step(path: Path) -> None:
    with held(path, 30) as pid:
        started = time.monotonic()
        with pytest.raises(WarehouseBusyError, match=rf"held for 0\.3 s by .*\(PID {pid}\)\. End that process"):
            briefly(path).exists("raw.things")
        assert 0.3 <= time.monotonic() - started < 5


def test_a_second_transaction_of_the_same_thread_is_refused_at_once(warehouse: Warehouse) -> None:
    with warehouse.transaction(), pytest.raises(WarehouseBusyError, match="This thread has a transaction open"):
        warehouse.exists("raw.things")
    assert not warehouse.exists("raw.things")


def test_a_connection_of_the_same_process_is_waited_for_like_another_process(path: Path) -> None:
    with duckdb.connect(path), pytest.raises(WarehouseBusyError, match=rf"this process itself \(PID {os.getpid()}\)"):
        briefly(path).exists("raw.things")
    assert not briefly(path).exists("raw.things")


def test_threads_lose_nothing_of_each_other(warehouse: Warehouse) -> None:
    days = [f"2013-01-{n:02}" for n in range(1, 9)]
    threads = [threading.Thread(target=warehouse.replace, args=("raw.t", rows([d], 1), "day", [d])) for d in days]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(map(str, warehouse.read("raw.t")["day"].to_pylist())) == days


def test_any_adbc_driver_that_is_installed_is_read_by_its_scheme(tmp_path: Path) -> None:
    sqlite = Warehouse(SecretStr(f"sqlite://{tmp_path}/there.sqlite"))
    assert sqlite.read("SELECT 1 AS one").to_pylist() == [{"one": 1}]
    with adbc_driver_sqlite.dbapi.connect(f"{tmp_path}/there.sqlite") as connection, connection.cursor() as cursor:
        cursor.adbc_ingest("things", pa.table({"a": [1, 2], "b": ["x", "y"]}))
        connection.commit()
    assert sqlite.read("main.things", ["b"], ("a", ["2"])).to_pylist() == [{"b": "y"}]
    with pytest.raises(ValueError, match=r"main\.things: sqlite is only read from here"):
        sqlite.replace("main.things", pa.table({"a": [3]}))


def test_a_driver_that_is_not_installed_is_named_and_the_address_not_shown() -> None:
    with pytest.raises(ModuleNotFoundError, match="pip install adbc-driver-mysql") as refused:
        Warehouse(SecretStr("mysql://me:hunter2@there/db")).exists("raw.things")
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize("address", ["host=there password=hunter2", "duckdb:x/hunter2", "duckdb://hunter2", ""])
def test_an_address_of_no_engine_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ValueError, match="must start with duckdb:/// or postgresql://") as refused:
        Warehouse(SecretStr(address)).exists("raw.things")
    assert "hunter2" not in str(refused.value)


def test_dbt_has_a_target_for_duckdb_and_postgresql_only() -> None:
    with pytest.raises(ValueError, match=r"knows DuckDB and PostgreSQL only.*sqlite://") as refused:
        connection_environment(Warehouse(SecretStr("sqlite:///hunter2")))
    assert "hunter2" not in str(refused.value)


@pytest.mark.parametrize(
    "address", ["postgresql://me:hunt%20er2@127.0.0.1:1/db", "postgresql://127.0.0.1:1/db?password=hunter2"]
)
def test_a_postgres_that_cannot_be_reached_is_said_without_the_password(address: str) -> None:
    with pytest.raises(ConnectionError, match="TILTH_WAREHOUSE_URI cannot be reached") as refused:
        Warehouse(SecretStr(address)).exists("raw.things")
    assert "hunt" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_address_does_not_show() -> None:
    assert "secret" not in repr(Warehouse(SecretStr("postgresql://user:secret@host/db")))
