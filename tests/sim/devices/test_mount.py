"""The mount takes its time, keeps to its limits, and stays where a stop caught it."""

import pytest
import trio
import trio.testing
from trio.testing import MockClock

from skygw.sim.clock import SimClock
from skygw.sim.coordinates import Equatorial, Horizontal, direction_of, equatorial_at, separation_deg
from skygw.sim.devices.device import DeviceFault, Preempted, Refused
from skygw.sim.devices.mount import PARK_POSITION, Mount
from skygw.sim.faults import Stall
from skygw.sim.installation import Site
from skygw.sim.journal import Action, Order, done_twice
from skygw.sim.offset_pattern import DaisyPattern, RasterPattern
from skygw.sim.sky import M13
from tests.sim.conftest import Actions, CommandIds

ON_SITE = Order(cause="test")


@pytest.fixture
async def mount(site: Site) -> Mount:
    """The mount of the site, unparked."""
    mount = site.telescopes[0].mount
    await mount.unpark(ON_SITE)
    return mount


def _apart(mount: Mount, position: Equatorial) -> float:
    return separation_deg(direction_of(mount.position), direction_of(position))


async def test_a_slew_takes_the_time_of_its_angle_at_the_slew_rate(
    autojump_clock: MockClock, mount: Mount, sim_clock: SimClock
) -> None:
    angle = _apart(mount, M13)
    began_at = sim_clock.elapsed()
    await mount.point(ON_SITE, M13)
    assert sim_clock.elapsed() - began_at == pytest.approx(angle / 4.0 + 1.0)
    assert _apart(mount, M13) < 1e-9
    assert mount.snapshot()["state"] == "stopped"


async def test_a_slew_to_where_it_points_only_settles(
    autojump_clock: MockClock, mount: Mount, sim_clock: SimClock, nursery: trio.Nursery
) -> None:
    await mount.point(ON_SITE, M13)
    nursery.start_soon(mount.point, ON_SITE, M13)
    await sim_clock.sleep(0.5)
    assert mount.snapshot()["state"] == "slewing"
    assert _apart(mount, M13) < 1e-9


async def test_a_slew_stopped_half_way_stays_half_way_and_the_journal_says_where(
    autojump_clock: MockClock,
    mount: Mount,
    site: Site,
    sim_clock: SimClock,
    nursery: trio.Nursery,
    command_id: CommandIds,
) -> None:
    whole = _apart(mount, M13)
    ends: list[BaseException] = []

    async def slew() -> None:
        try:
            await mount.point(Order(command_id(1)), M13)
        except Preempted as preempted:
            ends.append(preempted)

    nursery.start_soon(slew)
    await sim_clock.sleep((whole / 4.0 + 1.0) / 2)
    mount.stop(Order(command_id(2)))
    left = _apart(mount, M13)
    await sim_clock.sleep(600)

    assert left == pytest.approx(whole / 2)
    assert _apart(mount, M13) == left
    assert mount.snapshot()["state"] == "stopped"
    assert [str(end) for end in ends] == [f"Stopped by {command_id(2)}."]
    last = site.journal.entries()[-1]
    assert (last.action, last.command_id) == (Action.SLEW_STOPPED, str(command_id(2)))
    assert last.details["place"]["ra_deg"] == pytest.approx(mount.position.ra_deg)
    assert Action.SLEW_REACHED not in [entry.action for entry in site.journal.entries()]


async def test_a_canceled_slew_stops_under_its_own_command(
    autojump_clock: MockClock, mount: Mount, site: Site, sim_clock: SimClock, command_id: CommandIds
) -> None:
    with trio.move_on_after(3) as scope:
        await mount.point(Order(command_id(1)), M13)
    stands = mount.position
    await sim_clock.sleep(600)
    assert scope.cancelled_caught
    assert mount.position == stands
    last = site.journal.entries()[-1]
    assert (last.action, last.command_id, last.cause) == (Action.SLEW_STOPPED, str(command_id(1)), "canceled")


async def test_a_stopped_mount_takes_the_next_order_before_the_first_task_has_woken(
    autojump_clock: MockClock, mount: Mount, nursery: trio.Nursery, command_id: CommandIds, sim_clock: SimClock
) -> None:
    async def slew() -> None:
        with pytest.raises(Preempted):
            await mount.point(Order(command_id(1)), M13)

    nursery.start_soon(slew)
    await sim_clock.sleep(1)
    mount.stop(Order(command_id(2)))
    await mount.park(Order(command_id(2)))
    assert mount.is_parked


