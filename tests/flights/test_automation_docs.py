"""The page of what triggers what says how the training sets are."""

from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_the_page_says_when_a_training_set_is_made_and_made_again() -> None:
    page = (ROOT / "docs/automation.md").read_text()
    assert "| `features/training_set` | monthly | `on complete window; again */10 * * * *` |" in page
