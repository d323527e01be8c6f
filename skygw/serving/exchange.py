"""One call of the ASGI app for one request or one WebSocket, with what it may not break."""

import logging
from collections.abc import Awaitable, Callable
from functools import partial

import trio

from skygw.serving.asgi import App, Message, Receive, Scope, Send
from skygw.serving.handle import EXTENSION, ConnectionHandle
from skygw.serving.inbox import Inbox

logger = logging.getLogger("skygw.serving")

StreamSend = Callable[[Message | None], Awaitable[None]]
"""The protocol's end of ASGI `send`; None says that the app has returned."""


class Exchanges:
    """Runs app calls in the connection's nursery.

    `before_receive` is awaited each time an HTTP app asks for its body: only then is `100 Continue` due.
    """

    def __init__(
        self,
        nursery: trio.Nursery,
        handle: ConnectionHandle,
        *,
        before_receive: Callable[[], Awaitable[None]],
    ) -> None:
        self._nursery = nursery
        self._handle = handle
        self._before_receive = before_receive

    async def spawn_app(self, app: App, scope: Scope, send: StreamSend) -> Callable[[Message], Awaitable[None]]:
        """Start the app on a request; returns where the messages of its body are put."""
        scope["extensions"][EXTENSION] = self._handle
        self._handle.cancel_when_peer_leaves = None
        self._handle.peer_has_left = False
        inbox = Inbox()
        receive = partial(self._receive_body, inbox)
        self._nursery.start_soon(self._run, app, scope, receive, partial(_send_while_open, inbox, send), send)
        return inbox.put

    def peer_has_left(self) -> None:
        """The running exchange will not be completed: whoever wanted to know is told, in whatever it does."""
        self._handle.peer_has_left = True
        if self._handle.cancel_when_peer_leaves is not None:
            self._handle.cancel_when_peer_leaves.cancel()

    async def spawn_websocket(self, app: App, scope: Scope, receive: Receive, send: StreamSend) -> None:
        """Start the app on a WebSocket: its messages go to and come from the stream itself."""
        scope["extensions"][EXTENSION] = self._handle
        self._nursery.start_soon(self._run, app, scope, receive, send, send)

    async def _run(self, app: App, scope: Scope, receive: Receive, send_as_app: Send, send: StreamSend) -> None:
        try:
            await app(scope, receive, send_as_app)
        except* Exception as errors:
            logger.exception(
                "%s: the app failed on %s: %s",
                self._handle.listener,
                scope["path"].encode("unicode_escape").decode(),
                errors.exceptions[0],
                exc_info=errors,
            )
        # What is left open is closed by the stream: 500, or close code 1011, or a cut response.
        await send(None)

    async def _receive_body(self, inbox: Inbox) -> Message:
        await self._before_receive()
        return await inbox.get()


async def _send_while_open(inbox: Inbox, send: StreamSend, message: Message) -> None:
    """Cancelling before the protocol has seen the message loses that message and nothing else.

    After the end of the exchange messages go nowhere, and so does the body of an answer to HEAD; the checkpoint
    keeps an app that loops on `send` from freezing every other connection.
    """
    if inbox.is_closed:
        await trio.lowlevel.checkpoint()
        return
    if message.get("more_body", False):
        await trio.lowlevel.checkpoint()
    else:
        await trio.lowlevel.checkpoint_if_cancelled()
    await send(message)
