"""Quart's end of an HTTP request in one task: the body is read when the handler asks for it."""

from collections.abc import Generator
from typing import TYPE_CHECKING, Any, cast

import trio
from quart import request
from quart_trio import QuartTrio
from quart_trio.asgi import TrioASGIHTTPConnection
from quart_trio.wrappers.request import TrioBody, TrioRequest

from skygw.serving.handle import EXTENSION

if TYPE_CHECKING:
    from skygw.serving.handle import ConnectionHandle


class PulledBody(TrioBody):
    """Quart's, but it fetches: a body nobody asks for is not read, and none is read ahead of its reader."""

    receive: Any
    handler: trio.CancelScope

    def __await__(self) -> Generator[Any, None, bytes]:
        return self._whole().__await__()

    async def _whole(self) -> bytes:
        while not self._complete.is_set():
            await self._pull()
        if self._must_raise is not None:
            raise self._must_raise
        return bytes(self._data)

    async def __anext__(self) -> bytes:
        while not self._data and not self._complete.is_set():
            await self._pull()
        return await super().__anext__()

    async def _pull(self) -> None:
        """Raises what Quart would, for a body that is too large. Cancelled when the peer has left."""
        if self._must_raise is not None:
            raise self._must_raise
        message = await self.receive()
        if message["type"] == "http.disconnect":
            self.handler.cancel()
            await trio.sleep_forever()
        self.append(message.get("body", b""))
        if not message.get("more_body", False):
            self.set_complete()


class PullingRequest(TrioRequest):
    body_class = PulledBody


class DirectHttpConnection(TrioASGIHTTPConnection):
    """Quart-Trio's without a nursery and a second task; here too a handler is cancelled when its peer leaves."""

    async def __call__(self, receive: Any, send: Any) -> None:
        asked = self._create_request_from_scope(send)
        body = cast("PulledBody", asked.body)
        body.receive = receive
        handle = cast("ConnectionHandle", self.scope["extensions"][EXTENSION])
        with trio.CancelScope() as body.handler:
            handle.cancel_when_peer_leaves = body.handler
            response = await self.app.handle_request(asked)
            await self._send_response(send, response)


def outlive_the_caller() -> None:
    """Called by a handler that must do what it was asked even if nobody waits for the answer: a stop, say.

    A body that has not come whole still ends it: nothing was asked then.
    """
    handle: ConnectionHandle = cast("Any", request.scope)["extensions"][EXTENSION]
    handle.cancel_when_peer_leaves = None


def until_the_caller_leaves() -> trio.CancelScope:
    """Around what a handler that outlives its caller does for him alone: cancelled when he leaves, or has left."""
    handle: ConnectionHandle = cast("Any", request.scope)["extensions"][EXTENSION]
    scope = trio.CancelScope()
    handle.cancel_when_peer_leaves = scope
    if handle.peer_has_left:
        scope.cancel()
    return scope


def use_direct_requests(app: QuartTrio) -> None:
    """From now on the app's HTTP requests are of these classes."""
    app.asgi_http_class = DirectHttpConnection
    app.request_class = PullingRequest
