"""The frames a node sends (contract §5, «from the node»)."""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from skygw.ids import BootId, CallId, CommandId, InstallId, InstanceUid, OutboxUid
from skygw.protocol.frame import (
    Counter,
    Fraction,
    Frame,
    Message,
    Milliseconds,
    OpaqueObject,
    Seconds,
    Seq,
    Sha256,
    ShortText,
    Timestamp,
)
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_TOKEN_BYTES
from skygw.protocol.streams import SubscribeStream, UnsubscribeStream

Kept = Annotated[int, Field(strict=True, ge=0, le=2**52)]
"""What a node kept of an epoch or fence. The gateway goes on above it, and what it then gives must still be exact for
every JSON reader; nobody comes near by connecting, only by a broken disk or on purpose.
"""


class NodeType(StrEnum):
    TELESCOPE = "telescope"
    OBSERVATORY = "observatory"


class SnapshotStream(StrEnum):
    """The published streams whose source is a node."""

    __hash__ = str.__hash__  # an enum's own is written in Python, and each snapshot is looked up by it

    DEVICE_SNAPSHOT = "device_snapshot"
    TELESCOPE_SNAPSHOT = "telescope_snapshot"
    INSTRUMENT_SNAPSHOT = "instrument_snapshot"
    CONSTRAINT_SNAPSHOT = "constraint_snapshot"
    CONSTRAINT_STATUS_SNAPSHOT = "constraint_status_snapshot"
    SHUTDOWN_INTERLOCK_SNAPSHOT = "shutdown_interlock_snapshot"


class CommandStatus(StrEnum):
    """What a node says of a command."""

    ACCEPTED = "accepted"
    RUNNING = "running"
    COMPLETED = "completed"
    FAILED = "failed"
    REJECTED = "rejected"
    CANCELED = "canceled"


class CanceledHow(StrEnum):
    """How a cancel met a command. With `not_cancelable` it goes on; with the others it has ended."""

    BEFORE_START = "before_start"
    INTERRUPTED = "interrupted"
    TOO_LATE = "too_late"
    NOT_CANCELABLE = "not_cancelable"


class Hello(Frame):
    """First on every socket, within 10 s. `last_epoch` and `last_fences` come from the node's own disk."""

    kind: Literal["hello"] = "hello"
    install_id: InstallId
    instance_uid: InstanceUid
    node_type: NodeType
    software_version: Annotated[str, Field(max_length=100)]
    boot_id: BootId
    outbox_uid: OutboxUid
    features: Annotated[tuple[Annotated[str, Field(max_length=64)], ...], Field(max_length=64)] = ()
    graph_revision: Counter | None = None
    last_epoch: Kept = 0
    last_fences: Annotated[dict[UUID, Kept], Field(max_length=256, default_factory=dict)]
    results: Annotated[tuple[CommandId, ...], Field(max_length=1_000)] = ()


class PublishSnapshot(Frame):
    """The state of one resource now. Newest wins by (session epoch, `live_seq`); never acked one by one."""

    kind: Literal["publish_snapshot"] = "publish_snapshot"
    stream: SnapshotStream
    data: OpaqueObject
    observed_at: Timestamp
    max_silence_s: Seconds | None = None
    live_seq: Counter


class PublishLog(Frame):
    """A durable line of the node's log."""

    kind: Literal["publish_log"] = "publish_log"
    seq: Seq
    data: OpaqueObject
    observed_at: Timestamp


class PublishEvent(Frame):
    """A durable event."""

    kind: Literal["publish_event"] = "publish_event"
    seq: Seq
    data: OpaqueObject
    observed_at: Timestamp


class PublishGap(Frame):
    """The node says that something is missing here (its disk was full, say). Never guessed by the gateway."""

    kind: Literal["publish_gap"] = "publish_gap"
    seq: Seq
    data: OpaqueObject
    observed_at: Timestamp


class PublishCommandResult(Frame):
    """A durable step in the life of a command. `deadline_ms` asks for more time: so much in all beyond the
    `deadline_ms` that came with the command, and no further than its `deadline_max_ms`.
    """

    kind: Literal["publish_command_result"] = "publish_command_result"
    seq: Seq
    command_id: CommandId
    status: CommandStatus
    progress: Fraction | None = None
    result: Opaque | None = None
    error: OpaqueObject | None = None
    proof: OpaqueObject | None = None
    canceled: CanceledHow | None = None
    deadline_ms: Milliseconds | None = None
    observed_at: Timestamp | None = None


class DirectResponseStart(Frame):
    """Opens the answer to a direct request. `total_size` is bytes, when the node knows it."""

    kind: Literal["direct_response_start"] = "direct_response_start"
    id: CallId
    content_type: Annotated[str, Field(max_length=100)]
    total_size: Counter | None = None
    metadata: OpaqueObject | None = None


class DirectResponseChunk(Frame):
    """One piece of an answer as text; the binary form (`chunks.py`) is the usual one. `data` is base64."""

    kind: Literal["direct_response_chunk"] = "direct_response_chunk"
    id: CallId
    seq: Counter
    data: str


class DirectResponseEnd(Frame):
    """Closes an answer: how many chunks and bytes there were, and the SHA-256 of the bytes in order."""

    kind: Literal["direct_response_end"] = "direct_response_end"
    id: CallId
    chunks: Counter
    total_size: Counter
    sha256: Sha256


class DirectError(Frame):
    """In place of `end`. `code` is one of the closed set, or the node's own word; `details.reason` is finer."""

    kind: Literal["direct_error"] = "direct_error"
    id: CallId
    code: Annotated[str, Field(max_length=64)]
    message: Message
    details: OpaqueObject | None = None


class AuthRefresh(Frame):
    """A newer token for this socket, answered by `event_token` or `error`."""

    kind: Literal["auth_refresh"] = "auth_refresh"
    token: Annotated[str, Field(max_length=MAX_TOKEN_BYTES)]


class Ping(Frame):
    """Asks for a `pong`. `t_ms` lets the node keep its estimate of the transit time fresh."""

    kind: Literal["ping"] = "ping"
    id: ShortText | None = None
    t_ms: Milliseconds | None = None


class Pong(Frame):
    """Answers a `ping` with its `id`."""

    kind: Literal["pong"] = "pong"
    id: ShortText | None = None


class ErrorCode(StrEnum):
    """The closed set of the published protocol; finer reasons are in `details.reason`."""

    INVALID = "invalid"
    FORBIDDEN = "forbidden"
    NOT_FOUND = "not_found"
    CONFLICT = "conflict"
    INTERNAL = "internal"


class Error(Frame):
    """Says what was wrong with a frame; `id` is that frame's `command_id`, `subscription_id` or `id`."""

    kind: Literal["error"] = "error"
    code: ErrorCode
    message: Message
    details: OpaqueObject | None = None
    id: ShortText | None = None


Durable = PublishLog | PublishEvent | PublishGap | PublishCommandResult
"""Acked once committed; `seq` counts all of them together."""

NodeFrame = (
    Hello
    | PublishSnapshot
    | PublishLog
    | PublishEvent
    | PublishGap
    | PublishCommandResult
    | DirectResponseStart
    | DirectResponseChunk
    | DirectResponseEnd
    | DirectError
    | AuthRefresh
    | SubscribeStream
    | UnsubscribeStream
    | Ping
    | Pong
    | Error
)
