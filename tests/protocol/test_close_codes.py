"""When a node comes back, and what a close frame can say."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.protocol.close_codes import (
    LATE_FROM_S,
    LATE_TO_S,
    MAX_REASON_BYTES,
    RULE_BROKEN_CODES,
    SOON_CAP_S,
    SOON_FIRST_S,
    CloseCode,
    comeback_delay,
    comes_back_late,
    fitted_reason,
)

CHANCES = st.floats(min_value=0, max_value=1, exclude_max=True)
ATTEMPTS = st.integers(min_value=0, max_value=10**9)
ASKED = st.floats(min_value=0, max_value=1e12)


OTHERS = (st.integers(0, 4_499) | st.integers(5_000, 65_535)).filter(lambda code: code not in RULE_BROKEN_CODES)


@given(st.none() | OTHERS, ATTEMPTS, CHANCES)
def test_every_other_code_and_none_at_all_come_back_soon(code: int | None, attempt: int, chance: float) -> None:
    assert 0 <= comeback_delay(code=code, attempt=attempt, chance=chance) <= SOON_CAP_S


@given(st.integers(4_500, 4_999) | st.sampled_from([1002, 1003, 1007, 1009]), ATTEMPTS, CHANCES)
def test_the_late_codes_come_back_in_five_to_fifteen_minutes_however_often(
    code: int, attempt: int, chance: float
) -> None:
    assert LATE_FROM_S <= comeback_delay(code=code, attempt=attempt, chance=chance) <= LATE_TO_S


@given(st.none() | st.integers(0, 65_535), ATTEMPTS, CHANCES, ASKED)
def test_no_code_and_no_request_of_the_gateway_keeps_a_node_away_for_good(
    code: int | None, attempt: int, chance: float, asked: float
) -> None:
    delay = comeback_delay(code=code, attempt=attempt, chance=chance, at_least_s=asked)
    assert min(asked, LATE_TO_S) <= delay <= LATE_TO_S + SOON_CAP_S


@given(ATTEMPTS)
def test_the_jitter_is_full_so_that_a_fleet_does_not_come_back_as_one(attempt: int) -> None:
    assert comeback_delay(code=4001, attempt=attempt, chance=0.0) == 0
    assert (
        comeback_delay(code=4001, attempt=attempt, chance=0.5)
        == min(SOON_CAP_S, SOON_FIRST_S * 2.0 ** min(attempt, 9)) / 2
    )


@pytest.mark.parametrize("code", list(CloseCode))
def test_the_code_itself_says_when_to_come_back(code: CloseCode) -> None:
    assert comes_back_late(code) == (code.name in LATE)


LATE = {"PROTOCOL_VIOLATION", "SUPERSEDED", "REVOKED", "VERSION_UNSUPPORTED", "FORBIDDEN", "DUPLICATE_INSTANCE"}


@given(st.text())
def test_a_reason_fits_a_close_frame_and_is_cut_between_characters(reason: str) -> None:
    fitted = fitted_reason(reason)
    sayable = reason.encode(errors="replace").decode()
    assert len(fitted.encode()) <= MAX_REASON_BYTES
    assert sayable.startswith(fitted)
    rest = sayable[len(fitted) :]
    assert not rest or len((fitted + rest[0]).encode()) > MAX_REASON_BYTES
