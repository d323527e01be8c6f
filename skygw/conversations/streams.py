"""What is said on the stream socket: subscriptions, and their ends (contract §6)."""

from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from skygw.conversations.refusals import refusal
from skygw.errors import GatewayError, NotFound
from skygw.protocol.codec import BadFrame, Read, encode, from_subscriber
from skygw.protocol.streams import SubscribeStream, SubscriptionAck, UnsubscribeStream
from skygw.protocol.subscriber_frames import SubscriberFrame
from skygw.telemetry.dialects import AS_PUBLISHED, WITH_EXTENSIONS
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.logged_subscription import LoggedSubscription
from skygw.telemetry.outlet import SubscriberOutlet


class Subscriptions:
    """Of one socket, whatever else is said on it."""

    def __init__(self, hub: StreamHub, outlet: SubscriberOutlet) -> None:
        self._hub = hub
        self._outlet = outlet

    async def subscribe(self, asked: SubscribeStream, here: trio.Nursery) -> None:
        """Answers it. To subscribe to a fleet takes a millisecond or more: others have their turn then."""
        try:
            subscription = self._hub.subscribe(self._outlet, asked)
        except GatewayError as error:
            self._outlet.say(encode(refusal(error, asked.subscription_id)))
        else:
            # Answers leave before what subscriptions have to say.
            ack = SubscriptionAck(subscription_id=asked.subscription_id, server_time=datetime.now(UTC))
            self._outlet.say(encode(ack))
            if isinstance(subscription, LoggedSubscription):
                here.start_soon(subscription.run, self._hub.log, self._hub.feed.position)
        await trio.lowlevel.checkpoint()

    def unsubscribe(self, asked: UnsubscribeStream) -> None:
        if self._outlet.remove(asked.subscription_id):
            self._outlet.say(encode(SubscriptionAck(subscription_id=asked.subscription_id)))
        else:
            unknown = NotFound(f"There is no subscription {asked.subscription_id!r} on this socket.")
            self._outlet.say(encode(refusal(unknown, asked.subscription_id)))


class StreamConversation:
    """With `extensions` in our words, else in the published ones alone. `owner` is the service, for the log."""

    def __init__(self, hub: StreamHub, *, owner: str, extensions: bool) -> None:
        self.outlet = SubscriberOutlet(WITH_EXTENSIONS if extensions else AS_PUBLISHED, owner=owner)
        self._subscriptions = Subscriptions(hub, self.outlet)

    def decode(self, message: str) -> Sequence[Read[SubscriberFrame] | BadFrame]:
        return from_subscriber.decode(message)

    async def take(self, frame: SubscriberFrame, here: trio.Nursery, lasting: trio.Nursery) -> None:  # noqa: ARG002
        if isinstance(frame, SubscribeStream):
            await self._subscriptions.subscribe(frame, here)
        elif isinstance(frame, UnsubscribeStream):
            self._subscriptions.unsubscribe(frame)

    async def has_room(self) -> None:
        """When much was asked at once, waits for the answers to leave, which the deadline of the write bounds."""
        await self.outlet.room_for_answers()

    def ended(self, lasting: trio.Nursery) -> None:
        """Nothing outlives this socket."""
