"""The constraints of a site say what they ask and whether it is met, in the platform's words."""

from trio.testing import MockClock

from skygw.sim.blueprint import Layout, draw_site
from skygw.sim.clock import SimClock
from skygw.sim.constraints import SETTLES_S, Constraint, Status, constraints_of
from skygw.sim.installation import Site
from skygw.sim.posts import posts_of


def _weather_and_sun(site: Site) -> tuple[Constraint, Constraint]:
    observatory, telescope = posts_of(site)
    (weather,) = constraints_of(observatory, site)
    (sun,) = constraints_of(telescope, site)
    return weather, sun


def _status(constraint: Constraint) -> object:
    return constraint.status_snapshot()["status"]


async def test_weather_is_unsafe_while_it_rains_and_settles_before_it_is_safe_again(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock
) -> None:
    weather, _ = _weather_and_sun(site)
    seen = [_status(weather)]
    site.weather_sensor.begin_rain()
    seen.append(_status(weather))
    site.weather_sensor.end_rain()
    await sim_clock.sleep(SETTLES_S - 1)
    seen.append(_status(weather))
    await sim_clock.sleep(1)
    seen.append(_status(weather))
    site.weather_sensor.faults.unreadable = True
    seen.append(_status(weather))

    assert seen == [Status.SAFE, Status.UNSAFE, Status.STABILIZING, Status.SAFE, Status.FAULT]


async def test_a_site_that_does_not_know_the_time_does_not_know_where_the_sun_is(
    autojump_clock: MockClock, site: Site
) -> None:
    _, sun = _weather_and_sun(site)
    before = _status(sun)
    site.clock.set_wrong_by(-7_200)

    assert (before, _status(sun)) == (Status.SAFE, Status.UNKNOWN)


async def test_a_constraint_says_whose_it_is_and_what_it_asks(autojump_clock: MockClock, site: Site) -> None:
    weather, sun = (constraint.snapshot() for constraint in _weather_and_sun(site))
    (telescope,) = site.blueprint.telescopes

    assert (weather["uid"], weather["telescope_uid"]) == (str(site.blueprint.weather_constraint_uid), None)
    assert weather["device_uid"] == str(site.weather_sensor.uid)
    assert (sun["uid"], sun["telescope_uid"]) == (str(telescope.sun_altitude_uid), str(telescope.uid))
    assert sun["max_altitude_deg"] == -12.0


def test_with_remote_weather_a_single_telescope_runs_its_own_roof() -> None:
    single = draw_site("tests", 1, layout=Layout.REMOTE_WEATHER)
    shared = draw_site("tests", 1, telescopes=2, layout=Layout.REMOTE_WEATHER)

    assert (single.telescope_runs_roof, shared.telescope_runs_roof) == (True, False)
    assert not draw_site("tests", 1).telescope_runs_roof
    assert single.enclosure_uid == draw_site("tests", 1).enclosure_uid
