"""Rows that no test has passed are never taken for what was there before, on PostgreSQL."""

import threading

import dagster as dg
import pytest
from pydantic import SecretStr

from resources.warehouse import Warehouse
from tests.recorded_rows_contract import DAYS, Attempt, Marts, RecordedRowsContract, each_day


@pytest.fixture
def warehouse(postgres_uri: str) -> Warehouse:
    return Warehouse(SecretStr(postgres_uri))


class TestOnPostgreSQL(RecordedRowsContract):
    """The common tests."""

    def test_steps_of_other_days_may_save_and_forget_at_once(self, warehouse: Warehouse) -> None:
        with dg.DagsterInstance.ephemeral() as instance:
            marts = Marts(warehouse, instance)
            marts.make(Attempt(each_day(1), set(DAYS)))
            errors: list[BaseException] = []

            def make(day: str) -> None:
                try:
                    for _ in range(10):
                        marts.make(Attempt({day: [2]}, good=set()))
                except BaseException as error:  # noqa: BLE001 - the test says which
                    errors.append(error)

            threads = [threading.Thread(target=make, args=(day,)) for day in DAYS]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            assert errors == []
            assert marts.present(DAYS) == marts.right(DAYS)
            assert marts.saved() == []
