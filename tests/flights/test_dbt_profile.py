"""The example's dbt profile is the library's."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_profile_is_the_one_that_a_new_project_copies() -> None:
    copied = (ROOT / "assets/flights/dbt/profiles.yml").read_text()
    assert copied == (ROOT / "resources/profiles.yml").read_text()
