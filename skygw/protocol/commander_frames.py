"""The frames of a command socket: what a hub service sends, and what it is told (contract §3, §6)."""

from typing import Annotated, Any, Literal
from uuid import UUID

from pydantic import BaseModel, ConfigDict, Field, model_validator

from skygw.errors import Hop, Invalid, Outcome
from skygw.ids import CallId, CommandId, InstallId
from skygw.protocol.command_states import CommandState, ReceiptWord
from skygw.protocol.frame import (
    Counter,
    Fraction,
    Frame,
    Message,
    Milliseconds,
    OpaqueObject,
    Sha256,
    ShortText,
    Timestamp,
    read_model,
)
from skygw.protocol.gateway_frames import EventToken
from skygw.protocol.json_text import JsonObject, Opaque
from skygw.protocol.limits import MAX_CARRIED_BYTES
from skygw.protocol.node_frames import (
    AuthRefresh,
    DirectError,
    DirectResponseChunk,
    DirectResponseEnd,
    DirectResponseStart,
    Error,
    ErrorCode,
    Ping,
    Pong,
)
from skygw.protocol.order_members import (
    CancelMembers,
    CommandMembers,
    OrUnsaid,
    StopMembers,
    is_stop,
    options_once,
)
from skygw.protocol.streams import (
    EventGap,
    EventLive,
    EventSubscriptionEnded,
    StreamName,
    SubscribeStream,
    SubscriptionAck,
    UnsubscribeStream,
)

MAX_DIRECT_TIMEOUT_S = 3_600.0
MAX_CONNECT_WAIT_S = 600.0
MAX_GRACE_MS = 600_000

_Traceparent = Annotated[ShortText | None, OrUnsaid, Field(description="A broken one refuses nothing.")]


