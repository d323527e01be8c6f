"""A node shuts its telescope for weather that another installation measures, by the age of what it was told."""

from collections.abc import Callable, Sequence

import pytest
import trio
from trio.testing import MockClock

from skygw.client.following import Followings
from skygw.protocol.streams import StaleReason, StreamFilter, StreamName
from skygw.sim.clock import SimClock
from skygw.sim.installation import WEATHER_UNKNOWN, WEATHER_UNSAFE, Site
from skygw.sim.journal import Action, Entry, Order
from skygw.sim.sky import M13
from skygw.sim.telescope import Telescope
from skygw.sim.weather_watch import LOOK_S, WeatherWatch
from tests.fakes.following_hub import FollowingHub
from tests.sim.conftest import CommandIds

ON_SITE = Order(cause="test")
MAX_AGE_S = 60.0
EVERY_S = 10.0
"""How often the weather is told."""

Policy = Callable[[], list[Entry]]

SHUTS = [Action.TRACKING_STOPPED, Action.PARK_STARTED, Action.PARK_REACHED, Action.ROOF_MOVING, Action.ROOF_CLOSED]


@pytest.fixture
def followings() -> Followings:
    return Followings()


@pytest.fixture
def watch(site: Site, followings: Followings) -> WeatherWatch:
    watch = _watch_over(site, site.telescopes, followings)
    site.why_shut = watch.why_shut
    return watch


def _watch_over(site: Site, telescopes: Sequence[Telescope], followings: Followings) -> WeatherWatch:
    sensor_uid = site.weather_sensor.uid
    return WeatherWatch(
        followings.add(StreamName.DEVICE_SNAPSHOT, StreamFilter(device_uid=(sensor_uid,)), max_rate_hz=None),
        sensor_uid,
        max_age_s=MAX_AGE_S,
        is_shut=lambda: site.is_shut(telescopes),
        shut=lambda why: site.shut_by_policy(why, telescopes),
    )


@pytest.fixture
def policy(site: Site) -> Policy:
    """What the site did on its own account."""
    return lambda: [entry for entry in site.journal.entries() if str(entry.cause).startswith("policy")]


async def _observe(site: Site) -> None:
    await site.enclosure.open(ON_SITE)
    await site.telescopes[0].mount.unpark(ON_SITE)
    await site.telescopes[0].mount.track(ON_SITE, M13)


async def _tell_for(hub: FollowingHub, site: Site, seconds: float) -> None:
    """The weather as its node would publish it, at once and then regularly."""
    until = trio.current_time() + seconds
    while trio.current_time() < until:
        await hub.tell(site.weather_sensor.uid, state=site.weather_sensor.snapshot()["state"])
        await trio.sleep(EVERY_S)


async def test_a_gateway_away_for_less_than_the_weather_may_be_old_closes_no_roof(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    site: Site,
    followings: Followings,
    watch: WeatherWatch,
    policy: Policy,
) -> None:
    nursery.start_soon(watch.run)
    hub = FollowingHub(nursery, followings)
    await _tell_for(hub, site, 30)
    await _observe(site)
    await _tell_for(hub, site, 300)
    await hub.end()
    await trio.sleep(MAX_AGE_S - EVERY_S - 5)
    back = FollowingHub(nursery, followings)
    await back.tell(site.weather_sensor.uid, age_ms=57_000, stale=StaleReason.GATEWAY_RESTARTED)
    await trio.sleep(2)
    await _tell_for(back, site, 300)

    assert policy() == []
    assert not site.enclosure.is_closed
    assert site.telescopes[0].mount.truth()["is_tracking"]


async def test_weather_that_is_lost_for_longer_shuts_the_telescope_in_order(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    site: Site,
    followings: Followings,
    watch: WeatherWatch,
    policy: Policy,
    sim_clock: SimClock,
) -> None:
    nursery.start_soon(watch.run)
    hub = FollowingHub(nursery, followings)
    await _tell_for(hub, site, 30)
    await _observe(site)
    await hub.tell(site.weather_sensor.uid)
    told_last = sim_clock.elapsed()
    await hub.end()
    await trio.sleep(600)
    done = policy()

    assert [entry.action for entry in done if entry.action in SHUTS] == SHUTS
    assert {entry.cause for entry in done} == {f"policy: {WEATHER_UNKNOWN}"}
    assert MAX_AGE_S < done[0].elapsed_s - told_last <= MAX_AGE_S + LOOK_S + 0.1


