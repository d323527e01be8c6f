"""The frames of a stream socket: what a subscriber sends, and what it is answered beside events (contract §6)."""

from typing import Literal

from skygw.protocol.gateway_frames import EventToken
from skygw.protocol.node_frames import AuthRefresh, Error, Ping, Pong
from skygw.protocol.streams import (
    EventGap,
    EventLive,
    EventStale,
    EventSubscriptionEnded,
    SubscribeStream,
    SubscriptionAck,
    UnsubscribeStream,
)

SubscriberFrame = SubscribeStream | UnsubscribeStream | AuthRefresh | Ping | Pong

AnswerFrame = (
    SubscriptionAck | EventLive | EventGap | EventStale | EventSubscriptionEnded | EventToken | Error | Ping | Pong
)
"""…and `event_<stream>` for each stream, which is text that was carried and not a model that was written."""

SUBSCRIBER_SUBPROTOCOL: Literal["skynet.internal.v1"] = "skynet.internal.v1"
"""With it the kinds of ours are said: `event_live`, `event_gap`, `event_stale`, `event_subscription_ended`."""
