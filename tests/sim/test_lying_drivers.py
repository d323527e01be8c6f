"""What a driver says after a stop proves rest only where the same readings could have shown that it moves."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from math import inf
from typing import Any

import pytest
import trio
from trio.testing import MockClock

from skygw.ids import CommandId
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Device, DeviceFault
from skygw.sim.devices.mover import Mover
from skygw.sim.faults import Faults
from skygw.sim.installation import ExecutionStatus, Site
from skygw.sim.journal import Action, Order
from skygw.sim.proof import shows_movement, shows_rest
from tests.sim.conftest import CommandIds

MOVE = {"command_type": "focuser.move", "position": 20_000}
"""20 simulated seconds on the way."""
TURN = {"command_type": "filter_wheel.position.set", "position": 2}
EXPOSE = {"command_type": "camera.exposure.start", "duration_s": 30}

SAYS_STOPPED = {"state": "stopped"}


@asynccontextmanager
async def canceled(
    site: Site, command: dict[str, Any], command_id: CommandId, *, after_s: float = 2.0
) -> AsyncIterator[dict[str, Any]]:
    """The proof after a command was canceled on its way."""
    with trio.move_on_after(after_s) as scope:
        await site.execute(command, command_id)
    assert scope.cancelled_caught
    yield await site.prove_for(command, command_id)


async def moves_within(device: Mover[Any], clock: SimClock, seconds: float) -> bool:
    stood_at = device.place
    await clock.sleep(seconds)
    return bool(device.place != stood_at)


@pytest.mark.parametrize(
    "faults",
    [
        Faults(deaf_to_stop=True),
        Faults(deaf_to_stop=True, lies=SAYS_STOPPED),
        Faults(fails_on_stop="The controller does not answer."),
        Faults(fails_on_stop="The controller does not answer.", lies=SAYS_STOPPED),
        Faults(late_stop_s=10.0, lies=SAYS_STOPPED),
        Faults(moves_again_after_s=0.9, lies=SAYS_STOPPED),
        Faults(moves_again_after_s=0.0),
        Faults(deaf_to_stop=True, asks_every_s=0.9, lies=SAYS_STOPPED),
        Faults(deaf_to_stop=True, asks_every_s=inf, lies=SAYS_STOPPED),
        Faults(deaf_to_stop=True, asks_every_s=5.0, lies=SAYS_STOPPED),
    ],
    ids=str,
)
async def test_a_device_that_moves_on_is_not_proved_at_rest(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, command_id: CommandIds, faults: Faults
) -> None:
    focuser = site.telescopes[0].focuser
    focuser.faults = replace(faults, lies=dict(faults.lies))
    async with canceled(site, MOVE, command_id(1)) as proof:
        assert not shows_rest(proof)
        assert await moves_within(focuser, sim_clock, 8.0)


@pytest.mark.parametrize(
    "faults", [Faults(), Faults(late_stop_s=0.9, lies=SAYS_STOPPED), Faults(asks_every_s=0.9)], ids=str
)
async def test_a_device_that_stands_is_proved_at_rest(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, command_id: CommandIds, faults: Faults
) -> None:
    focuser = site.telescopes[0].focuser
    focuser.faults = replace(faults, lies=dict(faults.lies))
    async with canceled(site, MOVE, command_id(1)) as proof:
        assert shows_rest(proof)
        assert not await moves_within(focuser, sim_clock, 60.0)


async def test_a_driver_that_repeats_itself_after_a_stop_proves_nothing_once_that_is_known(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, command_id: CommandIds
) -> None:
    focuser = site.telescopes[0].focuser
    focuser.faults = Faults(deaf_to_stop=True, frozen_by_stop=True, lies=dict(SAYS_STOPPED))
    focuser.late_moves_s = inf
    async with canceled(site, MOVE, command_id(1)) as proof:
        [said] = proof["devices"]
        assert (said["state"], said["basis"], said["settled_ms"]) == ("unknown", "assumed", None)
        assert await moves_within(focuser, sim_clock, 8.0)


async def test_a_wheel_between_two_slots_is_not_proved_at_rest_by_its_word(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, command_id: CommandIds
) -> None:
    wheel = site.telescopes[0].filter_wheel
    wheel.faults = Faults(deaf_to_stop=True, slow=10.0, lies=dict(SAYS_STOPPED))
    async with canceled(site, TURN, command_id(1)) as proof:
        assert not shows_rest(proof)
        assert await moves_within(wheel, sim_clock, 8.0)


async def test_a_camera_whose_shutter_stays_open_is_not_at_rest(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    site.telescopes[0].camera.faults.deaf_to_stop = True
    async with canceled(site, EXPOSE, command_id(1)) as proof:
        assert shows_movement(proof)
        assert proof["devices"][0]["state"] == "exposing"


async def test_the_wheel_that_turns_for_an_exposure_is_in_its_proof(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    telescope = site.telescopes[0]
    telescope.filter_wheel.faults = Faults(deaf_to_stop=True, slow=10.0)
    async with canceled(site, {**EXPOSE, "filter_id": 3}, command_id(1)) as proof:
        assert [said["device_uid"] for said in proof["devices"]] == [
            str(telescope.camera.uid),
            str(telescope.filter_wheel.uid),
        ]
        assert not shows_rest(proof)


async def test_what_moves_again_by_itself_is_written_down_as_nobodys_command(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, command_id: CommandIds
) -> None:
    focuser = site.telescopes[0].focuser
    focuser.faults.moves_again_after_s = 5.0
    async with canceled(site, MOVE, command_id(1)):
        await sim_clock.sleep(60)
    assert focuser.place == 20_000
    assert [(entry.action, entry.command_id is None) for entry in site.journal.entries()] == [
        (Action.FOCUSER_MOVING, False),
        (Action.FOCUSER_STOPPED, False),
        (Action.FOCUSER_MOVING, True),
        (Action.FOCUSER_REACHED, True),
    ]


def fails(device: Device) -> None:
    device.faults.fails_on_stop = "The controller does not answer."


async def test_a_stop_that_fails_at_one_device_reaches_the_others(
    autojump_clock: MockClock, site: Site, nursery: trio.Nursery, sim_clock: SimClock, command_id: CommandIds
) -> None:
    telescope = site.telescopes[0]
    fails(telescope.mount)
    nursery.start_soon(site.execute, MOVE, command_id(1))
    await sim_clock.sleep(2)
    stop = await site.execute({"command_type": "telescope.stop"}, command_id(2))
    assert not telescope.focuser.is_moving
    assert stop.status is ExecutionStatus.FAILED


@pytest.mark.parametrize("failing", [lambda site: site.telescopes[0].camera, lambda site: site.telescopes[0].focuser])
async def test_a_camera_or_focuser_that_fails_to_stop_leaves_no_roof_open(
    autojump_clock: MockClock, site: Site, command_id: CommandIds, failing: Callable[[Site], Device]
) -> None:
    await site.enclosure.open(Order(cause="test"))
    await site.telescopes[0].mount.unpark(Order(cause="test"))
    fails(failing(site))
    shutdown = await site.execute({"command_type": "telescope.safe_shutdown"}, command_id(1))
    assert (site.telescopes[0].mount.is_parked, site.enclosure.is_closed) == (True, True)
    assert shutdown.status is ExecutionStatus.FAILED


async def test_a_stop_that_fails_interrupts_nothing(
    autojump_clock: MockClock, site: Site, nursery: trio.Nursery, sim_clock: SimClock
) -> None:
    focuser = site.telescopes[0].focuser
    order = Order(cause="test")
    nursery.start_soon(focuser.move, order, 20_000)
    await sim_clock.sleep(2)
    fails(focuser)
    with pytest.raises(DeviceFault):
        focuser.stop(order)
    assert focuser.holder == "test"
    assert focuser.is_moving