async def test_a_gateway_that_comes_back_with_nothing_younger_saves_no_open_roof(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    site: Site,
    followings: Followings,
    watch: WeatherWatch,
) -> None:
    nursery.start_soon(watch.run)
    hub = FollowingHub(nursery, followings)
    await _tell_for(hub, site, 30)
    await _observe(site)
    await hub.tell(site.weather_sensor.uid)
    await hub.end()
    for _ in range(20):
        await trio.sleep(10)
        again = FollowingHub(nursery, followings)
        await again.tell(site.weather_sensor.uid, age_ms=70_000, stale=StaleReason.NODE_OFFLINE)
        await again.end()

    assert site.enclosure.is_closed


async def test_rain_elsewhere_shuts_the_telescope_as_soon_as_it_is_told(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    site: Site,
    followings: Followings,
    watch: WeatherWatch,
    policy: Policy,
    sim_clock: SimClock,
) -> None:
    nursery.start_soon(watch.run)
    hub = FollowingHub(nursery, followings)
    await _tell_for(hub, site, 30)
    await _observe(site)
    await hub.tell(site.weather_sensor.uid, state="unsafe")
    told_at = sim_clock.elapsed()
    await trio.sleep(600)
    done = policy()

    assert {entry.cause for entry in done} == {f"policy: {WEATHER_UNSAFE}"}
    assert done[0].elapsed_s - told_at < 0.1
    assert site.is_shut(site.telescopes)


async def test_a_node_that_has_just_started_gives_an_open_roof_time_to_hear_of_the_weather(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    site: Site,
    followings: Followings,
    watch: WeatherWatch,
    policy: Policy,
) -> None:
    await _observe(site)
    nursery.start_soon(watch.run)
    await trio.sleep(MAX_AGE_S - 1)
    before = policy()
    await trio.sleep(2)

    assert before == []
    assert policy() != []


async def test_a_shutdown_that_failed_is_tried_again(
    autojump_clock: MockClock, nursery: trio.Nursery, site: Site, followings: Followings, watch: WeatherWatch
) -> None:
    nursery.start_soon(watch.run)
    hub = FollowingHub(nursery, followings)
    await _tell_for(hub, site, 30)
    await _observe(site)
    mount = site.telescopes[0].mount
    mount.faults.fail = "The mount lost its encoder."
    await hub.tell(site.weather_sensor.uid, state="unsafe")
    await trio.sleep(100)
    problem = site.policy_problem
    mount.faults.fail = None
    await trio.sleep(600)

    assert problem == "The mount lost its encoder."
    assert site.policy_problem is None
    assert site.enclosure.is_closed


async def test_the_roof_stays_closed_while_the_weather_is_not_known(
    autojump_clock: MockClock,
    nursery: trio.Nursery,
    site: Site,
    followings: Followings,
    watch: WeatherWatch,
    command_id: CommandIds,
) -> None:
    opening = {"command_type": "enclosure.open"}
    unknown = await site.execute(opening, command_id(1))
    hub = FollowingHub(nursery, followings)
    await hub.tell(site.weather_sensor.uid)
    known = await site.execute(opening, command_id(2))

    assert unknown.error is not None
    assert unknown.error["details"]["reason"] == "interlock_active"
    assert known.status == "completed"


async def test_of_several_telescopes_under_one_roof_the_last_one_to_park_closes_it_once(
    autojump_clock: MockClock, nursery: trio.Nursery, shared_site: Site
) -> None:
    site = shared_site
    hubs = []
    for telescope in site.telescopes:
        followings = Followings()
        nursery.start_soon(_watch_over(site, (telescope,), followings).run)
        hubs.append(FollowingHub(nursery, followings))
        await hubs[-1].tell(site.weather_sensor.uid)
    await site.enclosure.open(ON_SITE)
    for telescope in site.telescopes:
        await telescope.mount.unpark(ON_SITE)
    for hub in hubs:
        await hub.tell(site.weather_sensor.uid, state="unsafe")
        await trio.sleep(1)
    await trio.sleep(600)
    done = [entry.action for entry in site.journal.entries()]

    assert done.count(Action.PARK_REACHED) == len(hubs)
    assert done.count(Action.ROOF_CLOSED) == 1
    assert done[-1] is Action.ROOF_CLOSED
