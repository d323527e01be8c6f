"""A site carries out commands, proves them by reading back, and lets a stop interrupt whatever moves."""

from typing import Any
from uuid import UUID

import pytest
import trio
from trio.testing import MockClock

from skygw.ids import DeviceUid, TelescopeUid
from skygw.protocol.safing import is_safing
from skygw.sim.clock import SimClock
from skygw.sim.devices.device import Refused
from skygw.sim.faults import Stall
from skygw.sim.installation import Execution, ExecutionStatus, Site
from skygw.sim.journal import Action, Order, done_twice, effects_of, movers_of
from skygw.sim.sky import M13
from tests.sim.conftest import Actions, CommandIds
from tests.sim.remembered_frames import RememberedFrames

ON_SITE = Order(cause="test")
TO_M13 = {"position_type": "equatorial", "ra_deg": M13.ra_deg, "dec_deg": M13.dec_deg}
SLEW = {"command_type": "mount.point", "target": TO_M13}
STOP = {"command_type": "mount.stop"}
SHUT_DOWN = {"command_type": "telescope.safe_shutdown"}


async def _begin_observing(site: Site) -> None:
    await site.enclosure.open(ON_SITE)
    for telescope in site.telescopes:
        await telescope.mount.unpark(ON_SITE)
        await telescope.mount.track(ON_SITE, M13)


def _actions_of(site: Site, device_uid: DeviceUid) -> list[Action]:
    return [entry.action for entry in site.journal.entries() if entry.device_uid == str(device_uid)]


@pytest.mark.parametrize(
    ("command", "device_type", "state"),
    [
        (SLEW, "mount", "stopped"),
        ({"command_type": "mount.track", "target": TO_M13}, "mount", "tracking"),
        (
            {
                "command_type": "mount.track",
                "target": {"position_type": "horizontal", "alt_deg": 45, "az_deg": 10},
                "offset_pattern": {"pattern_type": "daisy", "petals": 2, "radius_arcsec": 60},
            },
            "mount",
            "tracking",
        ),
        ({"command_type": "mount.offset_relative", "delta_arcsec": 30, "axis": "ra"}, "mount", "stopped"),
        ({"command_type": "mount.park"}, "mount", "parked"),
        ({"command_type": "mount.unpark"}, "mount", "stopped"),
        (STOP, "mount", "stopped"),
        ({"command_type": "camera.exposure.start", "duration_s": 5, "binning": 1}, "camera", "idle"),
        ({"command_type": "camera.exposure.abort"}, "camera", "idle"),
        ({"command_type": "filter_wheel.position.set", "position": 3}, "filter_wheel", "stopped"),
        ({"command_type": "focuser.move", "position": 9000}, "focuser", "stopped"),
        ({"command_type": "focuser.stop"}, "focuser", "stopped"),
        ({"command_type": "enclosure.open"}, "enclosure", "open"),
        ({"command_type": "enclosure.stop"}, "enclosure", "closed"),
    ],
    ids=lambda value: str(value.get("command_type")) if isinstance(value, dict) else str(value),
)
async def test_every_command_ends_completed_with_its_device_read_back(
    autojump_clock: MockClock,
    site: Site,
    command_id: CommandIds,
    command: dict[str, Any],
    device_type: str,
    state: str,
) -> None:
    await site.telescopes[0].mount.unpark(ON_SITE)
    execution = await site.execute(command, command_id(1))
    assert execution.status is ExecutionStatus.COMPLETED
    (proof,) = execution.proof["devices"]
    assert site.devices[DeviceUid(UUID(proof["device_uid"]))].device_type == device_type
    # After a stop it is looked at for longer than a driver may move late.
    samples, settled_ms = (7, 1200) if is_safing(command["command_type"]) else (2, 200)
    assert (proof["state"], proof["basis"]) == (state, "read_back")
    assert (proof["samples"], proof["settled_ms"]) == (samples, settled_ms)
    assert done_twice(site.journal.entries()) == {}


