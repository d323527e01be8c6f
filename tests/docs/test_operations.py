"""The operations guide says what the settings are."""

from pathlib import Path

from skygw.settings import settings_table

GUIDE = Path(__file__).parents[2] / "docs" / "operations.md"


def test_the_guide_holds_the_table_of_all_settings_as_they_are() -> None:
    assert settings_table() in GUIDE.read_text()
