"""The small movers of the tube: they take their time, keep to their range, and may stand between two places."""

import pytest
import trio
from trio.testing import MockClock

from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Refused
from skygw.sim.devices.filter_wheel import FilterWheel
from skygw.sim.devices.focuser import Focuser
from skygw.sim.installation import Site
from skygw.sim.journal import Action, Order
from tests.sim.conftest import Actions

ON_SITE = Order(cause="test")


@pytest.fixture
async def focuser(site: Site) -> Focuser:
    return site.telescopes[0].focuser


@pytest.fixture
async def wheel(site: Site) -> FilterWheel:
    return site.telescopes[0].filter_wheel


async def test_the_focuser_takes_the_time_of_its_steps(
    autojump_clock: MockClock, focuser: Focuser, sim_clock: SimClock
) -> None:
    await focuser.move(ON_SITE, 12_000)
    assert sim_clock.elapsed() == pytest.approx(4)
    assert focuser.snapshot()["position"] == 12_000


async def test_a_canceled_focuser_stands_half_way(
    autojump_clock: MockClock, focuser: Focuser, sim_clock: SimClock, actions: Actions
) -> None:
    with trio.move_on_after(2):
        await focuser.move(ON_SITE, 12_000)
    await sim_clock.sleep(60)
    assert focuser.snapshot() | {"position": 11_000, "state": "stopped"} == focuser.snapshot()
    assert actions() == [Action.FOCUSER_MOVING, Action.FOCUSER_STOPPED]


@pytest.mark.parametrize("position", [-1, 20_001])
async def test_the_focuser_refuses_what_lies_outside(
    autojump_clock: MockClock, focuser: Focuser, position: int, actions: Actions
) -> None:
    with pytest.raises(Refused):
        await focuser.move(ON_SITE, position)
    assert actions() == []


async def test_the_wheel_turns_the_shorter_way_round(
    autojump_clock: MockClock, wheel: FilterWheel, sim_clock: SimClock
) -> None:
    await wheel.turn_to(ON_SITE, 4)
    assert sim_clock.elapsed() == pytest.approx(1)
    assert wheel.snapshot()["filter_name"] == "I"
    await wheel.turn_to(ON_SITE, 1)
    assert sim_clock.elapsed() == pytest.approx(3)
    assert wheel.snapshot()["position"] == 1


async def test_a_wheel_stopped_between_two_slots_has_no_filter_in_the_light(
    autojump_clock: MockClock, wheel: FilterWheel
) -> None:
    with trio.move_on_after(0.5):
        await wheel.turn_to(ON_SITE, 2)
    assert wheel.snapshot()["position"] is None
    assert wheel.filter is None
    await wheel.turn_to(ON_SITE, 2)
    assert wheel.snapshot()["filter_name"] == "V"


async def test_a_wheel_a_hair_before_its_first_slot_is_in_it(autojump_clock: MockClock, wheel: FilterWheel) -> None:
    wheel._place = -1e-20  # five slots on, by the rounding of a remainder
    assert wheel.snapshot()["filter_name"] == "Open"


async def test_the_wheel_does_not_turn_to_where_it_is(
    autojump_clock: MockClock, wheel: FilterWheel, actions: Actions
) -> None:
    await wheel.turn_to(ON_SITE, 0)
    assert actions() == []


async def test_a_filter_the_wheel_does_not_hold_is_refused(autojump_clock: MockClock, wheel: FilterWheel) -> None:
    with pytest.raises(Refused, match="does not hold"):
        wheel.slot_of(99)
