"""The warehouse replaces whole partitions in one transaction, and waits for its turn at the file."""

import subprocess
import sys
import time
from pathlib import Path

import pyarrow as pa
import pytest
from pydantic import SecretStr

import resources.warehouse
from resources.warehouse import Warehouse, WarehouseBusyError

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


def rows(days: list[str], value: int) -> pa.Table:
    return pa.table({"day": days, "value": [value] * len(days)})


def values(warehouse: Warehouse) -> dict[str, int]:
    found = warehouse.read("SELECT day, value FROM raw.things ORDER BY day")
    return dict(zip(found["day"].to_pylist(), found["value"].to_pylist(), strict=True))


def held(path: Path, seconds: float) -> subprocess.Popen[str]:
    process = subprocess.Popen([sys.executable, "-c", HOLD, str(path), str(seconds)], stdout=subprocess.PIPE, text=True)
    assert process.stdout
    assert process.stdout.readline() == "held\n"
    return process


def test_replacing_a_day_leaves_the_other_days(warehouse: Warehouse) -> None:
    with warehouse.transaction() as transaction:
        transaction.replace("raw.things", rows(["a", "b"], 1), "day", ["a", "b"])
    with warehouse.transaction() as transaction:
        transaction.replace("raw.things", rows(["b"], 2), "day", ["b"])
    assert values(warehouse) == {"a": 1, "b": 2}


def test_an_error_in_the_transaction_leaves_everything_as_it_was(warehouse: Warehouse) -> None:
    with warehouse.transaction() as transaction:
        transaction.replace("raw.things", rows(["a"], 1), "day", ["a"])

    def fail_in_the_middle() -> None:
        with warehouse.transaction() as transaction:
            transaction.replace("raw.things", rows(["a"], 2), "day", ["a"])
            raise RuntimeError("in the middle")

    with pytest.raises(RuntimeError, match="in the middle"):
        fail_in_the_middle()
    assert values(warehouse) == {"a": 1}


def test_a_value_with_a_quote_in_it_is_a_value(warehouse: Warehouse) -> None:
    with warehouse.transaction() as transaction:
        transaction.replace("raw.things", rows(["a", "O'Hare"], 1), "day", ["a", "O'Hare"])
        transaction.replace("raw.things", rows(["O'Hare"], 2), "day", ["O'Hare"])
    assert values(warehouse) == {"O'Hare": 2, "a": 1}


def test_it_waits_while_another_process_holds_the_file(warehouse: Warehouse, path: Path) -> None:
    with warehouse.transaction() as transaction:
        transaction.replace("raw.things", rows(["a"], 1))
    holder = held(path, 1.0)
    started = time.monotonic()
    assert values(warehouse) == {"a": 1}
    assert time.monotonic() - started > 0.5
    holder.wait()


def test_it_gives_up_with_the_holder_and_the_next_step(
    warehouse: Warehouse, path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(resources.warehouse, "LOCK_WAIT_SECONDS", 0.5)
    holder = held(path, 30)
    try:
        with pytest.raises(WarehouseBusyError, match=rf"held by another process.*PID {holder.pid}.*End that process"):
            warehouse.exists("raw.things")
    finally:
        holder.kill()
        holder.wait()


@pytest.mark.parametrize("address", ["mysql://me:hunter2@there/db", "host=there password=hunter2", "duckdb:x/hunter2"])
def test_an_address_of_no_known_engine_is_refused_and_not_shown(address: str) -> None:
    with pytest.raises(ValueError, match="must start with duckdb:/// or postgresql://") as refused:
        Warehouse(SecretStr(address)).exists("raw.things")
    assert "hunter2" not in str(refused.value)


def test_a_postgres_that_cannot_be_reached_is_said_without_the_password() -> None:
    with pytest.raises(ConnectionError, match="TILTH_WAREHOUSE_URI cannot be reached") as refused:
        Warehouse(SecretStr("postgresql://me:hunt%20er2@127.0.0.1:1/db")).exists("raw.things")
    assert "hunt" not in str(refused.value)
    assert refused.value.__cause__ is None


def test_the_address_does_not_show(path: Path) -> None:
    assert "secret" not in repr(Warehouse(SecretStr("postgresql://user:secret@host/db")))
