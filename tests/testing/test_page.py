"""The example that docs/testing.md says runs as it stands: its tests are collected here as they stand."""

import re
from pathlib import Path

PAGE = Path(__file__).parents[2] / "docs" / "testing.md"

_found = re.search(r"This file runs as it stands\.\n\n```python\n(.*?)```", PAGE.read_text(), re.DOTALL)
_example = "" if _found is None else _found[1]
exec(compile(_example, str(PAGE), "exec"))  # noqa: S102 - our own page


def test_the_page_has_the_example() -> None:
    assert _example.count("async def test_") == 2
