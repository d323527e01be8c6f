"""The weather wanders by its seed, and rains when a scenario says so."""

from trio.testing import MockClock

from skygw.sim.clock import SimClock
from skygw.sim.installation import Site
from skygw.sim.journal import Action
from tests.sim.conftest import Actions
from tests.sim.remembered_frames import RememberedFrames


async def test_the_weather_wanders_and_stays_safe(autojump_clock: MockClock, site: Site, sim_clock: SimClock) -> None:
    before = site.weather_sensor.snapshot()
    await sim_clock.sleep(6 * 3600)
    after = site.weather_sensor.snapshot()
    assert before["temperature_c"] != after["temperature_c"]
    assert 0 <= after["wind_speed_m_s"] <= 12
    assert after["state"] == "safe"


async def test_how_often_somebody_looks_does_not_change_the_weather(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, frames: RememberedFrames
) -> None:
    twin = Site(site.blueprint, clock=sim_clock, journal=site.journal, recorder=frames)
    for _look in range(10):
        await sim_clock.sleep(360)
        site.weather_sensor.snapshot()
    assert twin.weather_sensor.snapshot() == site.weather_sensor.snapshot()


async def test_rain_is_unsafe_until_it_ends(autojump_clock: MockClock, site: Site, actions: Actions) -> None:
    site.weather_sensor.begin_rain()
    assert site.weather_sensor.snapshot()["state"] == "unsafe"
    site.weather_sensor.end_rain()
    assert site.weather_sensor.snapshot()["state"] == "safe"
    assert actions() == [Action.RAIN_BEGAN, Action.RAIN_ENDED]
