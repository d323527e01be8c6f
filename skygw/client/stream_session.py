"""One life of a stream socket: asks for every subscription, hands on what comes, and notices what does not come."""

import logging
from collections import deque
from collections.abc import Callable, Collection
from itertools import count
from math import inf

import trio

from skygw.client.config import Token, TokenProvider
from skygw.client.link import Link, LinkEnded
from skygw.client.stream_items import Away, Said, Unreadable
from skygw.client.subscription import GatewayClock, Place, Subscription, Verdict
from skygw.protocol.close_codes import comeback_delay
from skygw.protocol.codec import encode
from skygw.protocol.frame import Frame
from skygw.protocol.node_frames import AuthRefresh, Pong
from skygw.protocol.streams import UnsubscribeStream
from skygw.websocket import LinkClosed

log = logging.getLogger("skygw.client")

SILENT_S = 25.0
"""A subscription is told something every 10 s (`BEAT_S` of the gateway); two and a half of these are too many."""

STEADY_S = 10.0
"""What goes on unbroken for so long may be resumed at once when it breaks."""

RENEW_AT = 0.75
"""The part of a token's life after which it is renewed."""
RENEW_AGAIN_S = 5.0

BATCH = 16
MAX_WAITING = 1_024
"""Answers to a gateway that asks and does not read."""

TURNS_TO_READ = 2
"""In which bytes that lie in the kernel reach whoever reads."""


