"""The bodies of commands and cancels: what accompanies a stop may be wrong, and the stop still goes (contract §0.1)."""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BeforeValidator,
    ConfigDict,
    Field,
    ValidationError,
    ValidatorFunctionWrapHandler,
    WrapValidator,
    model_validator,
)
from pydantic.alias_generators import to_camel

from skygw.errors import Invalid
from skygw.ids import CommandId, DeviceUid, LeaseUid, TelescopeUid
from skygw.protocol.command_catalogue import misfits
from skygw.protocol.frame import Counter, OpaqueObject
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.json_text import JsonObject
from skygw.protocol.safing import is_safing
from skygw.routers.schemas import MAX_WAIT_S, ActorBody, Body, Wait, invalid, read_json, validated

MAX_TIMEOUT_S = 86_400

Timeout = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S, allow_inf_nan=False)]


class CommandBody(Body):
    """A command for a telescope or a device. `timeoutS` is the whole budget of the node and the way there; where the
    node asks for more it may become `maxTimeoutS`.
    """

    telescope_uid: TelescopeUid | None = None
    device_uid: DeviceUid | None = None
    command_id: CommandId
    command: OpaqueObject
    origin: OpaqueObject | None = None
    actor: ActorBody | None = None
    timeout_s: Timeout | None = None
    max_timeout_s: Annotated[
        Timeout | None, Field(description="How long it may take at most if its node asks for more time.")
    ] = None
    wait_s: Wait = 0.0
    graph_revision: Counter | None = None
    lease_uid: Annotated[LeaseUid | None, Field(description="The caller's lease of what is moved.")] = None
    validate_only: Annotated[
        bool, Field(strict=True, description="Say all that would refuse it; send and store nothing. Not for safing.")
    ] = False
    on_caller_gone: Annotated[
        Literal["continue", "cancel"],
        Field(description="`cancel`: if the caller leaves during `waitS`, which must be given. Not for safing."),
    ] = "continue"

    @model_validator(mode="after")
    def _one_target(self) -> "CommandBody":
        if (self.telescope_uid is None) == (self.device_uid is None):
            raise ValueError("name either telescopeUid or deviceUid")
        return self

    @model_validator(mode="after")
    def _more_is_more(self) -> "CommandBody":
        if self.timeout_s is not None and self.max_timeout_s is not None and self.max_timeout_s < self.timeout_s:
            raise ValueError("maxTimeoutS must not be less than timeoutS")
        return self


def _clamped(value: Any) -> float:
    """A wait that is possible: the nearest one to what was asked for, none if that is no number."""
    if isinstance(value, bool) or not isinstance(value, int | float) or value != value:  # NaN equals nothing
        return 0.0
    return float(min(max(value, 0), MAX_WAIT_S))


def _or_unsaid(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """What makes no sense counts as not said."""
    try:
        return validate(value)
    except ValidationError:
        return None


ClampedWait = Annotated[Wait, BeforeValidator(_clamped)]
OrUnsaid = WrapValidator(_or_unsaid)


class SafingBody(CommandBody):
    """A stop: only its target, its id and the command itself can be wrong. The rest is taken as far as it makes sense;
    lease, dry run, fence, revision and unknown keys are not even looked at.
    """

    model_config = ConfigDict(extra="ignore")

    origin: Annotated[OpaqueObject | None, OrUnsaid] = None
    actor: Annotated[ActorBody | None, OrUnsaid] = None
    timeout_s: Annotated[Timeout | None, OrUnsaid] = None
    max_timeout_s: Annotated[None, BeforeValidator(lambda _: None)] = None
    wait_s: ClampedWait = 0.0
    graph_revision: Annotated[None, BeforeValidator(lambda _: None)] = None
    lease_uid: Annotated[None, BeforeValidator(lambda _: None)] = None
    validate_only: Annotated[Literal[False], BeforeValidator(lambda _: False)] = False
    on_caller_gone: Annotated[Literal["continue"], BeforeValidator(lambda _: "continue")] = "continue"


class CancelBody(Body):
    """How to cancel. `graceS` is what a graceful cancel may take before it becomes immediate. A cancel is safing: what
    makes no sense here counts as not said.
    """

    model_config = ConfigDict(extra="ignore")

    mode: Annotated[
        CancelMode, BeforeValidator(lambda said: said if said in list(CancelMode) else CancelMode.GRACEFUL)
    ] = CancelMode.GRACEFUL
    grace_s: Annotated[Wait | None, OrUnsaid] = None
    wait_s: ClampedWait = 0.0
    actor: Annotated[ActorBody | None, OrUnsaid] = None


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
    command = source.members.get("command")
    said = command.value.get("command_type") if command is not None and isinstance(command.value, dict) else None
    if isinstance(said, str) and is_safing(said):
        return validated(SafingBody, _options_once(source))
    body = validated(CommandBody, source)
    if body.on_caller_gone == "cancel" and body.wait_s == 0 and not body.validate_only:
        raise invalid(
            "Whoever does not wait cannot be seen to leave: give waitS, or leave onCallerGone out.",
            "body",
            "onCallerGone",
        )
    return body


def misfit(body: CommandBody) -> Invalid | None:
    """What of a known command cannot be right. A stop always fits."""
    command = body.command.value
    command_type = command.get("command_type")
    if not isinstance(command_type, str) or is_safing(command_type):
        return None
    found = misfits(command_type, command)
    if not found:
        return None
    fields = [{**field, "loc": ["body", "command", *field["loc"]]} for field in found]
    first = found[0]
    where = ".".join(str(step) for step in first["loc"])
    return Invalid(f"This is no {command_type}: {where}: {first['msg']}.", fields=fields)


def read_resolve(raw: bytes) -> ResolveBody:
    """Raises `Invalid`, which names the fields."""
    return validated(ResolveBody, read_json(raw))


def read_cancel(raw: bytes) -> CancelBody:
    """A cancel's body, which may be empty. Raises `Invalid` if it is no JSON object."""
    return validated(CancelBody, _options_once(read_json(raw or b"{}")))


def _options_once(source: JsonObject) -> JsonObject:
    """Of an option in both spellings the camelCase one: for anything but a stop this is refused."""
    kept = {name: member for name, member in source.members.items() if not _said_twice(name, source)}
    return replace(source, members=kept)


def _said_twice(name: str, source: JsonObject) -> bool:
    return to_camel(name) != name and to_camel(name) in source.members and not name.endswith("_uid")
