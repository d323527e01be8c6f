"""One socket of a hub service from its upgrade to its goodbye: a reader, a writer, the token, and one conversation."""

import logging
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from datetime import UTC, datetime
from time import time
from typing import Any, Protocol

import trio

from skygw.conversations.refusals import refusal, refusal_of_frame
from skygw.errors import Busy, GatewayError
from skygw.protocol.close_codes import CloseCode, fitted_reason
from skygw.protocol.codec import BadFrame, ProtocolViolation, Read, encode
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import EventToken, TokenState
from skygw.protocol.node_frames import AuthRefresh, Ping, Pong
from skygw.telemetry.outlet import AnswersPileUp, SubscriberOutlet
from skygw.websocket import Fault, LinkClosed, Sent

log = logging.getLogger("skygw.conversations")

LAST_WORDS_S = 1.0
"""How long the close frame may take."""

Renew = Callable[[str], Awaitable[float]]
"""When a newer token of the same service expires. Raises `GatewayError`."""


class ServiceLink(Protocol):
    """What is wanted of a WebSocket; see `skygw.websocket.WebSocket`."""

    async def receive(self) -> Sequence[str | bytes]: ...
    async def send(self, messages: Sequence[str | bytes], sent: Sent) -> None: ...
    async def close(self, code: int, reason: str) -> None: ...
    def abort(self) -> None: ...


class Conversation(Protocol):
    """What frames are about, but for the token and pings. Nothing in it raises for what a peer says."""

    @property
    def outlet(self) -> SubscriberOutlet: ...

    def decode(self, message: str) -> Sequence[Read[Any] | BadFrame]:
        """Raises `ProtocolViolation` on broken framing."""
        ...

    async def take(self, frame: Any, here: trio.Nursery, lasting: trio.Nursery) -> None:
        """Tasks in `here` end with the socket, those in `lasting` are waited for. May raise `AnswersPileUp`."""
        ...

    async def has_room(self) -> None:
        """Returns when more may be read."""
        ...

    def ended(self, lasting: trio.Nursery) -> None:
        """The socket has ended."""
        ...


class ServiceSession:
    """Runs one socket. `expires_at` of its token: seconds of the epoch. `owner` is the service, for the log."""

    def __init__(
        self, link: ServiceLink, conversation: Conversation, *, owner: str, expires_at: float, renew: Renew
    ) -> None:
        self._link = link
        self._conversation = conversation
        self._outlet = conversation.outlet
        self._owner = owner
        self._expires_at = expires_at
        self._renew = renew
        self._token_changed = trio.Event()
        self._checking_token = False

    async def run(self) -> None:
        """Until either side ends it, and what lasts longer has ended too. Never raises for what the peer does;
        cancelled, the connection is dropped, and so is what lasts.
        """
        async with trio.open_nursery() as lasting:
            try:
                await self._run(lasting)
            finally:
                self._conversation.ended(lasting)

    async def _run(self, lasting: trio.Nursery) -> None:
        goodbye: tuple[int, str] = (0, "")
        ended_in_order = False
        try:
            async with trio.open_nursery() as nursery:
                goodbye = await self._serve(nursery, lasting)
                ended_in_order = True
                nursery.cancel_scope.cancel()
        finally:
            self._outlet.close()
            if not ended_in_order:
                self._link.abort()
        if goodbye[0]:
            await self._say_goodbye(*goodbye)

    async def _serve(self, nursery: trio.Nursery, lasting: trio.Nursery) -> tuple[int, str]:
        """Why it ended: a close code and a reason, or 0 where the link has ended already."""
        ended, ending = trio.open_memory_channel[tuple[int, str]](3)
        nursery.start_soon(self._write, ended)
        nursery.start_soon(self._read, nursery, lasting, ended)
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

    async def _read(
        self, nursery: trio.Nursery, lasting: trio.Nursery, ended: trio.MemorySendChannel[tuple[int, str]]
    ) -> None:
        """The only task that receives. Waits for nothing but the socket, and for what the conversation wants it to."""
        try:
            while True:
                for message in await self._link.receive():
                    await self._take_message(message, nursery, lasting)
                    await self._conversation.has_room()
        except ProtocolViolation as violation:
            ended.send_nowait((CloseCode.PROTOCOL_VIOLATION, str(violation)))
        except AnswersPileUp as flood:
            ended.send_nowait((CloseCode.SLOW_CONSUMER, str(flood)))
        except LinkClosed as closed:
            ended.send_nowait((0, closed.reason))

    async def _take_message(self, message: str | bytes, nursery: trio.Nursery, lasting: trio.Nursery) -> None:
        if isinstance(message, bytes):
            raise ProtocolViolation("a binary message: this socket speaks text")
        for item in self._conversation.decode(message):
            if isinstance(item, BadFrame):
                self._say(refusal_of_frame(item))
                continue
            frame = item.frame
            match frame:
                case AuthRefresh():
                    self._take_token(frame.token, nursery)
                case Ping():
                    self._say(Pong(id=frame.id))
                case Pong():
                    pass  # the link itself notices who is gone
                case _:
                    await self._conversation.take(frame, nursery, lasting)

    def _say(self, frame: Frame) -> None:
        self._outlet.say(encode(frame))

    # The token.

    def _take_token(self, token: str, nursery: trio.Nursery) -> None:
        if self._checking_token:
            self._say(refusal(Busy("A token is being checked already; wait for the answer."), None))
        else:
            self._checking_token = True
            nursery.start_soon(self._refresh, token)

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
            answer: Frame = refusal(error, None)
        else:
            self._expires_at = max(self._expires_at, expires_at)
            self._token_changed.set()
            self._token_changed = trio.Event()
            answer = EventToken(state=TokenState.RENEWED, expires_at=datetime.fromtimestamp(self._expires_at, UTC))
        finally:
            self._checking_token = False
        with suppress(AnswersPileUp):  # the reader will meet it too
            self._say(answer)
