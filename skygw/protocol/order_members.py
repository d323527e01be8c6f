"""What a caller may say of a command, by HTTP and on a socket: what accompanies a stop may be wrong, and the stop still
goes (contract §0.1).
"""

from dataclasses import replace
from typing import Annotated, Any, Literal

from pydantic import (
    BaseModel,
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
from skygw.protocol.json_text import JsonObject, Opaque
from skygw.protocol.safing import is_safing

MAX_TIMEOUT_S = 86_400

LEASE_FAMILY = "lease."
"""Published command types which are for the gateway itself, and never carried to a node."""

ESSENTIAL = frozenset({"telescope_uid", "device_uid", "command_id", "command"})
"""What of a stop can be wrong."""

Timeout = Annotated[float, Field(gt=0, le=MAX_TIMEOUT_S, allow_inf_nan=False)]


def _or_unsaid(value: Any, validate: ValidatorFunctionWrapHandler) -> Any:
    """What makes no sense counts as not said."""
    try:
        return validate(value)
    except ValidationError:
        return None


OrUnsaid = WrapValidator(_or_unsaid)


class ActorBody(BaseModel):
    """The person behind the service; needs the scope `act_as`."""

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    uid: Annotated[str, Field(min_length=1, max_length=100)]
    kind: Annotated[str, Field(min_length=1, max_length=50)]


class CommandMembers(BaseModel):
    """A command for a telescope or a device. `timeout_s` is the whole budget of the node and the way there; where the
    node asks for more it may become `max_timeout_s`.
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
    graph_revision: Counter | None = None
    lease_uid: Annotated[LeaseUid | None, Field(description="The caller's lease of what is moved.")] = None
    validate_only: Annotated[
        bool, Field(strict=True, description="Say all that would refuse it; send and store nothing. Not for safing.")
    ] = False
    on_caller_gone: Literal["continue", "cancel"] = "continue"

    @model_validator(mode="after")
    def _one_target(self) -> "CommandMembers":
        if (self.telescope_uid is None) == (self.device_uid is None):
            raise ValueError("name one target: a telescope or a device")
        return self

    @model_validator(mode="after")
    def _more_is_more(self) -> "CommandMembers":
        if self.timeout_s is not None and self.max_timeout_s is not None and self.max_timeout_s < self.timeout_s:
            raise ValueError("the most it may take must not be less than what it is given at first")
        return self


class StopMembers(CommandMembers):
    """A stop: only its target, its id and the command itself can be wrong. The rest is taken as far as it makes sense;
    lease, dry run, fence, revision and unknown keys are not even looked at.
    """

    origin: Annotated[OpaqueObject | None, OrUnsaid] = None
    actor: Annotated[ActorBody | None, OrUnsaid] = None
    timeout_s: Annotated[Timeout | None, OrUnsaid] = None
    max_timeout_s: Annotated[None, BeforeValidator(lambda _: None)] = None
    graph_revision: Annotated[None, BeforeValidator(lambda _: None)] = None
    lease_uid: Annotated[None, BeforeValidator(lambda _: None)] = None
    validate_only: Annotated[Literal[False], BeforeValidator(lambda _: False)] = False
    on_caller_gone: Annotated[Literal["continue"], BeforeValidator(lambda _: "continue")] = "continue"


class CancelMembers(BaseModel):
    """How to cancel. A cancel is safing: what makes no sense here counts as not said."""

    mode: Annotated[
        CancelMode, BeforeValidator(lambda said: said if said in list(CancelMode) else CancelMode.GRACEFUL)
    ] = CancelMode.GRACEFUL
    actor: Annotated[ActorBody | None, OrUnsaid] = None


def is_stop(source: JsonObject) -> bool:
    """Whether this is an order to stop, whatever else stands in it."""
    command = source.value("command")
    said = command.get("command_type") if isinstance(command, dict) else None
    return isinstance(said, str) and is_safing(said)


def options_once(source: JsonObject) -> JsonObject:
    """Of an option in both spellings the camelCase one: for anything but a stop or a cancel this is refused."""
    kept = {name: member for name, member in source.members.items() if not _said_twice(name, source)}
    return replace(source, members=kept)


def _said_twice(name: str, source: JsonObject) -> bool:
    return to_camel(name) != name and to_camel(name) in source.members and name not in ESSENTIAL


def misfit(command: Opaque, *where: str) -> Invalid | None:
    """What of a known command cannot be right; `where` leads to it. A stop always fits."""
    command_type = command.value.get("command_type")
    if not isinstance(command_type, str) or is_safing(command_type):
        return None
    found = misfits(command_type, command.value)
    if not found:
        return None
    fields = [{**field, "loc": [*where, *field["loc"]]} for field in found]
    first = found[0]
    at = ".".join(str(step) for step in first["loc"])
    return Invalid(f"This is no {command_type}: {at}: {first['msg']}.", fields=fields)
