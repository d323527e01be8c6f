"""How much an installation may send, on a clock that stands still until it is told to move."""

from uuid import uuid4

import pytest
from trio.testing import MockClock

from skygw.ids import InstallId
from skygw.nodes import rates as room
from skygw.nodes.rates import InboundRate, InboundRates
from skygw.protocol.close_codes import MAX_REASON_BYTES
from skygw.protocol.limits import MIB

PLENTY = 1_000 * MIB


async def test_ten_seconds_worth_may_come_at_once_and_not_one_more(mock_clock: MockClock) -> None:
    rate = InboundRate(frames_per_s=50, bytes_per_s=PLENTY)
    assert rate.charge(frames=499, size=1) is None
    assert rate.charge(frames=1, size=1) is None
    assert rate.charge(frames=1, size=1) is not None


async def test_what_comes_at_the_rate_may_come_for_ever(mock_clock: MockClock) -> None:
    rate = InboundRate(frames_per_s=50, bytes_per_s=PLENTY)
    assert rate.charge(frames=500, size=1) is None
    for _ in range(10_000):
        mock_clock.jump(0.25)
        assert rate.charge(frames=12, size=1) is None


async def test_twice_the_rate_lasts_as_long_as_the_burst(mock_clock: MockClock) -> None:
    rate = InboundRate(frames_per_s=50, bytes_per_s=PLENTY)
    seconds = 0
    while rate.charge(frames=100, size=1) is None:
        mock_clock.jump(1.0)
        seconds += 1
    assert seconds == 9


async def test_it_is_never_below_empty_and_has_again_what_time_gives(mock_clock: MockClock) -> None:
    rate = InboundRate(frames_per_s=50, bytes_per_s=PLENTY)
    for _ in range(100):
        rate.charge(frames=256, size=1)
    mock_clock.jump(1.0)
    assert rate.charge(frames=50, size=1) is None
    assert rate.charge(frames=1, size=1) is not None


async def test_bytes_are_weighed_beside_frames(mock_clock: MockClock) -> None:
    rate = InboundRate(frames_per_s=50, bytes_per_s=1_000)
    assert rate.charge(frames=1, size=10_000) is None
    said = rate.charge(frames=1, size=1)
    assert said is not None
    assert said.startswith("10001 bytes in 0.0 s, and 1000 a second is the limit")


async def test_what_it_says_counts_from_when_all_was_well_and_fits_into_a_close_frame(mock_clock: MockClock) -> None:
    rate = InboundRate(frames_per_s=1_000_000, bytes_per_s=PLENTY)
    rate.charge(frames=5_000_000, size=1)
    mock_clock.jump(3_600.0)
    said = None
    while said is None:
        mock_clock.jump(1.0)
        said = rate.charge(frames=3_000_000, size=1)
    assert said.startswith("15000000 frames in 4.0 s, and 1e+06 a second is the limit")
    assert len(said.encode()) <= MAX_REASON_BYTES


async def test_an_installation_finds_its_account_as_it_left_it_and_others_have_their_own(mock_clock: MockClock) -> None:
    rates = InboundRates(frames_per_s=50, bytes_per_s=PLENTY)
    loud, quiet = InstallId(uuid4()), InstallId(uuid4())
    rates.of(loud).charge(frames=500, size=1)
    assert rates.of(loud).charge(frames=1, size=1) is not None
    assert rates.of(quiet).charge(frames=1, size=1) is None


async def test_so_many_accounts_are_kept_and_the_one_that_came_longest_ago_is_dropped(
    mock_clock: MockClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(room, "REMEMBERED_INSTALLATIONS", 2)
    rates = InboundRates(frames_per_s=50, bytes_per_s=PLENTY)
    first, second, third = (InstallId(uuid4()) for _ in range(3))
    for install_id in (first, second, first, third):
        rates.of(install_id).charge(frames=300, size=1)
    assert rates.of(first).charge(frames=1, size=1) is not None
    assert rates.of(second).charge(frames=500, size=1) is None
