"""Simulated time runs faster than trio's by its scale, and only the site's own date can be wrong."""

from datetime import UTC, datetime, timedelta

import pytest
import trio
import trio.testing

from skygw.sim.clock import SimClock

START = datetime(2026, 6, 15, 4, 0, tzinfo=UTC)


async def test_a_scaled_clock_passes_sixty_simulated_seconds_per_second(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = SimClock(scale=60, start=START)
    await trio.sleep(2)
    assert clock.elapsed() == pytest.approx(120)
    assert clock.now() == START + timedelta(seconds=120)


async def test_sleeping_takes_simulated_seconds(autojump_clock: trio.testing.MockClock) -> None:
    clock = SimClock(scale=10)
    began_at = trio.current_time()
    await clock.sleep(30)
    assert trio.current_time() - began_at == pytest.approx(3)


async def test_a_wrong_clock_shows_a_wrong_date_and_measures_right(
    autojump_clock: trio.testing.MockClock,
) -> None:
    clock = SimClock(start=START)
    clock.set_wrong_by(-86_400)
    await trio.sleep(5)
    assert clock.now() == START - timedelta(days=1) + timedelta(seconds=5)
    assert clock.elapsed() == pytest.approx(5)


@pytest.mark.parametrize("scale", [0.0, -1.0, float("nan")])
async def test_time_does_not_stand_still_or_run_back(scale: float) -> None:
    with pytest.raises(ValueError, match="scale"):
        SimClock(scale=scale)
