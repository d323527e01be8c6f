"""The frames a gateway sends to a node (contract §5, «from the gateway»)."""

from enum import StrEnum
from typing import Annotated, Literal
from uuid import UUID

from pydantic import Field

from skygw.ids import CallId, CommandId, DeviceUid, Epoch, OutboxUid, RegistryUid, SessionUid, TaskUid, TelescopeUid
from skygw.protocol.frame import (
    MAX_SEQ,
    Counter,
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
from skygw.protocol.limits import Limits
from skygw.protocol.node_frames import Error, Ping, Pong
from skygw.protocol.streams import EventLive, EventSubscriptionEnded, StaleReason, StreamName

EpochNumber = Annotated[Epoch, Field(strict=True, ge=0, le=MAX_SEQ)]


class LinkLossPolicy(StrEnum):
    """What a node does by itself when the link is gone for longer than it can tolerate."""

    FINISH = "finish"
    STOP = "stop"
    SAFE_SHUTDOWN = "safe_shutdown"


class OnExpiry(StrEnum):
    """What a node does by itself when a lease ends without its holder, or nothing is heard of that one."""

    FINISH = "finish"
    STOP = "stop"
    SAFE_SHUTDOWN = "safe_shutdown"


class LeaseEnd(StrEnum):
    """How a lease ended. `superseded`: the ledger was older than what the node knew, and control is given anew."""

    RELEASED = "released"
    BROKEN = "broken"
    EXPIRED = "expired"
    SUPERSEDED = "superseded"


class TaskDirective(StrEnum):
    """What the hub wants of a task that runs: `stop` ends it in order, `abort` at once."""

    CONTINUE = "continue"
    STOP = "stop"
    ABORT = "abort"


class CancelMode(StrEnum):
    GRACEFUL = "graceful"
    IMMEDIATE = "immediate"


class TokenState(StrEnum):
    RENEWED = "renewed"
    GRACE = "grace"


class Welcome(Frame):
    """Answers a valid `hello`. `t_ms` counts from here: milliseconds of the gateway's monotonic clock."""

    kind: Literal["welcome"] = "welcome"
    session_uid: SessionUid
    epoch: EpochNumber
    registry_uid: RegistryUid
    heartbeat_s: Seconds
    limits: Limits
    graph_revision: Counter | None = None
    server_time: Timestamp
    acked_seq: Counter
    link_loss_policy: LinkLossPolicy
    t_ms: Milliseconds


class Ack(Frame):
    """Everything in this outbox up to `seq` is committed."""

    kind: Literal["ack"] = "ack"
    seq: Counter
    outbox_uid: OutboxUid


class Nack(Frame):
    """This one will never be taken; the cursor moves past it."""

    kind: Literal["nack"] = "nack"
    seq: Seq
    outbox_uid: OutboxUid
    reason: Message


class EventCommand(Frame):
    """A command to run. `deadline_ms` is what remained of the caller's time at `t_ms`; the transit comes off it.

    Without it (safing) the command is never late. Up to `deadline_max_ms`, counted from `t_ms` too, the node may take
    more time if it says so; without it nothing more. `fence` is that of `fence_uid`, the telescope or device whose
    lease it goes under; without `fence_uid` that of the device named, or else of the telescope.
    """

    kind: Literal["event_command"] = "event_command"
    command_id: CommandId
    telescope_uid: TelescopeUid | None = None
    device_uid: DeviceUid | None = None
    command: OpaqueObject
    origin: OpaqueObject | None = None
    actor: OpaqueObject | None = None
    deadline_ms: Milliseconds | None = None
    deadline_max_ms: Milliseconds | None = None
    epoch: EpochNumber
    t_ms: Milliseconds
    fence: Counter | None = None
    fence_uid: UUID | None = None
    graph_revision: Counter | None = None
    issued_at: Timestamp
    traceparent: ShortText | None = None


class EventManualControlLease(Frame):
    """Who has control of a telescope, or of an enclosure with a lease of its own, at `t_ms`. Without a `holder` nobody
    has: what came under a lower fence is over, and `ended` is how. The times count from `t_ms`; `revision` grows with
    each renewal.
    """

    kind: Literal["event_manual_control_lease"] = "event_manual_control_lease"
    telescope_uid: TelescopeUid | None = None
    enclosure_uid: DeviceUid | None = None
    holder: OpaqueObject | None = None
    fence: Counter
    revision: Counter = 0
    expires_in_ms: Milliseconds = 0
    warn_in_ms: Milliseconds | None = None
    on_expiry: OnExpiry | None = None
    deadman_ms: Milliseconds | None = None
    ended: LeaseEnd | None = None
    t_ms: Milliseconds


class EventTaskChanged(Frame):
    """What the hub wants of a task has changed, at `t_ms`. Told again after a `welcome` for as long as it is wanted."""

    kind: Literal["event_task_changed"] = "event_task_changed"
    task_uid: TaskUid
    telescope_uid: TelescopeUid | None = None
    directive: TaskDirective
    reason: ShortText | None = None
    t_ms: Milliseconds


class EventTasksAvailable(Frame):
    """There are tasks to claim at this telescope, at `t_ms`. `task_uids` are some of those the node was not told of in
    this session.
    """

    kind: Literal["event_tasks_available"] = "event_tasks_available"
    telescope_uid: TelescopeUid
    task_uids: Annotated[tuple[TaskUid, ...], Field(max_length=100)]
    t_ms: Milliseconds


class EventGraphChanged(Frame):
    """The hardware graph of the node's observatory has a newer revision: `GET /v1/nodes/me/hardware` has it. It may be
    told of one that the node has already, and once of several.
    """

    kind: Literal["event_graph_changed"] = "event_graph_changed"
    revision: Counter
    observatory_uid: UUID


class CancelCommand(Frame):
    """Stops a command, wherever it is in its life. Safing: never late, never stale."""

    kind: Literal["cancel_command"] = "cancel_command"
    command_id: CommandId
    mode: CancelMode
    grace_ms: Milliseconds | None = None
    epoch: EpochNumber
    t_ms: Milliseconds


class QueryCommand(Frame):
    """Asks what became of commands; the node answers with `publish_command_result` for each it remembers."""

    kind: Literal["query_command"] = "query_command"
    command_ids: Annotated[tuple[CommandId, ...], Field(max_length=1_000)]


class DirectRequest(Frame):
    """Asks the node to read or transfer something. `id` is the gateway's; `credit` counts payload bytes."""

    kind: Literal["direct_request"] = "direct_request"
    id: CallId
    operation: Annotated[str, Field(max_length=100)]
    params: OpaqueObject
    offset: Counter | None = None
    length: Counter | None = None
    if_digest: Sha256 | None = None
    deadline_ms: Milliseconds
    credit: Counter
    epoch: EpochNumber
    t_ms: Milliseconds
    traceparent: ShortText | None = None


class DirectCredit(Frame):
    """Lets the node send `bytes` more of a response."""

    kind: Literal["direct_credit"] = "direct_credit"
    id: CallId
    bytes: Counter


class DirectCancel(Frame):
    """Nobody waits for this response any more."""

    kind: Literal["direct_cancel"] = "direct_cancel"
    id: CallId
    reason: ShortText


class EventToken(Frame):
    """What the gateway holds of the socket's token. In `grace` only telemetry and safing pass, until `expires_at`."""

    kind: Literal["event_token"] = "event_token"
    state: TokenState
    expires_at: Timestamp


class FollowedSnapshot(Frame):
    """The latest state of a resource elsewhere that this node follows: `age_ms` old at `t_ms`, and the transit adds to
    it. `stale` says why it is not to be taken for the present, whatever its age.
    """

    subscription_id: ShortText
    uid: UUID
    data: OpaqueObject
    observed_at: Timestamp
    age_ms: Milliseconds
    t_ms: Milliseconds
    max_silence_s: Seconds | None = None
    stale: StaleReason | None = None


class EventDeviceSnapshot(FollowedSnapshot):
    """The state of a device, an enclosure or a weather sensor run elsewhere."""

    kind: Literal["event_device_snapshot"] = "event_device_snapshot"


class EventTelescopeSnapshot(FollowedSnapshot):
    """The state of a telescope."""

    kind: Literal["event_telescope_snapshot"] = "event_telescope_snapshot"


class EventConstraintSnapshot(FollowedSnapshot):
    """What an operational constraint asks."""

    kind: Literal["event_constraint_snapshot"] = "event_constraint_snapshot"


class EventConstraintStatusSnapshot(FollowedSnapshot):
    """Whether an operational constraint is met."""

    kind: Literal["event_constraint_status_snapshot"] = "event_constraint_status_snapshot"


class EventShutdownInterlockSnapshot(FollowedSnapshot):
    """Whether something forces a shutdown."""

    kind: Literal["event_shutdown_interlock_snapshot"] = "event_shutdown_interlock_snapshot"


FOLLOWED: dict[StreamName, type[FollowedSnapshot]] = {
    StreamName.DEVICE_SNAPSHOT: EventDeviceSnapshot,
    StreamName.TELESCOPE_SNAPSHOT: EventTelescopeSnapshot,
    StreamName.CONSTRAINT_SNAPSHOT: EventConstraintSnapshot,
    StreamName.CONSTRAINT_STATUS_SNAPSHOT: EventConstraintStatusSnapshot,
    StreamName.SHUTDOWN_INTERLOCK_SNAPSHOT: EventShutdownInterlockSnapshot,
}
"""What a node may follow, and the frame it is told in."""


class Goaway(Frame):
    """The socket is about to be closed; come back after `reconnect_after_ms`, already jittered."""

    kind: Literal["goaway"] = "goaway"
    reason: Message
    reconnect_after_ms: Milliseconds


GatewayFrame = (
    Welcome
    | Ack
    | Nack
    | EventCommand
    | EventManualControlLease
    | EventTaskChanged
    | EventTasksAvailable
    | EventGraphChanged
    | CancelCommand
    | QueryCommand
    | DirectRequest
    | DirectCredit
    | DirectCancel
    | EventToken
    | EventDeviceSnapshot
    | EventTelescopeSnapshot
    | EventConstraintSnapshot
    | EventConstraintStatusSnapshot
    | EventShutdownInterlockSnapshot
    | EventLive
    | EventSubscriptionEnded
    | Goaway
    | Error
    | Ping
    | Pong
)
