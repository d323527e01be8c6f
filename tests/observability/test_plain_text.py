"""Text from elsewhere cannot steer a terminal, forge a line or hide."""

import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.observability.plain_text import escaped


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("\x1b[31mred", r"\x1b[31mred"),
        ("\x9b31m", r"\x9b31m"),
        ("\x07\x00\x7f", r"\x07\x00\x7f"),
        ("one\ntwo\r\tthree", r"one\ntwo\r\tthree"),
        ("\u202egnp.exe", r"\u202egnp.exe"),
        ("\u2066a\u2069", r"\u2066a\u2069"),
        ("zero\u200bwidth\ufeff", r"zero\u200bwidth\ufeff"),
        ("line\u2028para\u2029", r"line\u2028para\u2029"),
        ("tag\U000e0041", r"tag\U000e0041"),
        ("lone\udc80", r"lone\udc80"),
    ],
)
def test_what_steers_or_hides_is_written_out(text: str, shown: str) -> None:
    assert escaped(text) == shown


@pytest.mark.parametrize("text", ["", "plain", "Observatoř ÁÉ 天文台 🔭 −10 °C", "a backslash \\ stays"])
def test_what_people_write_stays_as_it_is(text: str) -> None:
    assert escaped(text) == text


def test_kept_characters_stay() -> None:
    assert escaped("a\nb\x1b", keep="\n") == "a\nb\\x1b"


@given(st.text(st.characters()))
def test_nothing_unsafe_is_ever_left(text: str) -> None:
    shown = escaped(text)
    assert [char for char in shown if unicodedata.category(char) in {"Cc", "Cf", "Cs", "Zl", "Zp"}] == []
    shown.encode()
