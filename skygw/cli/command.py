"""`skygw command`: sends a command to a telescope or a device, follows it, and says what is known of its end."""

import math
import os
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from difflib import get_close_matches
from functools import partial
from typing import Annotated, Any
from uuid import UUID, uuid4

import trio
from cyclopts import App, Parameter

from skygw.cli.command_desk import cancel, list_, resolve, show, types
from skygw.cli.command_members import command_of
from skygw.cli.command_pursuit import LOOK_S, Pursuit, tell
from skygw.cli.command_target import Kind, Target, as_said, find_target
from skygw.cli.command_words import failure
from skygw.cli.running_gateway import Reach, entrance, reach
from skygw.cli.terminal import AsJson, CommandFailed, ExitCode, Terminal
from skygw.client.caller import Caller, Validation
from skygw.errors import GatewayError, StartupError
from skygw.ids import CommandId, LeaseUid
from skygw.protocol.command_catalogue import KNOWN, known
from skygw.protocol.gateway_frames import OnExpiry
from skygw.protocol.safing import is_safing

ORIGIN = {"program": "skygw command"}
LONGEST_S = 86_400.0
LEASE_S = 60.0
"""Of a lease that is taken for one command: so long nobody else has control if this program dies."""

Flag = Parameter(negative="")

HOW_IT_ENDS = """Ctrl-C tells that the command goes on, and leaves after 3 s; a second one meanwhile cancels it.

Exit codes:
  0    it succeeded
  1    it failed
  2    the arguments are wrong
  3    the node refused it
  4    nothing was sent, and nothing will be
  5    what became of it is not known
  6    it was canceled
  7    it goes on: only the waiting has ended
  130  left by Ctrl-C: it goes on

Examples:
  skygw command North mount.park --take-lease
  skygw command 21ec2020-3aea-4069-a2dd-08002b30309d mount.point target.ra_deg=83.63 target.dec_deg=22.01
  skygw command list --state running
  skygw command cancel 5f1c0b9e-3d34-4a4f-9f0e-0d8a5f6c1a01"""

command = App(
    name="command",
    help="Send a command to a telescope or a device, and follow it to its end; or look at commands that were sent.",
    help_format="plaintext",
    help_epilogue=HOW_IT_ENDS,
)
for _one in (show, list_, cancel, resolve, types):
    command.command(_one, name=_one.__name__.rstrip("_"))


@dataclass(frozen=True, slots=True)
class _Order:
    command: dict[str, Any]
    command_id: CommandId
    timeout_s: float | None
    graph_revision: int | None
    lease_uid: LeaseUid | None
    take_lease: bool
    dry_run: bool


@command.default
def send(
    target: str,
    command_type: str,
    /,
    *members: str,
    json_body: str | None = None,
    kind: Kind | None = None,
    timeout_s: Annotated[float | None, Parameter(alias="--timeout")] = None,
    wait_s: Annotated[float | None, Parameter(alias="--wait")] = None,
    lease_uid: Annotated[str | None, Parameter(alias="--lease")] = None,
    take_lease: Annotated[bool, Flag] = False,
    id_: Annotated[UUID | None, Parameter(name="--id")] = None,
    graph_revision: int | None = None,
    dry_run: Annotated[bool, Flag] = False,
    cancel_on_ctrl_c: Annotated[bool, Flag] = False,
    reach_by: Reach | None = None,
    as_json: AsJson = False,
) -> int:
    """Send a command, show its steps, and say at the end what is known of it.

    Parameters
    ----------
    target
        Uid of a telescope or a device; or number, uid or name of the installation whose only telescope is meant.
    command_type
        What to do, such as mount.point: “skygw command types” lists those that are known. Others are carried as they
        are, and the node decides.
    members
        Members of the command as key=value, such as duration_s=10. A value is JSON or else text; a dot leads into an
        object: target.ra_deg=83.63.
    json_body
        Members of the command as a JSON object, beside those given as key=value.
    kind
        What the uid of the target is, where it need not be looked up.
    timeout_s
        Seconds it may take, the way included; the gateway's own unless given.
    wait_s
        Seconds to follow it, 0 for none; until its end unless given.
    lease_uid
        The leaseUid of your lease of what is moved; SKYGW_LEASE_UID, which other users do not see.
    take_lease
        Take control for this command, and give it back when it is followed no longer. If this program dies, the lease
        ends by itself, and what runs is let finish.
    id_
        A UUID of your own for it. The same id again is a question: what became of it?
    graph_revision
        Refuse it if the node's hardware graph has another revision.
    dry_run
        Say everything that would refuse it now; send nothing.
    cancel_on_ctrl_c
        Let the first Ctrl-C cancel it.
    """
    for flag, value, least in (("--timeout-s", timeout_s, 0.001), ("--wait-s", wait_s, 0.0)):
        if value is not None and not least <= value <= LONGEST_S:
            raise StartupError(f"{flag} is {value:g}, but should be from {least:g} to {LONGEST_S:g}")
    if take_lease and lease_uid is not None:
        raise StartupError("a lease is either shown, with --lease-uid, or taken, with --take-lease")
    if dry_run and is_safing(command_type):
        raise StartupError(f"there is no dry run of {command_type}: a stop is sent, whatever accompanies it")
    terminal = Terminal(as_json=as_json)
    order = _Order(
        command=command_of(command_type, members, json_body),
        command_id=CommandId(id_ or uuid4()),
        timeout_s=timeout_s,
        graph_revision=graph_revision,
        lease_uid=None if take_lease else _secret(lease_uid),
        take_lease=take_lease,
        dry_run=dry_run,
    )
    said = None if kind is None or (kind == "device" and take_lease) else as_said(target, kind)
    if kind is not None and as_said(target, kind) is None:
        raise StartupError(f"“{target[:80]}” is no uid of a {kind}: it is a UUID")
    if known(command_type) is None and not is_safing(command_type):
        terminal.note(f"{command_type} is not known here: the node decides.{_guess(command_type)}")
    return trio.run(
        partial(
            _run,
            order,
            said or target,
            wait_s=math.inf if wait_s is None else wait_s,
            cancel_on_ctrl_c=cancel_on_ctrl_c,
            by=reach_by,
            terminal=terminal,
        )
    )