class PublishCommand(CommandMembers, Frame):
    """A command for a telescope or a device, answered by `event_command_result` for each step, or by `error`. Unknown
    members are refused: a misspelt option must not be ignored.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["publish_command"] = "publish_command"
    on_caller_gone: Annotated[
        Literal["continue", "cancel"],
        Field(description="`cancel`: if this socket ends before the command does. Not for safing."),
    ] = "continue"
    traceparent: _Traceparent = None


class PublishStop(StopMembers, PublishCommand):
    """The same, of a stop."""

    model_config = ConfigDict(extra="ignore")


class CancelPublished(CancelMembers, Frame):
    """Cancels a command, whoever has sent it. Safing: what makes no sense here counts as not said."""

    kind: Literal["cancel_command"] = "cancel_command"
    command_id: CommandId
    grace_ms: Annotated[
        Annotated[Milliseconds, Field(le=MAX_GRACE_MS)] | None,
        OrUnsaid,
        Field(description="What a graceful cancel may take before it becomes immediate."),
    ] = None


class SubscribeCommands(Frame):
    """Asks for the commands of everybody, or for what becomes of them; see `subscribe_stream`."""

    kind: Literal["subscribe_commands"] = "subscribe_commands"
    subscription_id: Annotated[str, Field(min_length=1, max_length=128)]
    stream: Literal["command", "command_result"]
    filter: OpaqueObject | None = None
    options: OpaqueObject | None = None

    def as_stream(self) -> SubscribeStream:
        return SubscribeStream(
            subscription_id=self.subscription_id,
            stream=StreamName(self.stream),
            filter=self.filter,
            options=self.options,
        )


class DirectAsked(Frame):
    """A direct request to a node. `id` is the caller's, a UUID that no other request under way here has; `timeout_s` is
    for everything, and `connect_wait_s` part of it.
    """

    model_config = ConfigDict(extra="forbid")

    kind: Literal["direct_request"] = "direct_request"
    id: CallId
    install_id: InstallId
    operation: Annotated[str, Field(min_length=1, max_length=100, pattern=r"^[a-z][a-z0-9_.]*$")]
    params: OpaqueObject
    timeout_s: Annotated[float, Field(gt=0, le=MAX_DIRECT_TIMEOUT_S, allow_inf_nan=False)] | None = None
    connect_wait_s: Annotated[float, Field(ge=0, le=MAX_CONNECT_WAIT_S, allow_inf_nan=False)] = 0.0
    offset: Counter | None = None
    length: Counter | None = None
    if_digest: Sha256 | None = None
    traceparent: _Traceparent = None


class DirectCanceled(Frame):
    """The caller wants no more of this answer; nothing of it comes behind the `direct_error` that says so."""

    kind: Literal["direct_cancel"] = "direct_cancel"
    id: CallId


CommanderFrame = (
    PublishCommand
    | CancelPublished
    | SubscribeCommands
    | UnsubscribeStream
    | DirectAsked
    | DirectCanceled
    | AuthRefresh
    | Ping
    | Pong
)


def read_publish(source: JsonObject) -> PublishCommand:
    """Whether it is a stop is decided first. Raises `Invalid`."""
    _check_size(source)
    return read_model(PublishStop, options_once(source)) if is_stop(source) else read_model(PublishCommand, source)


def read_cancel(source: JsonObject) -> CancelPublished:
    """Raises `Invalid`."""
    return read_model(CancelPublished, options_once(source))


def read_direct(source: JsonObject) -> DirectAsked:
    """Raises `Invalid`."""
    _check_size(source)
    return read_model(DirectAsked, source)


def _check_size(source: JsonObject) -> None:
    if len(source.text.encode(errors="replace")) > MAX_CARRIED_BYTES:
        raise Invalid(f"over {MAX_CARRIED_BYTES} bytes, and it has to be carried in one frame")


# What it is told.

STEP_MEMBERS = ("command_id", "status", "outcome", "hop", "at")
EVENT_MEMBERS = ("subscription_id", "position", "received_at", "data")


def _one_of_both(schema: dict[str, Any]) -> None:
    """Either a step of a command of this socket, or an event of a subscription: each has members of its own."""
    schema["oneOf"] = [
        {"required": list(these), "not": {"anyOf": [{"required": [name]} for name in others]}}
        for these, others in ((STEP_MEMBERS, EVENT_MEMBERS), (EVENT_MEMBERS, STEP_MEMBERS))
    ]


class CommandEvent(Frame):
    """A command, as somebody has published it: an event of a subscription."""

    kind: Literal["event_command"] = "event_command"
    subscription_id: ShortText
    position: ShortText
    prev: ShortText | None
    install_id: UUID | None = None
    observed_at: Timestamp | None = None
    received_at: Timestamp
    data: OpaqueObject


class CommandResultEvent(Frame):
    """A step of a command that was published on this socket (`command_id`, …), or an event of a subscription, which has
    a `subscription_id`.
    """

    model_config = ConfigDict(json_schema_extra=_one_of_both)

    kind: Literal["event_command_result"] = "event_command_result"
    command_id: CommandId | None = None
    status: CommandState | None = None
    outcome: Outcome | None = None
    duplicate: bool | None = None
    progress: Fraction | None = None
    result: Opaque | None = None
    error: OpaqueObject | None = None
    proof: OpaqueObject | None = None
    canceled: ShortText | None = None
    detail: Message | None = None
    hop: Hop | None = None
    at: Timestamp | None = None
    subscription_id: ShortText | None = None
    position: ShortText | None = None
    prev: ShortText | None = None
    install_id: UUID | None = None
    observed_at: Timestamp | None = None
    received_at: Timestamp | None = None
    data: OpaqueObject | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> "CommandResultEvent":
        steps = [getattr(self, name) is not None for name in STEP_MEMBERS]
        events = [getattr(self, name) is not None for name in EVENT_MEMBERS]
        if not (all(steps) and not any(events)) and not (all(events) and not any(steps)):
            raise ValueError("is a step of a command, or an event of a subscription")
        return self


class CommandReceipt(Frame):
    """What became of a cancel (a kind of ours)."""

    kind: Literal["event_command_receipt"] = "event_command_receipt"
    command_id: CommandId
    receipt: ReceiptWord
    state: CommandState
    proof: OpaqueObject | None = None


class Refusal(BaseModel):
    """One thing that would refuse a command, as the `error` it would be."""

    model_config = ConfigDict(frozen=True)

    code: ErrorCode
    message: Message
    details: dict[str, Any]


class CommandValidation(Frame):
    """What a command would meet now; nothing was sent (a kind of ours). With `duplicate` the stored record would be the
    answer.
    """

    kind: Literal["event_command_validation"] = "event_command_validation"
    command_id: CommandId
    valid: bool
    duplicate: bool
    refusals: tuple[Refusal, ...]


CommanderAnswerFrame = (
    SubscriptionAck
    | CommandEvent
    | CommandResultEvent
    | CommandReceipt
    | CommandValidation
    | DirectResponseStart
    | DirectResponseChunk
    | DirectResponseEnd
    | DirectError
    | EventLive
    | EventGap
    | EventSubscriptionEnded
    | EventToken
    | Error
    | Ping
    | Pong
)
"""What is told of subscriptions is written by a dialect (`telemetry/dialects.py`), not from these models."""
