"""The bodies of commands and cancels, as they come by HTTP (contract §6)."""

from typing import Annotated, Any, Literal

from pydantic import BeforeValidator, ConfigDict, Field

from skygw.errors import Invalid
from skygw.protocol.order_members import (
    LEASE_FAMILY,
    CancelMembers,
    CommandMembers,
    OrUnsaid,
    StopMembers,
    is_stop,
    options_once,
)
from skygw.protocol.order_members import misfit as misfit_of
from skygw.protocol.safing import is_safing
from skygw.routers.schemas import MAX_WAIT_S, ActorBody, Body, Wait, invalid, read_json, validated


class CommandBody(Body, CommandMembers):
    """A command for a telescope or a device. `timeoutS` is the whole budget of the node and the way there; where the
    node asks for more it may become `maxTimeoutS`.
    """

    wait_s: Wait = 0.0
    on_caller_gone: Annotated[
        Literal["continue", "cancel"],
        Field(description="`cancel`: if the caller leaves during `waitS`, which must be given. Not for safing."),
    ] = "continue"


def _clamped(value: Any) -> float:
    """A wait that is possible: the nearest one to what was asked for, none if that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # NaN equals nothing
        return 0.0
    return float(min(max(value, 0), MAX_WAIT_S))


ClampedWait = Annotated[Wait, BeforeValidator(_clamped)]


class SafingBody(StopMembers, CommandBody):
    """A stop, whose wait is the nearest that is possible."""

    model_config = ConfigDict(extra="ignore")

    wait_s: ClampedWait = 0.0


class CancelBody(Body, CancelMembers):
    """How to cancel. `graceS` is what a graceful cancel may take before it becomes immediate. A cancel is safing: what
    makes no sense here counts as not said.
    """

    model_config = ConfigDict(extra="ignore")

    grace_s: Annotated[Wait | None, OrUnsaid] = None
    wait_s: ClampedWait = 0.0


class ResolveBody(Body):
    """An administrator's word on a command whose node cannot tell any more what became of it."""

    outcome: Annotated[
        Literal["succeeded", "failed", "refused", "canceled"],
        Field(description="What is known to have become of it; `failed` also closes what nobody will ever know."),
    ]
    reason: Annotated[
        str, Field(min_length=1, max_length=500, pattern=r"\S", description="How that is known; kept in the audit.")
    ]
    actor: ActorBody | None = None


def read_command(raw: bytes) -> CommandBody:
    """A command's body; whether it is a stop is decided first. Raises `Invalid`, which names the fields."""
    source = read_json(raw)
    if is_stop(source):
        return validated(SafingBody, options_once(source))
    body = validated(CommandBody, source)
    if body.on_caller_gone == "cancel" and body.wait_s == 0 and not body.validate_only:
        raise invalid(
            "Whoever does not wait cannot be seen to leave: give waitS, or leave onCallerGone out.",
            "body",
            "onCallerGone",
        )
    return body


def misfit(body: CommandBody) -> Invalid | None:
    """What of a known command cannot be right, or cannot be asked here. A stop always fits."""
    command_type = body.command.value.get("command_type")
    if isinstance(command_type, str) and command_type.startswith(LEASE_FAMILY) and not is_safing(command_type):
        return invalid(
            f"{command_type[:64]!r} is for no node: leases are asked for at POST /internal/leases, and at /renew and "
            "/release of one.",
            "body",
            "command",
            "command_type",
        )
    return misfit_of(body.command, "body", "command")


def read_resolve(raw: bytes) -> ResolveBody:
    """Raises `Invalid`, which names the fields."""
    return validated(ResolveBody, read_json(raw))


def read_cancel(raw: bytes) -> CancelBody:
    """A cancel's body, which may be empty. Raises `Invalid` if it is no JSON object."""
    return validated(CancelBody, options_once(read_json(raw or b"{}")))
