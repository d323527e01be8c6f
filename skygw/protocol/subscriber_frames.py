"""The frames of a stream socket: what a subscriber sends, and what it is answered beside events (contract §6)."""

from typing import Literal
from uuid import UUID

from skygw.protocol.frame import Frame, OpaqueObject, Seconds, ShortText, Timestamp
from skygw.protocol.gateway_frames import EventToken
from skygw.protocol.node_frames import AuthRefresh, Error, Ping, Pong
from skygw.protocol.streams import (
    EventGap,
    EventLive,
    EventStale,
    EventSubscriptionEnded,
    StaleReason,
    SubscribeStream,
    SubscriptionAck,
    UnsubscribeStream,
)


class RetainedEvent(Frame):
    """The latest value of one resource, and whose it is. `stale` says why it is not to be taken for the present."""

    kind: Literal[
        "event_device_snapshot",
        "event_telescope_snapshot",
        "event_instrument_snapshot",
        "event_constraint_snapshot",
        "event_constraint_status_snapshot",
        "event_shutdown_interlock_snapshot",
        "event_manual_control_lease",
        "event_node_presence",
    ]
    subscription_id: ShortText
    position: ShortText
    prev: ShortText | None
    install_id: UUID
    stale: StaleReason | None = None
    max_silence_s: Seconds | None = None
    observed_at: Timestamp
    received_at: Timestamp
    data: OpaqueObject


class LoggedEvent(Frame):
    """One event, whole. `install_id` and `observed_at` are null for what the hub itself says."""

    kind: Literal[
        "event_telescope_log",
        "event_node_event",
        "event_command",
        "event_command_result",
        "event_task_report",
        "event_asset",
    ]
    subscription_id: ShortText
    position: ShortText
    prev: ShortText | None
    install_id: UUID | None = None
    observed_at: Timestamp | None = None
    received_at: Timestamp
    data: OpaqueObject


SubscriberFrame = SubscribeStream | UnsubscribeStream | AuthRefresh | Ping | Pong

AnswerFrame = (
    SubscriptionAck
    | RetainedEvent
    | LoggedEvent
    | EventLive
    | EventGap
    | EventStale
    | EventSubscriptionEnded
    | EventToken
    | Error
    | Ping
    | Pong
)
"""What is told of subscriptions is written by a dialect (`telemetry/dialects.py`), not from these models."""

SUBSCRIBER_SUBPROTOCOL: Literal["skynet.internal.v1"] = "skynet.internal.v1"
"""With it the kinds of ours are said: `event_live`, `event_gap`, `event_stale`, `event_subscription_ended`."""
