"""The age of a frame in transit, told from two monotonic clocks that share nothing."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from skygw.protocol.transit import MAX_DRIFT, TransitClock

DAY_MS = 24 * 3_600_000.0
OFFSETS = st.floats(min_value=-1e12, max_value=1e12)
CLOSE = 1.0
"""Milliseconds: what floats of this size lose, and the drift allowance of a few seconds adds."""


@given(OFFSETS)
def test_the_first_frame_has_no_age_whatever_the_clocks_show(offset: float) -> None:
    assert TransitClock().age_ms(own_ms=offset, sent_ms=0) == 0


@given(OFFSETS, st.floats(min_value=0, max_value=60_000))
def test_a_held_frame_is_as_old_as_it_was_held(offset: float, held: float) -> None:
    clock = TransitClock()
    clock.age_ms(own_ms=offset, sent_ms=0)
    assert clock.age_ms(own_ms=offset + 1_000 + held, sent_ms=1_000) == pytest.approx(
        held, abs=CLOSE + held * MAX_DRIFT
    )


def test_a_frame_held_thirty_seconds_is_late_and_the_next_prompt_one_is_not() -> None:
    clock = TransitClock()
    clock.age_ms(own_ms=500, sent_ms=0)
    assert clock.age_ms(own_ms=31_500, sent_ms=1_000) == pytest.approx(30_000, abs=10)
    assert clock.age_ms(own_ms=32_500, sent_ms=32_000) == pytest.approx(0, abs=10)


def test_a_burst_let_go_at_once_shows_how_long_each_frame_waited() -> None:
    clock = TransitClock()
    clock.age_ms(own_ms=0, sent_ms=0)
    ages = [clock.age_ms(own_ms=10_000, sent_ms=sent) for sent in (1_000, 4_000, 9_000)]
    assert ages == pytest.approx([9_000, 6_000, 1_000], abs=10)


def test_what_came_with_a_slow_first_frame_is_older_than_it_seemed_once_a_faster_one_comes() -> None:
    clock = TransitClock()
    clock.age_ms(own_ms=5_000, sent_ms=0)
    seemed = clock.since_ms(own_ms=6_000, sent_ms=0)
    clock.age_ms(own_ms=7_000, sent_ms=5_000)
    assert (seemed, clock.since_ms(own_ms=7_000, sent_ms=0)) == (1_000, 5_000)


@given(st.lists(st.tuples(st.floats(0, 1e7), st.floats(-1e7, 1e7)), max_size=30))
def test_an_age_is_never_negative_whatever_the_clocks_do(readings: list[tuple[float, float]]) -> None:
    clock = TransitClock()
    assert all(clock.age_ms(own_ms=own, sent_ms=sent) >= 0 for own, sent in readings)


@pytest.mark.parametrize("drift", [-100e-6, 100e-6])
def test_clocks_that_drift_apart_by_two_poor_crystals_make_no_frame_late_in_a_day(drift: float) -> None:
    clock = TransitClock()
    ages = [clock.age_ms(own_ms=sent * (1 + drift) + 77, sent_ms=sent) for sent in range(0, int(DAY_MS), 10_000)]
    assert max(ages) < 5


def test_without_the_allowance_the_same_day_would_have_refused_commands() -> None:
    drifted_ms = DAY_MS * 100e-6
    assert drifted_ms > 8_000
    clock = TransitClock()
    clock.age_ms(own_ms=0, sent_ms=0)
    assert clock.age_ms(own_ms=DAY_MS + drifted_ms, sent_ms=DAY_MS) == 0


def test_a_quicker_way_found_later_makes_the_slow_ones_older() -> None:
    clock = TransitClock()
    clock.age_ms(own_ms=800, sent_ms=0)
    clock.age_ms(own_ms=1_050, sent_ms=1_000)
    assert clock.age_ms(own_ms=2_800, sent_ms=2_000) == pytest.approx(750, abs=CLOSE)


def test_a_gateway_clock_that_stood_still_looks_like_lateness_and_never_like_freshness() -> None:
    # A suspended machine: the safe side. The way out is a new session (docs/protocol.md, «Lateness»).
    clock = TransitClock()
    clock.age_ms(own_ms=0, sent_ms=0)
    assert clock.age_ms(own_ms=10_000, sent_ms=5_000) == pytest.approx(5_000, abs=10)
    assert clock.age_ms(own_ms=20_000, sent_ms=15_000) == pytest.approx(5_000, abs=10)


def test_an_own_clock_that_stood_still_is_learned_from_the_next_frame() -> None:
    clock = TransitClock()
    clock.age_ms(own_ms=0, sent_ms=0)
    assert clock.age_ms(own_ms=1_000, sent_ms=6_000) == 0
    assert clock.age_ms(own_ms=3_000, sent_ms=7_000) == pytest.approx(1_000, abs=CLOSE)
