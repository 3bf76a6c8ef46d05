import pytest

# What several tests assert in common says what it found, as the tests themselves do.
pytest.register_assert_rewrite(
    *(f"tests.{module}" for module in ("warehouse_contract", "dbt_contract", "round_trips", "feeds"))
)