async def test_a_second_slew_is_refused_and_names_the_command_that_holds_the_mount(
    autojump_clock: MockClock, mount: Mount, nursery: trio.Nursery, command_id: CommandIds, sim_clock: SimClock
) -> None:
    nursery.start_soon(mount.point, Order(command_id(1)), M13)
    await sim_clock.sleep(1)
    with pytest.raises(Refused) as refusal:
        await mount.point(Order(command_id(2)), M13)
    assert refusal.value.reason == "device_busy"
    assert refusal.value.details == {"command_id": str(command_id(1))}


@pytest.mark.parametrize("alt_deg", [-30.0, 0.0, 14.9])
async def test_nothing_below_the_limit_is_pointed_at(
    autojump_clock: MockClock, mount: Mount, actions: Actions, alt_deg: float
) -> None:
    before = actions()
    with pytest.raises(Refused, match="altitude"):
        await mount.point(ON_SITE, Horizontal(alt_deg, 120.0))
    assert actions() == before


async def test_an_offset_does_not_lead_below_the_limit_either(autojump_clock: MockClock, mount: Mount) -> None:
    await mount.point(ON_SITE, Horizontal(15.5, 120.0))
    with pytest.raises(Refused, match="altitude"):
        await mount.offset_relative(ON_SITE, delta_arcsec=-3600, axis="alt")


async def test_a_parked_mount_does_not_slew(autojump_clock: MockClock, site: Site, actions: Actions) -> None:
    with pytest.raises(Refused) as refusal:
        await site.telescopes[0].mount.point(ON_SITE, M13)
    assert refusal.value.reason == "parked"
    assert actions() == []


async def test_tracking_survives_an_offset_and_ends_with_a_stop(
    autojump_clock: MockClock, mount: Mount, actions: Actions
) -> None:
    await mount.track(ON_SITE, M13)
    await mount.offset_relative(ON_SITE, delta_arcsec=30, axis="dec")
    assert mount.snapshot()["state"] == "tracking"
    mount.stop(ON_SITE)
    assert mount.snapshot()["state"] == "stopped"
    assert actions()[-1] is Action.TRACKING_STOPPED


@pytest.mark.parametrize("axis", ["ra", "dec", "alt", "az"])
async def test_an_offset_moves_by_its_angle_on_the_sky(autojump_clock: MockClock, mount: Mount, axis: str) -> None:
    await mount.track(ON_SITE, M13)
    await mount.offset_relative(ON_SITE, delta_arcsec=60, axis=axis)  # type: ignore[arg-type]
    assert _apart(mount, M13) * 3600 == pytest.approx(60, rel=1e-3)


async def test_an_offset_sent_twice_moves_twice_and_the_journal_tells(
    autojump_clock: MockClock, mount: Mount, site: Site, command_id: CommandIds
) -> None:
    await mount.track(ON_SITE, M13)
    for _time in range(2):
        await mount.offset_relative(Order(command_id(7)), delta_arcsec=60, axis="dec")
    assert _apart(mount, M13) * 3600 == pytest.approx(120)
    assert done_twice(site.journal.entries()) == {(str(command_id(7)), str(mount.uid), "offset_started"): 2}


async def test_parking_ends_in_the_park_position_and_again_moves_nothing(
    autojump_clock: MockClock, mount: Mount, site: Site, actions: Actions
) -> None:
    await mount.point(ON_SITE, M13)
    await mount.park(ON_SITE)
    before = actions()
    await mount.park(ON_SITE)
    assert actions() == before
    assert mount.snapshot()["state"] == "parked"
    assert _apart(mount, equatorial_at(PARK_POSITION, site.blueprint.place)) < 1e-9


async def test_a_stop_with_nothing_to_stop_is_written_down(
    autojump_clock: MockClock, mount: Mount, actions: Actions
) -> None:
    mount.stop(ON_SITE)
    assert actions()[-1] is Action.STOP_RECEIVED


async def test_a_raster_is_walked_around_the_target_and_tracking_goes_on(
    autojump_clock: MockClock, mount: Mount, site: Site, sim_clock: SimClock
) -> None:
    pattern = RasterPattern(pattern_type="raster", rows=2, columns=3, step_arcsec=10, dwell_s=5)
    await mount.point(ON_SITE, M13)
    began_at = sim_clock.elapsed()
    await mount.track(ON_SITE, M13, pattern)
    steps = [entry for entry in site.journal.entries() if entry.action is Action.OFFSET_REACHED]
    assert len(steps) == 7
    assert sim_clock.elapsed() - began_at >= 6 * 5
    assert _apart(mount, M13) < 1e-9
    assert mount.snapshot()["state"] == "tracking"


