"""The example's dbt profile and macros are the library's."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_profile_is_the_one_that_a_new_project_copies() -> None:
    copied = (ROOT / "assets/flights/dbt/profiles.yml").read_text()
    assert copied == (ROOT / "resources/profiles.yml").read_text()


def test_the_macros_are_those_that_a_new_project_copies() -> None:
    copied = (ROOT / "assets/flights/dbt/macros/days.sql").read_text()
    assert copied == (ROOT / "resources/days.sql").read_text()
