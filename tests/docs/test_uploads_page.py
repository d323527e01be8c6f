"""The page on uploads against the tests and the tables it speaks of."""

import re
from pathlib import Path

from skygw.observing.byte_store import MIB
from skygw.observing.intake import FLUSH_AFTER_S, FLUSH_BYTES
from skygw.routers.tus import EXTENSIONS
from skygw.routers.upload_problems import KINDS

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs" / "uploads.md").read_text(encoding="utf-8")
TESTS = {
    name
    for folder in ("routers", "observing")
    for path in (ROOT / "tests" / folder).glob("*.py")
    for name in re.findall(r"^ *(?:async )?def (test_\w+)\(", path.read_text(encoding="utf-8"), re.MULTILINE)
}


def test_every_requirement_has_a_test_that_exists() -> None:
    rows = re.findall(r"^\| (?:[\d., ]+|App\.) \| .* \| (.*) \|$", PAGE, re.MULTILINE)
    assert len(rows) > 40
    for row in rows:
        named = re.findall(r"`(test_\w+)`", row)
        assert named, row
        assert set(named) <= TESTS


def test_the_problem_types_on_the_page_are_those_that_are_sent() -> None:
    assert {kind for kind, _ in KINDS.values()} == set(re.findall(r"^\| `([a-z-]+)` \| 4", PAGE, re.MULTILINE))


def test_the_numbers_and_extensions_on_the_page_are_those_of_the_program() -> None:
    assert f"at most {FLUSH_BYTES // MIB} MiB or {FLUSH_AFTER_S:.0f} s behind" in PAGE
    for extension in EXTENSIONS.split(","):
        assert extension in PAGE
