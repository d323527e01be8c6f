"""One stream socket from its upgrade to its goodbye: a reader, a writer, and the replays of its subscriptions."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import time
from typing import Protocol

import trio

from skygw.errors import GatewayError, RoutingUnavailable
from skygw.protocol.close_codes import CloseCode, fitted_reason
from skygw.protocol.codec import BadFrame, ProtocolViolation, encode, from_subscriber
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import EventToken, TokenState
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import AuthRefresh, Error, ErrorCode, Ping, Pong
from skygw.protocol.streams import SubscribeStream, SubscriptionAck, UnsubscribeStream
from skygw.protocol.subscriber_frames import SubscriberFrame
from skygw.telemetry.dialects import AS_PUBLISHED, WITH_EXTENSIONS
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.logged_subscription import LoggedSubscription
from skygw.telemetry.outlet import AnswersPileUp, SubscriberOutlet
from skygw.websocket import Fault, LinkClosed, Sent

log = logging.getLogger("skygw.telemetry")

LAST_WORDS_S = 1.0
"""How long the close frame may take."""

WsCode = Callable[[GatewayError], ErrorCode]
Renew = Callable[[str], Awaitable[float]]
"""When a newer token of the same service expires. Raises `GatewayError`."""


class SubscriberLink(Protocol):
    """What is wanted of a WebSocket; see `skygw.websocket.WebSocket`."""

    async def receive(self) -> Sequence[str | bytes]: ...
    async def send(self, messages: Sequence[str | bytes], sent: Sent) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
    def abort(self) -> None: ...


class SubscriberSession:
    """Runs one socket. `expires_at` of its token: seconds of the epoch. `owner` is the service, for the log."""

    def __init__(
        self,
        link: SubscriberLink,
        hub: StreamHub,
        *,
        owner: str,
        expires_at: float,
        renew: Renew,
        code_of: WsCode,
        extensions: bool,
    ) -> None:
        self._link = link
        self._hub = hub
        self._owner = owner
        self._expires_at = expires_at
        self._renew = renew
        self._code_of = code_of
        self._outlet = SubscriberOutlet(WITH_EXTENSIONS if extensions else AS_PUBLISHED, owner=owner)
        self._token_changed = trio.Event()
        self._checking_token = False

    async def run(self) -> None:
        """Until either side ends it. Never raises for what the peer does; cancelled, the connection is dropped."""
        goodbye: tuple[int, str] = (0, "")
        ended_in_order = False
        try:
            async with trio.open_nursery() as nursery:
                goodbye = await self._serve(nursery)
                ended_in_order = True
                nursery.cancel_scope.cancel()
        finally:
            self._outlet.close()
            if not ended_in_order:
                self._link.abort()
        if goodbye[0]:
            await self._say_goodbye(*goodbye)

    async def _serve(self, nursery: trio.Nursery) -> tuple[int, str]:
        """Why it ended: a close code and a reason, or 0 where the link has ended already."""
        ended, ending = trio.open_memory_channel[tuple[int, str]](3)
        nursery.start_soon(self._write, ended)
        nursery.start_soon(self._read, nursery, ended)
        nursery.start_soon(self._watch_token, ended)
        return await ending.receive()

    async def _say_goodbye(self, code: int, reason: str) -> None:
        with trio.move_on_after(LAST_WORDS_S) as patience, suppress(LinkClosed):
            await self._link.close(code, fitted_reason(reason))
        if patience.cancelled_caught:
            self._link.abort()

    async def _write(self, ended: trio.MemorySendChannel[tuple[int, str]]) -> None:
        """The only task that sends: asks for messages when the socket has room for them."""
        while True:
            batch = await self._outlet.next()
            began = trio.current_time()
            try:
                await self._link.send(batch, Sent())
            except LinkClosed as closed:
                if closed.fault is Fault.DOES_NOT_READ:
                    log.warning(
                        "subscriber does not read",
                        extra={
                            "service": self._owner,
                            "for_s": round(trio.current_time() - began, 1),
                            "subscriptions": len(self._outlet),
                            "why": closed.reason,
                        },
                    )
                    ended.send_nowait((CloseCode.SLOW_CONSUMER, "it does not read"))
                else:
                    ended.send_nowait((0, closed.reason))
                return

    async def _read(self, nursery: trio.Nursery, ended: trio.MemorySendChannel[tuple[int, str]]) -> None:
        """The only task that receives. Waits for nothing but the socket: for what it brings, and, when much was asked
        at once, for the answers to leave, which the deadline of the write bounds.
        """
        try:
            while True:
                for message in await self._link.receive():
                    await self._take_message(message, nursery)
                    await self._outlet.room_for_answers()
        except ProtocolViolation as violation:
            ended.send_nowait((CloseCode.PROTOCOL_VIOLATION, str(violation)))
        except AnswersPileUp as flood:
            ended.send_nowait((CloseCode.SLOW_CONSUMER, str(flood)))
        except LinkClosed as closed:
            ended.send_nowait((0, closed.reason))

    async def _take_message(self, message: str | bytes, nursery: trio.Nursery) -> None:
        """To subscribe to a fleet takes a millisecond or more: others have their turn between such frames."""
        if isinstance(message, bytes):
            raise ProtocolViolation("a binary message: this socket speaks text")
        for item in from_subscriber.decode(message):
            if isinstance(item, BadFrame):
                self._refuse(item.id, ErrorCode.INVALID, item.message, "invalid")
            else:
                self._take(item.frame, nursery)
                if isinstance(item.frame, SubscribeStream):
                    await trio.lowlevel.checkpoint()

    def _take(self, frame: SubscriberFrame, nursery: trio.Nursery) -> None:
        match frame:
            case SubscribeStream():
                self._subscribe(frame, nursery)
            case UnsubscribeStream():
                if self._outlet.remove(frame.subscription_id):
                    self._say(SubscriptionAck(subscription_id=frame.subscription_id))
                else:
                    message = f"There is no subscription {frame.subscription_id!r} on this socket."
                    self._refuse(frame.subscription_id, ErrorCode.NOT_FOUND, message, "not_found")
            case AuthRefresh():
                if self._checking_token:
                    message = "A token is being checked already; wait for the answer."
                    self._refuse(None, ErrorCode.CONFLICT, message, "busy")
                else:
                    self._checking_token = True
                    nursery.start_soon(self._refresh, frame.token)
            case Ping():
                self._say(Pong(id=frame.id))
            case Pong():
                return  # the link itself notices who is gone

    def _subscribe(self, frame: SubscribeStream, nursery: trio.Nursery) -> None:
        try:
            subscription = self._hub.subscribe(self._outlet, frame)
        except GatewayError as error:
            self._refuse(frame.subscription_id, self._code_of(error), error.message, error.reason)
            return
        # Answers leave before what subscriptions have to say.
        self._say(SubscriptionAck(subscription_id=frame.subscription_id, server_time=datetime.now(UTC)))
        if isinstance(subscription, LoggedSubscription):
            nursery.start_soon(subscription.run, self._hub.log, self._hub.feed.position)

    def _say(self, frame: Frame) -> None:
        self._outlet.say(encode(frame))

    def _refuse(self, about: str | None, code: ErrorCode, message: str, reason: str) -> None:
        self._say(Error(code=code, message=message, id=about, details=Opaque.of({"reason": reason})))

    # The token.

    async def _watch_token(self, ended: trio.MemorySendChannel[tuple[int, str]]) -> None:
        while True:
            with trio.move_on_after(max(0.0, self._expires_at - time())):
                await self._token_changed.wait()
                continue
            ended.send_nowait((CloseCode.TOKEN_EXPIRED, "the token has expired; come back with a newer one"))
            return

    async def _refresh(self, token: str) -> None:
        try:
            expires_at = await self._renew(token)
        except GatewayError as error:
            code = ErrorCode.INTERNAL if isinstance(error, RoutingUnavailable) else ErrorCode.FORBIDDEN
            with suppress(AnswersPileUp):  # the reader will meet it too
                self._refuse(None, code, error.message, error.reason)
        else:
            self._expires_at = max(self._expires_at, expires_at)
            self._token_changed.set()
            self._token_changed = trio.Event()
            with suppress(AnswersPileUp):
                self._say(
                    EventToken(state=TokenState.RENEWED, expires_at=datetime.fromtimestamp(self._expires_at, UTC))
                )
        finally:
            self._checking_token = False
