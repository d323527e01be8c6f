"""The application both servers run: plain Quart-Trio, and what the two stacks give a handler to stand on."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from typing import Any, Protocol

import trio
from quart import Response, request, websocket
from quart.ctx import after_this_websocket
from quart_trio import QuartTrio

from skygw.websocket import LinkClosed
from tests.hazards.limits import Limits
from tests.hazards.told import Told

PIECE = bytes(64 * 1024)


class Talk(Protocol):
    """A handler's WebSocket. The end of it is `LinkClosed` where the stack can say so."""

    async def receive(self) -> str | bytes: ...

    async def send(self, message: str | bytes) -> None: ...

    async def until_gone(self) -> None:
        """Wait, without reading, for the news that the peer has left."""
        ...


class Stack(Protocol):
    """What differs between the servers, as seen from inside a handler."""

    def talk(self) -> Talk: ...

    def caller(self) -> str:
        """The address the current request comes from."""
        ...


def application(stack: Stack, told: Told, limits: Limits) -> QuartTrio:
    app = QuartTrio("hazards", static_folder=None)
    app.config.update(MAX_CONTENT_LENGTH=limits.max_body_bytes, BODY_TIMEOUT=None, RESPONSE_TIMEOUT=None)
    _add_pages(app, stack, told)
    _add_sockets(app, stack, told)
    return app


def _add_pages(app: QuartTrio, stack: Stack, told: Told) -> None:
    @app.get("/hello")
    async def hello() -> str:
        return "hello"

    @app.get("/told/<key>")
    async def what_was_told(key: str) -> Response:
        return Response(json.dumps(await told.of(key)), content_type="application/json")

    @app.post("/open/<key>")
    async def open_gate(key: str) -> str:
        told.gate(key).set()
        return "open"

    @app.get("/slow/<key>")
    async def slow(key: str) -> str:
        """Answers when the gate is opened, and not before."""
        told.note(f"{key}-asked")
        await told.gate(key).wait()
        return "worth waiting for"

    @app.get("/caller")
    async def caller() -> str:
        return stack.caller()

    @app.get("/flood/<key>")
    async def flood(key: str) -> Response:
        async def pieces() -> AsyncIterator[bytes]:
            try:
                while True:
                    yield PIECE
            finally:
                told.note(key, how="ended")

        return Response(pieces(), content_type="application/octet-stream")

    @app.post("/count")
    async def count() -> str:
        size = 0
        async for piece in request.body:
            size += len(piece)
        return str(size)

    @app.post("/upload/<key>")
    async def upload(key: str) -> str:
        """Takes its body when the gate is opened: the disk is slow today."""
        told.note(f"{key}-asked")
        await told.gate(key).wait()
        size = 0
        async for piece in request.body:
            size += len(piece)
        return str(size)


def _add_sockets(app: QuartTrio, stack: Stack, told: Told) -> None:
    @app.websocket("/ws/echo/<key>")
    async def echo(key: str) -> None:
        await websocket.accept()
        async with _noted(told, key):
            talk = stack.talk()
            while True:
                await talk.send(await talk.receive())

    @app.websocket("/ws/flood/<key>")
    async def flood_messages(key: str) -> None:
        await websocket.accept()
        async with _noted(told, key):
            talk = stack.talk()
            while True:
                await talk.send(PIECE)

    @app.websocket("/ws/drip/<key>")
    async def drip_messages(key: str) -> None:
        await websocket.accept()
        async with _noted(told, key):
            talk = stack.talk()
            while not told.gate(key).is_set():
                await talk.send("x")

    @app.websocket("/ws/busy/<key>")
    async def busy(key: str) -> None:
        """Has other things to do than to read, and wants to know when its peer has left."""
        await websocket.accept()
        async with _noted(told, key):
            await stack.talk().until_gone()

    @app.websocket("/ws/sends-late/<key>")
    async def sends_late(key: str) -> None:
        """Says something after the peer has left, and is asked whether it was said."""
        await websocket.accept()
        talk = stack.talk()
        with trio.CancelScope(shield=True):
            await told.gate(key).wait()
            try:
                await talk.send("is anybody there?")
            except LinkClosed:
                told.note(key, was_written=False)
            else:
                told.note(key, was_written=True)

    @app.websocket("/ws/fails")
    async def fails() -> None:
        await websocket.accept()
        await stack.talk().receive()
        raise RuntimeError("the handler is broken")

    @app.websocket("/ws/cleans-up/<key>")
    async def cleans_up(key: str) -> None:
        @after_this_websocket
        async def clean(response: Any) -> Any:
            told.note(key, how="cleaned up")
            return response

        await websocket.accept()
        async with _noted(told, f"{key}-talk"):
            await stack.talk().receive()


@asynccontextmanager
async def _noted(told: Told, key: str) -> AsyncIterator[None]:
    """Keeps how a handler learned that its conversation was over."""
    try:
        yield
    except LinkClosed as gone:
        told.note(key, how="told", code=gone.code, reason=gone.reason)
    except trio.Cancelled:
        told.note(key, how="cancelled", code=None, reason=None)
        raise


Asgi = Callable[[Any, Any, Any], Awaitable[None]]


def with_slow_upload(app: Asgi, told: Told) -> Asgi:
    """`/upload` beside Quart, under the same app: the body is asked for piece by piece (ASGI's own back-pressure)."""

    async def dispatch(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] != "http" or not scope["path"].startswith("/upload/"):
            await app(scope, receive, send)
            return
        key = scope["path"].rpartition("/")[2]
        told.note(f"{key}-asked")
        await told.gate(key).wait()
        size, more = 0, True
        while more:
            message = await receive()
            size += len(message.get("body", b""))
            more = message.get("more_body", False)
        body = str(size).encode()
        headers = [(b"content-length", b"%d" % len(body))]
        await send({"type": "http.response.start", "status": 200, "headers": headers})
        await send({"type": "http.response.body", "body": body, "more_body": False})

    return dispatch