async def _run(
    order: _Order, target: Target | str, *, wait_s: float, cancel_on_ctrl_c: bool, by: Reach | None, terminal: Terminal
) -> int:
    way_in = entrance(by)
    if isinstance(target, str):
        try:
            async with reach(by) as gateway:
                with terminal.progress("looking it up…"):
                    target = await find_target(target, gateway)
        except CommandFailed as failed:
            raise CommandFailed(str(failed), failed.problem, exit_code=ExitCode.NOT_SENT) from None
    async with Caller(way_in.url, way_in.token()) as caller:
        if order.dry_run:
            return _tell_validation(await _validate(order, target, caller), terminal)
        pursuit = Pursuit(
            order.command_id,
            caller=caller,
            way_in=way_in,
            terminal=terminal,
            wait_s=wait_s,
            cancel_on_ctrl_c=cancel_on_ctrl_c,
        )
        await _pursue(order, target, pursuit, caller=caller, wait_s=wait_s, terminal=terminal)
    return tell(pursuit, order.command_id, terminal)


async def _pursue(
    order: _Order, target: Target, pursuit: Pursuit, *, caller: Caller, wait_s: float, terminal: Terminal
) -> None:
    try:
        async with _control(order, target, caller) as lease_uid:
            send = partial(
                caller.command,
                order.command,
                command_id=order.command_id,
                telescope_uid=target.telescope_uid,
                device_uid=target.device_uid,
                timeout_s=order.timeout_s,
                wait_s=min(LOOK_S, wait_s),
                lease_uid=lease_uid,
                origin=ORIGIN,
                graph_revision=order.graph_revision,
            )
            await pursuit.run(send)
    except GatewayError as error:
        if not pursuit.may_be_sent:
            raise failure(error) from None
        terminal.complaint(f"control was lost meanwhile: {error}")
        await pursuit.run(None)


@asynccontextmanager
async def _control(order: _Order, target: Target, caller: Caller) -> AsyncIterator[LeaseUid | None]:
    if not order.take_lease:
        yield order.lease_uid
        return
    under = target.controlled_by
    async with caller.lease(
        telescope_uid=under.telescope_uid, device_uid=under.device_uid, duration_s=LEASE_S, on_expiry=OnExpiry.FINISH
    ) as lease:
        yield lease.lease_uid


async def _validate(order: _Order, target: Target, caller: Caller) -> Validation:
    try:
        async with _control(order, target, caller) as lease_uid:
            return await caller.validate_command(
                order.command,
                command_id=order.command_id,
                telescope_uid=target.telescope_uid,
                device_uid=target.device_uid,
                timeout_s=order.timeout_s,
                lease_uid=lease_uid,
                graph_revision=order.graph_revision,
            )
    except GatewayError as error:
        raise failure(error) from None


def _tell_validation(found: Validation, terminal: Terminal) -> int:
    if terminal.as_json:
        refusals = [{"detail": str(refusal), **failure(refusal).problem} for refusal in found.refusals]
        said = {"commandId": str(found.command_id), "valid": found.valid, "duplicate": found.duplicate}
        terminal.json({**said, "refusals": refusals})
    else:
        for refusal in found.refusals:
            terminal.line(f"{failure(refusal).problem['code']}: {refusal}")
        if found.duplicate:
            terminal.line("This id is known: what became of it would be the answer, and nothing would be sent.")
        elif found.valid:
            terminal.line("Nothing would refuse it now.")
    return ExitCode.OK if found.valid else ExitCode.NOT_SENT


def _secret(given: str | None) -> LeaseUid | None:
    said = given or os.environ.get("SKYGW_LEASE_UID")
    try:
        return None if not said else LeaseUid(UUID(said))
    except ValueError:
        raise StartupError("what was given as --lease-uid or SKYGW_LEASE_UID is no UUID") from None


def _guess(command_type: str) -> str:
    near = get_close_matches(command_type, [model.command_type for model in KNOWN], n=1)
    return f" Was {near[0]} meant?" if near else ""
