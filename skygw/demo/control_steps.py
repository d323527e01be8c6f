"""The steps that show control: a lease is taken, nobody else moves the telescope, and an abort is proved."""

from dataclasses import replace
from uuid import UUID, uuid4

import trio

from skygw.client.caller import Caller
from skygw.client.control_lease import ControlLease
from skygw.demo.hardware_steps import COMMAND_S, SLOWNESS, command
from skygw.demo.stage import Stage, StepFailed, expect, one_device, until
from skygw.demo.tokens import service_token
from skygw.errors import GatewayError, LeaseHeld, LeaseRequired
from skygw.ids import CommandId
from skygw.protocol.gateway_frames import CancelMode
from skygw.sim.journal import Action, effects_of, movers_of

OPERATOR = {"uid": "anna", "kind": "user"}
STRANGER = "night-watch"
UNPARK = {"command_type": "mount.unpark"}
PARK = {"command_type": "mount.park"}
FAR_AWAY = {"position_type": "horizontal", "alt_deg": 60.0, "az_deg": 100.0}


async def take_control(stage: Stage, nursery: trio.Nursery) -> tuple[Stage, str]:
    """Without a lease nothing moves; then there is one, held in the nursery, and the node knows of it too."""
    refused = CommandId(uuid4())
    problem = await _refusal(stage.caller, stage, refused)
    expect(isinstance(problem, LeaseRequired), f"a command without a lease was answered with {problem!r}")
    _expect_unmoved(stage, refused)
    lease: ControlLease = await nursery.start(_hold, stage)
    await until(lambda: any(held.fence == lease.fence for held in stage.plain.telescope_node.client.leases))
    return replace(stage, lease=lease), (
        f"without one 409 {problem.reason}; now demo for {OPERATOR['uid']} has control for {lease.duration_s:.0f} s "
        f"and renews it, and the node knows fence {lease.fence}"
    )


async def _hold(stage: Stage, *, task_status: trio.TaskStatus[ControlLease]) -> None:
    async with stage.caller.lease(telescope_uid=stage.plain.site.telescopes[0].uid, actor=OPERATOR) as lease:
        task_status.started(lease)
        await trio.sleep_forever()


async def another_service(stage: Stage) -> str:
    """A service that has no control gets none and moves nothing, not even with the holder's secret."""
    gateway, telescope = stage.gateway, stage.plain.site.telescopes[0]
    token = service_token(gateway.key, audience=gateway.settings.internal_audiences[0], service=STRANGER)
    moved = movers_of(telescope.mount.uid, stage.plain.journal.entries())
    bare, stolen = CommandId(uuid4()), CommandId(uuid4())
    async with Caller(gateway.running.internal_url, token) as stranger:
        try:
            async with stranger.lease(telescope_uid=telescope.uid):
                raise StepFailed("a second lease was given")
        except LeaseHeld as error:
            denied = error
        without = await _refusal(stranger, stage, bare)
        with_secret = await _refusal(stranger, stage, stolen, stage.lease)
    holder = {"service": "demo", "actor": OPERATOR}
    for problem in (denied, without):
        expect(
            isinstance(problem, LeaseHeld) and problem.details.get("holder") == holder,
            f"the answer does not say who has control: {problem!r}",
        )
    expect(isinstance(with_secret, LeaseRequired), f"the holder's secret in other hands: {with_secret!r}")
    _expect_unmoved(stage, bare, stolen)
    expect(
        movers_of(telescope.mount.uid, stage.plain.journal.entries()) == moved, "the mount moved on somebody's account"
    )
    until_when = denied.details["expiresAt"][11:19]
    return (
        f"{STRANGER}: 409 {denied.reason} by {holder['service']} for {OPERATOR['uid']} until {until_when} UTC; "
        f"with the holder's leaseUid 409 {with_secret.reason}; the mount did not move"
    )


async def _refusal(
    caller: Caller, stage: Stage, command_id: CommandId, lease: ControlLease | None = None
) -> GatewayError:
    """Why this caller cannot park the mount, showing no more of the lease than its secret."""
    try:
        record = await caller.command(
            PARK,
            command_id=command_id,
            telescope_uid=stage.plain.site.telescopes[0].uid,
            lease_uid=None if lease is None else lease.lease_uid,
        )
    except GatewayError as error:
        return error
    raise StepFailed(f"a command of somebody without control was taken: it is {record['state']}")


def _expect_unmoved(stage: Stage, *command_ids: CommandId) -> None:
    entries = stage.plain.journal.entries()
    moved = [entry.action.value for command_id in command_ids for entry in effects_of(command_id, entries)]
    expect(not moved, f"the device journal has {moved} by a command that was refused")


async def abort(stage: Stage) -> str:
    """A cancel in the middle of a slew: interrupted is said on what was read back, and the mount stands."""
    mount = stage.plain.site.telescopes[0].mount
    mount.faults.slow = SLOWNESS
    try:
        sent = await command(stage, {"command_type": "mount.point", "target": FAR_AWAY}, wait_s=0)
        command_id = CommandId(UUID(sent["commandId"]))
        await until(lambda: mount.is_moving)
        asked_at = trio.current_time()
        receipt = await stage.caller.cancel_command(command_id, mode=CancelMode.IMMEDIATE, wait_s=COMMAND_S)
        took_ms = 1000 * (trio.current_time() - asked_at)
    finally:
        mount.faults.slow = 1.0
    expect(receipt.receipt == "interrupted", f"the receipt says {receipt.receipt}")
    proof = one_device({"proof": receipt.proof})
    expect(
        (proof["state"], proof["basis"]) == ("stopped", "read_back"), f"read back: {proof['state']} ({proof['basis']})"
    )
    of_mount = [entry for entry in stage.plain.journal.entries() if entry.device_uid == str(mount.uid)]
    by_command = [entry.action for entry in of_mount if entry.command_id == str(command_id)]
    expect(
        by_command[-1:] == [Action.SLEW_STOPPED] and Action.SLEW_REACHED not in by_command and not mount.is_moving,
        f"the device journal has {[action.value for action in by_command]}",
    )
    expect(of_mount[-1].action is Action.SLEW_STOPPED, f"after the proof the mount did this: {of_mount[-1].action}")
    return (
        f"interrupted, told after {took_ms:.0f} ms: “{proof['state']}” by {proof['samples']} readings, "
        "and the device journal ends with the slew that was stopped"
    )
