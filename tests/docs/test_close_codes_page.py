"""The page on close codes against the codes themselves."""

import re
from pathlib import Path

import pytest

from skygw.protocol.close_codes import LATE_FROM_S, LATE_TO_S, MAX_REASON_BYTES, SOON_CAP_S, CloseCode, comes_back_late

PAGE = (Path(__file__).parents[2] / "docs" / "close-codes.md").read_text(encoding="utf-8")
ROWS = {
    int(code): (name, sender, comeback)
    for code, name, sender, _, comeback, _ in re.findall(
        r"^\| (\d{4}) \| `(\w+)` \| ([^|]+) \| ([^|]+) \| ([^|]+) \| ([^|]+) \|$", PAGE, re.MULTILINE
    )
}


def test_the_page_names_every_code_and_no_other() -> None:
    assert {code: name for code, (name, _, _) in ROWS.items()} == {code.value: code.name for code in CloseCode}


@pytest.mark.parametrize("code", list(CloseCode))
def test_the_page_says_when_a_node_comes_back_as_the_code_does(code: CloseCode) -> None:
    _, sender, comeback = ROWS[code]
    assert re.search(r"\b(soon|late)\b", comeback)
    assert ("late" in comeback) == comes_back_late(code)
    assert sender.split(", ")[0] in {"either", "gateway", "node"}


def test_the_numbers_on_the_page_are_those_of_the_program() -> None:
    assert f"min({SOON_CAP_S:.0f} s, 0.5 s × 2^attempt)" in PAGE
    assert f"between {LATE_FROM_S / 60:.0f} and {LATE_TO_S / 60:.0f} minutes" in PAGE
    assert f"{MAX_REASON_BYTES} bytes" in PAGE