def test_a_raster_is_centred_and_walked_to_and_fro() -> None:
    pattern = RasterPattern(pattern_type="raster", rows=2, columns=2, step_arcsec=10)
    assert pattern.offsets_arcsec() == [(-5.0, -5.0), (5.0, -5.0), (5.0, 5.0), (-5.0, 5.0)]


def test_a_daisy_keeps_to_its_radius_and_begins_each_petal_at_the_centre() -> None:
    pattern = DaisyPattern(pattern_type="daisy", petals=4, radius_arcsec=60, points_per_petal=6)
    radii = [(east**2 + north**2) ** 0.5 for east, north in pattern.offsets_arcsec()]
    assert len(radii) == 24
    assert max(radii) == pytest.approx(60)
    assert radii[::6] == pytest.approx([0, 0, 0, 0])


async def test_a_stuck_slew_moves_nothing_and_can_be_stopped(
    autojump_clock: MockClock, mount: Mount, nursery: trio.Nursery, sim_clock: SimClock, actions: Actions
) -> None:
    mount.faults.stall = Stall.STUCK
    ended = trio.Event()

    async def slew() -> None:
        with pytest.raises(Preempted):
            await mount.point(ON_SITE, M13)
        ended.set()

    stands = mount.position
    nursery.start_soon(slew)
    await sim_clock.sleep(3600)
    assert not ended.is_set()
    assert mount.position == stands
    mount.stop(ON_SITE)
    await ended.wait()
    assert Action.SLEW_STARTED not in actions()


async def test_a_silent_slew_arrives_and_never_says_so(
    autojump_clock: MockClock, mount: Mount, actions: Actions
) -> None:
    mount.faults.stall = Stall.SILENT
    with trio.move_on_after(3600) as scope:
        await mount.point(ON_SITE, M13)
    assert scope.cancelled_caught
    assert _apart(mount, M13) < 1e-9
    assert Action.SLEW_REACHED in actions()


async def test_a_failing_slew_stays_where_it_failed(autojump_clock: MockClock, mount: Mount, site: Site) -> None:
    whole = _apart(mount, M13)
    mount.faults.fail = "The motor driver reports overcurrent."
    with pytest.raises(DeviceFault, match="overcurrent"):
        await mount.point(ON_SITE, M13)
    assert _apart(mount, M13) == pytest.approx(whole / 2)
    assert [entry.action for entry in site.journal.entries()][-2:] == [Action.FAULT, Action.SLEW_STOPPED]


async def test_a_slow_mount_takes_longer(autojump_clock: MockClock, mount: Mount, sim_clock: SimClock) -> None:
    expected = (_apart(mount, M13) / 4.0 + 1.0) * 3
    mount.faults.slow = 3
    began_at = sim_clock.elapsed()
    await mount.point(ON_SITE, M13)
    assert sim_clock.elapsed() - began_at == pytest.approx(expected)


async def test_a_liar_claims_to_stand_elsewhere_and_its_truth_can_still_be_judged(
    autojump_clock: MockClock, mount: Mount
) -> None:
    await mount.point(ON_SITE, M13)
    mount.faults.lies = {"ra_deg": 10.0, "is_parked": True}
    assert mount.snapshot()["ra_deg"] == 10.0
    assert mount.snapshot()["is_parked"] is True
    assert mount.truth()["ra_deg"] == pytest.approx(M13.ra_deg)
    assert not mount.is_parked


async def test_a_mount_deaf_to_stop_goes_on_and_its_arrival_is_still_journaled(
    autojump_clock: MockClock,
    mount: Mount,
    sim_clock: SimClock,
    nursery: trio.Nursery,
    site: Site,
    command_id: CommandIds,
) -> None:
    mount.faults.deaf_to_stop = True
    ended = trio.Event()

    async def slew() -> None:
        with pytest.raises(Preempted):
            await mount.point(Order(command_id(1)), M13)
        ended.set()

    nursery.start_soon(slew)
    await sim_clock.sleep(2)
    mount.stop(Order(command_id(2)))
    await ended.wait()
    assert mount.is_moving
    await sim_clock.sleep(600)
    assert _apart(mount, M13) < 1e-9
    last = site.journal.entries()[-1]
    assert (last.action, last.command_id) == (Action.SLEW_REACHED, str(command_id(1)))