async def test_the_roof_closes_on_command_when_everything_is_parked(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    await site.enclosure.open(ON_SITE)
    execution = await site.execute({"command_type": "enclosure.close"}, command_id(1))
    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.proof["devices"][0]["state"] == "closed"


async def test_an_exposure_turns_the_wheel_first_and_returns_its_frame(
    autojump_clock: MockClock, site: Site, command_id: CommandIds, frames: RememberedFrames
) -> None:
    command = {"command_type": "camera.exposure.start", "duration_s": 5, "binning": 2, "filter_id": 4}
    execution = await site.execute(command, command_id(1))
    assert [entry.action for entry in effects_of(command_id(1), site.journal.entries())] == [
        Action.FILTER_WHEEL_MOVING,
        Action.EXPOSURE_STARTED,
    ]
    assert frames.exposures[0].filter_name == "R"
    assert execution.result["asset_uid"] == frames.exposures[0].asset_uid


async def test_the_wheel_does_not_turn_under_an_exposure_that_goes_on(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, nursery: trio.Nursery, command_id: CommandIds
) -> None:
    first = {"command_type": "camera.exposure.start", "duration_s": 60, "binning": 1}
    nursery.start_soon(site.execute, first, command_id(1))
    await sim_clock.sleep(5)
    second = await site.execute({**first, "filter_id": 4}, command_id(2))
    assert second.status is ExecutionStatus.REJECTED
    assert effects_of(command_id(2), site.journal.entries()) == []


async def test_an_abort_while_the_wheel_still_turns_keeps_the_shutter_closed(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, nursery: trio.Nursery, command_id: CommandIds
) -> None:
    exposure = {"command_type": "camera.exposure.start", "duration_s": 60, "binning": 1, "filter_id": 3}
    ends: list[Execution] = []

    async def expose() -> None:
        ends.append(await site.execute(exposure, command_id(1)))

    nursery.start_soon(expose)
    await sim_clock.sleep(1)
    await site.execute({"command_type": "camera.exposure.abort"}, command_id(2))
    await sim_clock.sleep(60)
    assert [execution.status for execution in ends] == [ExecutionStatus.CANCELED]
    assert Action.SHUTTER_OPENED not in _actions_of(site, site.telescopes[0].camera.uid)


@pytest.mark.parametrize(
    "command",
    [
        {},
        {"command_type": "mount.explode"},
        {"command_type": "mount.point"},
        {"command_type": "mount.point", "target": {"position_type": "equatorial", "ra_deg": 400, "dec_deg": 0}},
        {
            "command_type": "mount.point",
            "target": {"position_type": "equatorial", "ra_deg": 1, "dec_deg": float("nan")},
        },
        {"command_type": "camera.exposure.start", "duration_s": -1},
        {"command_type": "mount.offset_relative", "delta_arcsec": 1, "axis": "sideways"},
        {
            "command_type": "mount.track",
            "target": TO_M13,
            "offset_pattern": {"pattern_type": "raster", "rows": 10**9, "columns": 1, "step_arcsec": 1},
        },
    ],
    ids=str,
)
async def test_a_command_that_makes_no_sense_is_rejected_and_moves_nothing(
    site: Site, command_id: CommandIds, actions: Actions, command: dict[str, Any]
) -> None:
    execution = await site.execute(command, command_id(1))
    assert execution.status is ExecutionStatus.REJECTED
    assert execution.error is not None
    assert execution.error["code"] == "invalid"
    assert actions() == []


async def test_what_the_site_does_not_have_is_not_found(site: Site, shared_site: Site, command_id: CommandIds) -> None:
    elsewhere = shared_site.telescopes[0]
    by_device = await site.execute(STOP, command_id(1), device_uid=elsewhere.mount.uid)
    by_telescope = await site.execute(SHUT_DOWN, command_id(2), telescope_uid=elsewhere.uid)
    assert by_device.error is not None
    assert by_telescope.error is not None
    assert (by_device.error["code"], by_telescope.error["code"]) == ("not_found", "not_found")


async def test_a_command_for_another_kind_of_device_is_rejected(site: Site, command_id: CommandIds) -> None:
    execution = await site.execute(SLEW, command_id(1), device_uid=site.telescopes[0].camera.uid)
    assert execution.error is not None
    assert execution.error["details"]["reason"] == "wrong_device_type"


async def test_among_several_telescopes_a_moving_command_names_one(
    autojump_clock: MockClock, shared_site: Site, command_id: CommandIds
) -> None:
    chosen = shared_site.telescopes[1]
    await chosen.mount.unpark(ON_SITE)
    unclear = await shared_site.execute(SLEW, command_id(1))
    by_telescope = await shared_site.execute(SLEW, command_id(2), telescope_uid=chosen.uid)
    by_device = await shared_site.execute({"command_type": "mount.park"}, command_id(3), device_uid=chosen.mount.uid)
    assert unclear.error is not None
    assert unclear.error["details"]["reason"] == "ambiguous"
    assert by_telescope.status is ExecutionStatus.COMPLETED
    assert by_device.status is ExecutionStatus.COMPLETED
    assert movers_of(shared_site.telescopes[0].mount.uid, shared_site.journal.entries()) == []


async def test_a_stop_that_names_nobody_stops_every_mount(
    autojump_clock: MockClock, shared_site: Site, command_id: CommandIds
) -> None:
    await _begin_observing(shared_site)
    execution = await shared_site.execute(STOP, command_id(1))
    assert [proof["state"] for proof in execution.proof["devices"]] == ["stopped", "stopped", "stopped"]


async def test_a_stop_interrupts_a_slew_at_once_and_both_are_proven(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, nursery: trio.Nursery, command_id: CommandIds
) -> None:
    await site.telescopes[0].mount.unpark(ON_SITE)
    ends: list[Execution] = []
    ended = trio.Event()

    async def slew() -> None:
        ends.append(await site.execute(SLEW, command_id(1)))
        ended.set()

    nursery.start_soon(slew)
    await sim_clock.sleep(2)
    stopped_at = sim_clock.elapsed()
    stop = await site.execute(STOP, command_id(2))
    await ended.wait()

    (journaled,) = [entry for entry in site.journal.entries() if entry.action is Action.SLEW_STOPPED]
    assert journaled.elapsed_s == stopped_at
    assert journaled.command_id == str(command_id(2))
    assert stop.status is ExecutionStatus.COMPLETED
    assert stop.proof["devices"][0]["state"] == "stopped"
    (slewed,) = ends
    assert (slewed.status, slewed.canceled) == (ExecutionStatus.CANCELED, "interrupted")
    assert slewed.error is not None
    assert slewed.error["details"] == {"reason": "stopped", "by": str(command_id(2))}
    assert slewed.proof["devices"][0]["state"] == "stopped"


async def test_a_canceled_command_stops_its_device_and_can_be_proven_after(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    await site.telescopes[0].mount.unpark(ON_SITE)
    with trio.move_on_after(2) as scope:
        await site.execute(SLEW, command_id(1))
    proof = await site.prove_for(SLEW, command_id(1))
    assert scope.cancelled_caught
    assert (proof["devices"][0]["state"], proof["devices"][0]["basis"]) == ("stopped", "read_back")
    assert _actions_of(site, site.telescopes[0].mount.uid)[-1] is Action.SLEW_STOPPED


async def test_a_cancel_during_the_proof_comes_too_late(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    with trio.move_on_after(1.1) as scope:
        execution = await site.execute({"command_type": "mount.unpark"}, command_id(1))
    assert scope.cancel_called
    assert not scope.cancelled_caught
    assert execution.status is ExecutionStatus.COMPLETED


async def test_a_mount_that_goes_on_after_a_stop_is_seen_moving_by_the_proof(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, nursery: trio.Nursery, command_id: CommandIds
) -> None:
    mount = site.telescopes[0].mount
    await mount.unpark(ON_SITE)
    mount.faults.deaf_to_stop = True
    mount.faults.lies = {"state": "stopped", "is_slewing": False}
    mount.faults.slow = 10
    nursery.start_soon(site.execute, SLEW, command_id(1))
    await sim_clock.sleep(2)
    stop = await site.execute(STOP, command_id(2))
    (proof,) = stop.proof["devices"]
    assert (proof["state"], proof["basis"], proof["settled_ms"]) == ("moving", "read_back", None)
    assert (stop.status, stop.error and stop.error["details"]) == (ExecutionStatus.FAILED, {"reason": "not_at_rest"})


async def test_a_device_that_cannot_be_read_is_not_proven(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    site.telescopes[0].mount.faults.unreadable = True
    execution = await site.execute(STOP, command_id(1))
    (proof,) = execution.proof["devices"]
    assert (proof["state"], proof["basis"], proof["samples"]) == ("unknown", "assumed", 0)


async def test_a_fault_ends_failed_with_its_sentence(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    site.telescopes[0].focuser.faults.fail = "The focuser slipped."
    execution = await site.execute({"command_type": "focuser.move", "position": 0}, command_id(1))
    assert execution.status is ExecutionStatus.FAILED
    assert execution.error is not None
    assert execution.error["message"] == "The focuser slipped."
    assert execution.proof["devices"][0]["state"] == "stopped"


async def test_local_control_locks_everything_out_but_safing(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    site.local_control = True
    refused = await site.execute({"command_type": "mount.unpark"}, command_id(1))
    assert refused.error is not None
    assert refused.error["details"]["reason"] == "local_control"
    for number, safing in enumerate(
        (
            STOP,
            {"command_type": "camera.exposure.abort"},
            {"command_type": "focuser.stop"},
            {"command_type": "enclosure.stop"},
            SHUT_DOWN,
        ),
        start=2,
    ):
        assert (await site.execute(safing, command_id(number))).status is ExecutionStatus.COMPLETED


async def test_a_safe_shutdown_stops_then_parks_then_closes(
    autojump_clock: MockClock, site: Site, nursery: trio.Nursery, sim_clock: SimClock, command_id: CommandIds
) -> None:
    await _begin_observing(site)
    telescope = site.telescopes[0]
    exposure = {"command_type": "camera.exposure.start", "duration_s": 600, "binning": 1}
    nursery.start_soon(site.execute, exposure, command_id(1))
    await sim_clock.sleep(10)
    execution = await site.execute(SHUT_DOWN, command_id(2))

    assert execution.status is ExecutionStatus.COMPLETED
    assert execution.result == {"enclosure": "closed"}
    done = [entry.action for entry in site.journal.entries() if entry.command_id == str(command_id(2))]
    in_order = [
        Action.TRACKING_STOPPED,
        Action.EXPOSURE_ABORTED,
        Action.PARK_STARTED,
        Action.PARK_REACHED,
        Action.ROOF_MOVING,
        Action.ROOF_CLOSED,
    ]
    assert [action for action in done if action in in_order] == in_order
    assert telescope.mount.is_parked
    assert [proof["state"] for proof in execution.proof["devices"]] == [
        "parked",
        "idle",
        "stopped",
        "stopped",
        "closed",
    ]


async def test_a_safe_shutdown_preempts_a_slew_a_stuck_focuser_and_a_moving_roof(
    autojump_clock: MockClock, site: Site, nursery: trio.Nursery, sim_clock: SimClock, command_id: CommandIds
) -> None:
    telescope = site.telescopes[0]
    await telescope.mount.unpark(ON_SITE)
    telescope.focuser.faults.stall = Stall.STUCK
    under_way: list[dict[str, Any]] = [
        SLEW,
        {"command_type": "focuser.move", "position": 0},
        {"command_type": "enclosure.open"},
    ]
    for number, command in enumerate(under_way, start=1):
        nursery.start_soon(site.execute, command, command_id(number))
    await sim_clock.sleep(3)
    execution = await site.execute(SHUT_DOWN, command_id(9))
    assert execution.status is ExecutionStatus.COMPLETED
    assert telescope.mount.is_parked
    assert site.enclosure.is_closed
    assert telescope.focuser.holder is None


async def test_the_roof_stays_open_over_a_mount_that_did_not_park(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    await _begin_observing(site)
    site.telescopes[0].mount.faults.fail = "The mount lost its encoder."
    execution = await site.execute(SHUT_DOWN, command_id(1))
    assert execution.status is ExecutionStatus.FAILED
    assert site.enclosure.place == 1.0


async def test_the_last_telescope_to_shut_down_closes_the_shared_roof(
    autojump_clock: MockClock, shared_site: Site, command_id: CommandIds
) -> None:
    await _begin_observing(shared_site)
    results = []
    for number, telescope in enumerate(shared_site.telescopes, start=1):
        execution = await shared_site.execute(SHUT_DOWN, command_id(number), telescope_uid=telescope.uid)
        results.append(execution.result["enclosure"])
    assert results == ["left_open", "left_open", "closed"]


async def test_telescopes_shut_down_at_the_same_time_close_the_roof_once(
    autojump_clock: MockClock, shared_site: Site, command_id: CommandIds
) -> None:
    await _begin_observing(shared_site)
    ends: list[ExecutionStatus] = []

    async def shut_down(number: int, telescope_uid: TelescopeUid) -> None:
        ends.append((await shared_site.execute(SHUT_DOWN, command_id(number), telescope_uid=telescope_uid)).status)

    async with trio.open_nursery() as nursery:
        for number, telescope in enumerate(shared_site.telescopes, start=1):
            nursery.start_soon(shut_down, number, telescope.uid)
    assert ends == [ExecutionStatus.COMPLETED] * 3
    assert _actions_of(shared_site, shared_site.enclosure.uid).count(Action.ROOF_CLOSED) == 1


async def test_rain_makes_the_site_shut_itself_down_on_its_own_account(
    autojump_clock: MockClock, shared_site: Site, sim_clock: SimClock, nursery: trio.Nursery, command_id: CommandIds
) -> None:
    await _begin_observing(shared_site)
    nursery.start_soon(shared_site.watch_weather)
    await sim_clock.sleep(60)
    shared_site.weather_sensor.begin_rain()
    await sim_clock.sleep(300)
    refused = await shared_site.execute({"command_type": "enclosure.open"}, command_id(1))
    assert shared_site.enclosure.is_closed
    assert movers_of(shared_site.enclosure.uid, shared_site.journal.entries())[-1] == "policy: weather"
    assert refused.error is not None
    assert refused.error["details"]["reason"] == "interlock_active"


async def test_the_weather_policy_tries_again_after_a_failed_shutdown(
    autojump_clock: MockClock, site: Site, sim_clock: SimClock, nursery: trio.Nursery
) -> None:
    await _begin_observing(site)
    site.telescopes[0].mount.faults.fail = "The mount lost its encoder."
    nursery.start_soon(site.watch_weather)
    site.weather_sensor.begin_rain()
    await sim_clock.sleep(60)
    assert site.policy_problem == "The mount lost its encoder."
    assert not site.enclosure.is_closed
    site.telescopes[0].mount.faults.fail = None
    await sim_clock.sleep(120)
    assert site.policy_problem is None
    assert site.enclosure.is_closed


async def test_a_silent_weather_sensor_counts_as_bad_weather(
    autojump_clock: MockClock, site: Site, command_id: CommandIds
) -> None:
    site.weather_sensor.faults.unreadable = True
    execution = await site.execute({"command_type": "enclosure.open"}, command_id(1))
    assert execution.status is ExecutionStatus.REJECTED


async def test_proof_is_refused_for_what_is_not_here(site: Site, shared_site: Site, command_id: CommandIds) -> None:
    with pytest.raises(Refused):
        await site.prove_for(SLEW, command_id(1), telescope_uid=shared_site.telescopes[0].uid)


async def test_a_snapshot_says_whose_the_device_is(site: Site) -> None:
    telescope = site.telescopes[0]
    of_mount = site.snapshot_of(telescope.mount)
    of_roof = site.snapshot_of(site.enclosure)
    assert of_mount["telescope_uid"] == str(telescope.uid)
    assert of_roof["telescope_uid"] is None
    assert of_mount["observatory_uid"] == of_roof["observatory_uid"]
