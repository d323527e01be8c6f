"""The streams by name, and what a subscriber may ask of them (contract §6; vocabulary, «StreamName»)."""

from enum import StrEnum
from typing import Annotated, Any, Literal, TypeVar
from uuid import UUID

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from skygw.errors import Invalid
from skygw.protocol.frame import Frame, Message, OpaqueObject, ShortText, Timestamp, read_model
from skygw.protocol.json_text import Opaque, read_object

MAX_FILTER_VALUES = 1_000
MAX_FIELDS = 100
MAX_RATE_HZ = 1_000.0
EARLIEST = "earliest"
"""As `after`: from the first event that is still kept."""


class StreamName(StrEnum):
    """The eight published streams and ours."""

    __hash__ = str.__hash__  # an enum's own is written in Python

    DEVICE_SNAPSHOT = "device_snapshot"
    TELESCOPE_SNAPSHOT = "telescope_snapshot"
    INSTRUMENT_SNAPSHOT = "instrument_snapshot"
    CONSTRAINT_SNAPSHOT = "constraint_snapshot"
    CONSTRAINT_STATUS_SNAPSHOT = "constraint_status_snapshot"
    SHUTDOWN_INTERLOCK_SNAPSHOT = "shutdown_interlock_snapshot"
    MANUAL_CONTROL_LEASE = "manual_control_lease"
    NODE_PRESENCE = "node_presence"
    TELESCOPE_LOG = "telescope_log"
    NODE_EVENT = "node_event"
    COMMAND = "command"
    COMMAND_RESULT = "command_result"
    TASK_REPORT = "task_report"
    ASSET = "asset"


RETAINED_STREAMS = frozenset(
    {
        StreamName.DEVICE_SNAPSHOT,
        StreamName.TELESCOPE_SNAPSHOT,
        StreamName.INSTRUMENT_SNAPSHOT,
        StreamName.CONSTRAINT_SNAPSHOT,
        StreamName.CONSTRAINT_STATUS_SNAPSHOT,
        StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT,
        StreamName.MANUAL_CONTROL_LEASE,
        StreamName.NODE_PRESENCE,
    }
)
"""One value per resource, the latest. The others are logged: every event once, in commit order."""


class StaleReason(StrEnum):
    """Why a retained value is not to be taken for the present."""

    SILENT = "silent"
    """Its node is here, and the resource was not heard of for longer than its node had promised."""
    NODE_OFFLINE = "node_offline"
    GATEWAY_RESTARTED = "gateway_restarted"
    """The value is of before; its node has not said it again yet."""


class EndReason(StrEnum):
    """Why a subscription ended without being asked to."""

    SLOW_CONSUMER = "slow_consumer"
    """More waited for it than it may have; resume from the position."""


def _listed(value: Any) -> Any:
    return value if isinstance(value, list | tuple) or value is None else (value,)


_Uids = Annotated[tuple[UUID, ...], BeforeValidator(_listed), Field(max_length=MAX_FILTER_VALUES)]
_Words = Annotated[
    tuple[Annotated[str, Field(max_length=64)], ...], BeforeValidator(_listed), Field(max_length=MAX_FILTER_VALUES)
]


class StreamFilter(BaseModel):
    """Which resources: each key is one value or a list, of which one must fit; all keys must.

    An absent key asks nothing; an empty list fits nothing.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    telescope_uid: _Uids | None = None
    observatory_uid: _Uids | None = None
    device_uid: _Uids | None = None
    device_type: _Words | None = None
    install_id: _Uids | None = None


class StreamOptions(BaseModel):
    """How to be told. `max_rate_hz` is per resource; `fields` are top-level members of `data` (retained streams only).

    `after` is a position of this stream, or `earliest` of a logged one; `include_unchanged` also tells of a value that
    was said again with the same bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True)

    include_existing: bool = True
    after: Annotated[str, Field(max_length=64)] | None = None
    max_rate_hz: Annotated[float, Field(gt=0, le=MAX_RATE_HZ, allow_inf_nan=False)] | None = None
    fields: Annotated[tuple[Annotated[str, Field(max_length=100)], ...], Field(max_length=MAX_FIELDS)] | None = None
    include_unchanged: bool = False


class SubscribeStream(Frame):
    """Asks for a stream. `subscription_id` is the subscriber's, and names every message of it on this socket."""

    kind: Literal["subscribe_stream"] = "subscribe_stream"
    subscription_id: Annotated[str, Field(min_length=1, max_length=128)]
    stream: StreamName
    filter: OpaqueObject | None = None
    options: OpaqueObject | None = None

    def asked_filter(self) -> StreamFilter:
        """Raises `Invalid`."""
        return StreamFilter() if self.filter is None else _read("filter", StreamFilter, self.filter)

    def asked_options(self) -> StreamOptions:
        """Raises `Invalid`."""
        return StreamOptions() if self.options is None else _read("options", StreamOptions, self.options)


ModelT = TypeVar("ModelT", bound=BaseModel)


def _read(member: str, model: type[ModelT], opaque: Opaque) -> ModelT:
    """The sentence of what it raises says in which member, and what that may hold; `fields` are as of the model."""
    try:
        return read_model(model, read_object(opaque.text))
    except Invalid as error:
        first = error.fields[0] if error.fields else None
        if first is None:
            message = f"{member}: {error.message}"
        elif first["type"] == "extra_forbidden":
            message = f"{member}.{str(first['loc'][0])[:64]} is not known here; known: {', '.join(model.model_fields)}."
        else:
            message = f"{member}.{error.message}"
        raise Invalid(message, fields=error.fields) from None


class UnsubscribeStream(Frame):
    """Ends a subscription; answered by `ack`."""

    kind: Literal["unsubscribe_stream"] = "unsubscribe_stream"
    subscription_id: Annotated[str, Field(min_length=1, max_length=128)]


class SubscriptionAck(Frame):
    """The subscription stands, or has ended as it was asked to. Comes before everything else of it.

    `server_time` is the clock that `received_at` goes by: with it a subscriber knows how old a value was already.
    """

    kind: Literal["ack"] = "ack"
    subscription_id: ShortText
    server_time: Timestamp | None = None


class EventLive(Frame):
    """Everything there was has been said; from here on it is news. As a beat: nothing was lost so far."""

    kind: Literal["event_live"] = "event_live"
    subscription_id: ShortText
    position: ShortText
    prev: ShortText | None = None


class EventGap(Frame):
    """Between `from` and `to` something was passed over: `count` is how many, if that is known; `reason` is why."""

    kind: Literal["event_gap"] = "event_gap"
    subscription_id: ShortText
    position: ShortText
    prev: ShortText | None = None
    from_: Annotated[ShortText | None, Field(alias="from")] = None
    to: ShortText
    count: int | None = None
    reason: ShortText
    install_id: UUID | None = None
    data: OpaqueObject | None = None


class EventStale(Frame):
    """What is known of this resource is no longer the present."""

    kind: Literal["event_stale"] = "event_stale"
    subscription_id: ShortText
    position: ShortText
    prev: ShortText | None = None
    uid: UUID
    last_observed_at: ShortText
    reason: StaleReason


class EventSubscriptionEnded(Frame):
    """The last word of a subscription. `position` is where to resume."""

    kind: Literal["event_subscription_ended"] = "event_subscription_ended"
    subscription_id: ShortText
    reason: EndReason
    position: ShortText | None = None
    message: Message