class StreamSession:
    """Made when the link is open; `run` ends with it. `subscriptions` is the client's own list, and may change."""

    def __init__(
        self,
        link: Link,
        subscriptions: Collection[Subscription],
        *,
        token: Token,
        token_provider: TokenProvider,
        chance: Callable[[], float],
    ) -> None:
        self._link = link
        self._subscriptions = subscriptions
        self._token = token
        self._token_provider = token_provider
        self._chance = chance
        self._clock = GatewayClock()
        self._by_id: dict[str, Subscription] = {}
        self._numbers = count(1)
        self._outgoing: deque[str] = deque()
        self._wake = trio.Event()
        self._is_reading = True
        self._reading_since = trio.current_time()

    def wake(self) -> None:
        """There is a subscription to ask for."""
        self._wake.set()

    def forget(self, subscription: Subscription) -> None:
        """Its owner wants no more of it."""
        if self._by_id.pop(subscription.wire_id, None) is not None:
            self._say(UnsubscribeStream(subscription_id=subscription.wire_id))

    async def run(self) -> LinkEnded:
        """Works until the link ends and says how. Cancelled, a message may have been cut: the link has ended then."""
        ends: list[LinkEnded] = []
        try:
            async with trio.open_nursery() as nursery:
                for task in (self._link.keep, self._read, self._write, self._watch, self._renew_token):
                    nursery.start_soon(task)
        except* LinkClosed as group:
            ends += [LinkEnded.of(error) for error in group.exceptions if isinstance(error, LinkClosed)]
        except* LinkEnded as group:
            ends += [error for error in group.exceptions if isinstance(error, LinkEnded)]
        return next((end for end in ends if end.code is not None), ends[0])

    # Out.

    async def _write(self) -> None:
        """The only task that sends; a write has the link's own deadline."""
        while True:
            self._wake = trio.Event()
            ask_at = self._ask()
            batch = [self._outgoing.popleft() for _ in range(min(BATCH, len(self._outgoing)))]
            if batch:
                await self._link.send(batch)
                continue
            with trio.move_on_at(ask_at):
                await self._wake.wait()

    def _ask(self) -> float:
        """Asks for what is due, and returns when the next is."""
        ask_at = inf
        for subscription in self._subscriptions:
            if subscription.place is not Place.NOT_ASKED:
                continue
            if subscription.ask_at > trio.current_time():
                ask_at = min(ask_at, subscription.ask_at)
            else:
                wire_id = str(next(self._numbers))
                self._by_id[wire_id] = subscription
                self._outgoing.append(subscription.ask(wire_id))
        return ask_at

    def _say(self, frame: Frame) -> None:
        if len(self._outgoing) >= MAX_WAITING:
            raise LinkEnded("The gateway asks and does not read the answers.")
        self._outgoing.append(encode(frame))
        self._wake.set()

    # In.

    async def _read(self) -> None:
        """The only task that receives. While a subscription is full, nothing is read, and TCP tells the gateway."""
        while True:
            message = await self._link.receive_one()
            try:
                subscription = None if isinstance(message, bytes) else self._take(Said(message))
            except Unreadable as error:
                raise LinkEnded(f"The gateway said {error}.") from None
            if subscription is not None and subscription.is_full:
                self._is_reading = False
                await subscription.room()
                self._is_reading = True
                self._reading_since = trio.current_time()

    def _take(self, said: Said) -> Subscription | None:
        """Returns whose it was."""
        match said.kind:
            case "error":
                self._told_of_error(said)
                return None
            case "ping":
                self._say(Pong(id=said.text_or_none("id")))
                return None
            case "event_token":
                log.info("the gateway says of the token: %s", said.text("state"))
                return None
            case "pong":
                return None
        subscription = self._by_id.get(said.text("subscription_id"))
        if subscription is None:
            return None  # it was left, or asked for anew, while this was on its way
        if said.kind == "ack":
            self._told_of_ack(subscription, said)
            return None
        match subscription.take(said, self._clock):
            case Verdict.BROKEN:
                log.warning("messages of a subscription are missing; resuming", extra=_about(subscription))
                self._say(UnsubscribeStream(subscription_id=subscription.wire_id))
                self._resume(subscription, "Messages of this subscription are missing; it is resumed.")
            case Verdict.RESUME:
                self._resume(subscription, said.text_or_none("message") or said.text("reason"))
            case Verdict.OVER:
                self._by_id.pop(subscription.wire_id)
        return subscription

    def _told_of_ack(self, subscription: Subscription, said: Said) -> None:
        server_time = said.time_or_none("server_time")
        if server_time is not None:
            self._clock.told(server_time, asked_at=subscription.asked_at)
        subscription.stood()

    def _resume(self, subscription: Subscription, why: str) -> None:
        del self._by_id[subscription.wire_id]
        now = trio.current_time()
        attempt = 0 if now - subscription.asked_at >= STEADY_S else subscription.failures
        in_s = comeback_delay(code=None, attempt=attempt, chance=self._chance())
        subscription.failures = attempt + 1
        subscription.lose(Away(reason=why, again_in_s=in_s), ask_at=now + in_s)
        self._wake.set()

    def _told_of_error(self, said: Said) -> None:
        message = said.text("message")
        subscription = self._by_id.pop(said.text_or_none("id") or "", None)
        if subscription is None:
            log.warning("the gateway says: %s", message, extra={"about": said.text_or_none("id")})
            return
        details = said.members.get("details")
        reason = details.get("reason") if isinstance(details, dict) else None
        subscription.refuse(str(reason or said.text("code")), message, said.message)

    # What does not come, and what must not end.

    async def _watch(self) -> None:
        """Misses what should have come: the link itself is looked after by its own `keep`."""
        while True:
            silent_at = self._silent_at()
            if silent_at <= trio.current_time():
                # The process itself may have stood still: what has come meanwhile is read before anybody is blamed.
                for _ in range(TURNS_TO_READ):
                    await trio.lowlevel.checkpoint()
                silent_at = self._silent_at()
            if silent_at <= trio.current_time():
                raise LinkEnded(f"Nothing came of a subscription for {SILENT_S:.0f} s, not even a beat.")
            await trio.sleep_until(min(silent_at, trio.current_time() + SILENT_S))

    def _silent_at(self) -> float:
        if not self._is_reading:
            return inf
        expected = (one.heard_at for one in self._by_id.values() if one.place is not Place.REPLAYING)
        return max(min(expected, default=inf), self._reading_since) + SILENT_S

    async def _renew_token(self) -> None:
        lifetime_s = self._token.lifetime_s
        while lifetime_s is not None:
            await trio.sleep(lifetime_s * RENEW_AT)
            try:
                given = await self._token_provider()
            except Exception as error:  # noqa: BLE001 - not ours; the token we have still holds for a while
                log.warning("no newer token: %s", error)
                lifetime_s = max(lifetime_s * (1 - RENEW_AT), RENEW_AGAIN_S)
                continue
            token = as_token(given)
            self._say(AuthRefresh(token=token.value))
            lifetime_s = token.lifetime_s


def as_token(given: str | Token) -> Token:
    return given if isinstance(given, Token) else Token(given)


def _about(subscription: Subscription) -> dict[str, str]:
    return {"stream": subscription.stream.value, "subscription_id": subscription.wire_id}
