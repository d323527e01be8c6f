"""The camera takes the exposure's time, and an aborted exposure leaves no frame."""

import pytest
import trio
from trio.testing import MockClock

from skygw.sim.clock import SimClock
from skygw.sim.devices.camera import Camera
from skygw.sim.devices.device import DeviceFault, Preempted, Refused
from skygw.sim.faults import Stall
from skygw.sim.installation import Site
from skygw.sim.journal import Action, Order
from tests.sim.conftest import Actions, CommandIds
from tests.sim.remembered_frames import RememberedFrames

ON_SITE = Order(cause="test")


@pytest.fixture
async def camera(site: Site) -> Camera:
    return site.telescopes[0].camera


async def test_an_exposure_takes_its_simulated_time_and_the_readout(
    autojump_clock: MockClock, camera: Camera, sim_clock: SimClock, actions: Actions, frames: RememberedFrames
) -> None:
    began_at = sim_clock.elapsed()
    frame = await camera.expose(ON_SITE, duration_s=120, binning=2)
    assert sim_clock.elapsed() - began_at == pytest.approx(122)
    assert actions() == [
        Action.SHUTTER_OPENED,
        Action.EXPOSURE_STARTED,
        Action.EXPOSURE_ENDED,
        Action.SHUTTER_CLOSED,
        Action.READOUT,
        Action.FRAME_STORED,
    ]
    assert [(taken.duration_s, taken.binning) for taken in frames.exposures] == [(120, 2)]
    assert camera.snapshot()["last_asset_uid"] == frame.asset_uid


async def test_the_states_of_an_exposure_can_be_seen(
    autojump_clock: MockClock, camera: Camera, sim_clock: SimClock, nursery: trio.Nursery
) -> None:
    async def expose() -> None:
        await camera.expose(ON_SITE, duration_s=10, binning=1)

    nursery.start_soon(expose)
    await sim_clock.sleep(5)
    during = camera.snapshot()
    await sim_clock.sleep(6)
    after = camera.snapshot()
    await sim_clock.sleep(6)
    assert (during["state"], during["shutter"]) == ("exposing", "open")
    assert (after["state"], after["shutter"]) == ("reading", "closed")
    assert camera.snapshot()["state"] == "idle"


async def test_an_aborted_exposure_closes_the_shutter_and_leaves_no_frame(
    autojump_clock: MockClock,
    camera: Camera,
    site: Site,
    sim_clock: SimClock,
    nursery: trio.Nursery,
    frames: RememberedFrames,
    command_id: CommandIds,
) -> None:
    ended = trio.Event()

    async def expose() -> None:
        with pytest.raises(Preempted):
            await camera.expose(Order(command_id(1)), duration_s=600, binning=1)
        ended.set()

    nursery.start_soon(expose)
    await sim_clock.sleep(60)
    camera.stop(Order(command_id(2)))
    assert camera.snapshot()["shutter"] == "closed"
    await ended.wait()
    aborted, closed = site.journal.entries()[-2:]
    assert (aborted.action, closed.action) == (Action.EXPOSURE_ABORTED, Action.SHUTTER_CLOSED)
    assert aborted.details["exposed_s"] == pytest.approx(60)
    assert aborted.command_id == str(command_id(2))
    assert frames.exposures == []


@pytest.mark.parametrize(("seconds", "ends_with"), [(5, Action.SHUTTER_CLOSED), (11, Action.EXPOSURE_ABORTED)])
async def test_a_canceled_exposure_leaves_no_frame_in_any_phase(
    autojump_clock: MockClock,
    camera: Camera,
    actions: Actions,
    frames: RememberedFrames,
    seconds: float,
    ends_with: Action,
) -> None:
    with trio.move_on_after(seconds) as scope:
        await camera.expose(ON_SITE, duration_s=10, binning=1)
    assert scope.cancelled_caught
    assert actions()[-1] is ends_with
    assert Action.EXPOSURE_ABORTED in actions()
    assert frames.exposures == []
    assert camera.snapshot()["state"] == "idle"


async def test_a_camera_deaf_to_stop_stays_open_until_its_time_is_over(
    autojump_clock: MockClock, camera: Camera, sim_clock: SimClock, actions: Actions
) -> None:
    camera.faults.deaf_to_stop = True
    with trio.move_on_after(5):
        await camera.expose(ON_SITE, duration_s=10, binning=1)
    assert camera.snapshot()["shutter"] == "open"
    with pytest.raises(Refused, match="still exposes"):
        await camera.expose(ON_SITE, duration_s=10, binning=1)
    await sim_clock.sleep(5)
    assert camera.snapshot()["state"] == "idle"
    assert actions()[-2:] == [Action.EXPOSURE_ENDED, Action.SHUTTER_CLOSED]


async def test_a_full_disk_loses_the_frame_and_says_so(
    autojump_clock: MockClock, camera: Camera, frames: RememberedFrames, actions: Actions
) -> None:
    frames.full = True
    with pytest.raises(DeviceFault, match="full"):
        await camera.expose(ON_SITE, duration_s=1, binning=1)
    assert Action.EXPOSURE_ENDED in actions()
    assert Action.FRAME_STORED not in actions()
    assert Action.FAULT in actions()


async def test_a_silent_camera_stores_its_frame_and_does_not_answer(
    autojump_clock: MockClock, camera: Camera, frames: RememberedFrames
) -> None:
    camera.faults.stall = Stall.SILENT
    with trio.move_on_after(600) as scope:
        await camera.expose(ON_SITE, duration_s=1, binning=1)
    assert scope.cancelled_caught
    assert len(frames.exposures) == 1


async def test_every_exposure_is_a_frame_of_its_own(autojump_clock: MockClock, camera: Camera) -> None:
    first = await camera.expose(ON_SITE, duration_s=1, binning=1)
    second = await camera.expose(ON_SITE, duration_s=1, binning=1)
    assert first.asset_uid != second.asset_uid


async def test_the_chip_cools_to_its_set_point(autojump_clock: MockClock, camera: Camera, sim_clock: SimClock) -> None:
    assert camera.snapshot()["temperature_c"] == 8.0
    await sim_clock.sleep(3600)
    assert camera.snapshot()["temperature_c"] == -20.0
