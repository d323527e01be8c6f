"""Quart's ends of a request and of a WebSocket, on a real listener: one task each, and what handlers see of it."""

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager

import pytest
import trio
import trio.testing
from quart import Response, request, websocket
from quart_trio import QuartTrio

from skygw.routers.quart_http import outlive_the_caller, use_direct_requests
from skygw.routers.quart_socket import use_direct_sockets
from skygw.routers.ws import current_websocket
from skygw.websocket.frames import BINARY, TEXT, frame
from skygw.websocket.transport import PlainTransport
from tests.serving.apps import UPGRADE
from tests.serving.served import PATIENCE_S, Served, serving

MASK = bytes(4)


@asynccontextmanager
async def quart(prepare: Callable[[QuartTrio], object]) -> AsyncIterator[Served]:
    app = QuartTrio("tested", static_folder=None)
    app.config["MAX_CONTENT_LENGTH"] = 1_000
    use_direct_requests(app)
    use_direct_sockets(app)
    prepare(app)
    async with serving(app) as served:
        yield served


# HTTP.


async def test_a_body_is_read_when_the_handler_asks_for_it() -> None:
    def prepare(app: QuartTrio) -> None:
        @app.post("/echo")
        async def echo() -> Response:
            return Response(await request.get_data(as_text=False))

        @app.post("/refuse")
        async def refuse() -> Response:
            return Response(b"no", 403)

    async with quart(prepare) as served, served.peer() as peer:
        assert await peer.ask("/echo", method="POST", body=b"x" * 1_000) == (200, b"x" * 1_000)
        assert await peer.ask("/echo", method="POST") == (200, b"")
        await peer.send(b"POST /refuse HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\nExpect: 100-continue\r\n\r\n")
        assert await peer.response() == (403, b"no")  # and no 100 before it


@pytest.mark.parametrize("chunked", [False, True])
async def test_a_body_that_is_too_large_is_413(*, chunked: bool) -> None:
    def prepare(app: QuartTrio) -> None:
        @app.post("/echo")
        async def echo() -> Response:
            return Response(await request.get_data(as_text=False))

    async with quart(prepare) as served, served.peer() as peer:
        length = b"Transfer-Encoding: chunked" if chunked else b"Content-Length: 1001"
        body = b"3e9\r\n" + b"x" * 1_001 + b"\r\n0\r\n\r\n" if chunked else b"x" * 1_001
        await peer.send(b"POST /echo HTTP/1.1\r\nHost: a\r\n" + length + b"\r\n\r\n" + body)
        assert (await peer.response())[0] == 413


async def test_a_body_can_be_read_in_pieces() -> None:
    def prepare(app: QuartTrio) -> None:
        @app.post("/count")
        async def count() -> str:
            pieces = [piece async for piece in request.body]
            return f"{len(b''.join(pieces))} {bool(pieces)}"

    async with quart(prepare) as served, served.peer() as peer:
        assert await peer.ask("/count", method="POST", body=b"x" * 900) == (200, b"900 True")
        assert await peer.ask("/count", method="POST") == (200, b"0 False")


@pytest.mark.parametrize("reads", [False, True], ids=["while it works", "while it reads the body"])
async def test_a_handler_is_cancelled_when_its_peer_leaves(*, reads: bool) -> None:
    working, cancelled = trio.Event(), trio.Event()

    def prepare(app: QuartTrio) -> None:
        @app.post("/work")
        async def work() -> str:
            working.set()
            try:
                if reads:
                    await request.get_data()
                await trio.sleep_forever()
            except trio.Cancelled:
                cancelled.set()
                raise
            return "done"

    async with quart(prepare) as served:
        async with served.peer() as peer:
            await peer.send(b"POST /work HTTP/1.1\r\nHost: a\r\nContent-Length: 9\r\n\r\nabc")
            with trio.fail_after(PATIENCE_S):
                await working.wait()
        with trio.fail_after(PATIENCE_S):
            await cancelled.wait()


async def test_a_handler_that_must_outlive_its_caller_does() -> None:
    working, done = trio.Event(), trio.Event()
    go_on = trio.Event()

    def prepare(app: QuartTrio) -> None:
        @app.post("/stop")
        async def stop() -> str:
            outlive_the_caller()
            await request.get_data()
            working.set()
            await go_on.wait()
            await trio.lowlevel.checkpoint()
            done.set()
            return "stopped"

    async with quart(prepare) as served:
        async with served.peer() as peer:
            await peer.send(b"POST /stop HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc")
            with trio.fail_after(PATIENCE_S):
                await working.wait()
            handle = next(iter(served.listener._connections))._handle
        with trio.fail_after(PATIENCE_S):
            while handle is not None and handle.is_open:
                await trio.testing.wait_all_tasks_blocked(0.01)
            go_on.set()
            await done.wait()


async def test_a_handler_that_has_answered_is_not_cancelled_by_its_own_answer() -> None:
    def prepare(app: QuartTrio) -> None:
        @app.get("/")
        async def hello() -> str:
            return "hello"

    async with quart(prepare) as served, served.peer() as peer:
        for _ in range(3):
            assert await peer.ask() == (200, b"hello")


async def test_a_short_answer_is_one_write(monkeypatch: pytest.MonkeyPatch) -> None:
    writes: list[int] = []
    send_some = PlainTransport._send_some

    def counted(self: PlainTransport, data: bytes | memoryview) -> int:
        writes.append(len(data))
        return send_some(self, data)

    def prepare(app: QuartTrio) -> None:
        @app.get("/")
        async def hello() -> str:
            return "hello"

    monkeypatch.setattr(PlainTransport, "_send_some", counted)
    async with quart(prepare) as served, served.peer() as peer:
        for _ in range(3):
            assert await peer.ask() == (200, b"hello")
    assert len(writes) == 3


# WebSockets.


async def upgraded(served: Served, peer_bytes: bytes, *, expect: bytes) -> None:
    async with served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        assert (await peer.read_until(b"\r\n\r\n")).startswith(b"HTTP/1.1 101 ")
        await peer.send(peer_bytes)
        assert await peer.read_exactly(len(expect)) == expect


async def test_messages_of_both_kinds_are_echoed_and_an_empty_binary_one_stays_one() -> None:
    def prepare(app: QuartTrio) -> None:
        @app.websocket("/socket")
        async def echo() -> None:
            await websocket.accept()
            socket = current_websocket()
            while True:
                await socket.send(await socket.receive())

    async with quart(prepare) as served:
        sent = frame(TEXT, b"text", MASK) + frame(BINARY, b"", MASK) + frame(BINARY, b"b", MASK)
        await upgraded(served, sent, expect=frame(TEXT, b"text") + frame(BINARY, b"") + frame(BINARY, b"b"))


@pytest.mark.usefixtures("expects_errors")
async def test_an_uncaught_error_closes_with_1011_and_a_return_with_1000() -> None:
    def prepare(app: QuartTrio) -> None:
        @app.websocket("/socket")
        async def once() -> None:
            await websocket.accept()
            if await websocket.receive() == "fail":
                raise RuntimeError("the handler is broken")

    async with quart(prepare) as served:
        await upgraded(served, frame(TEXT, b"fail", MASK), expect=b"\x88\x02\x03\xf3")
        await upgraded(served, frame(TEXT, b"return", MASK), expect=b"\x88\x02\x03\xe8")


async def test_a_handler_is_cancelled_when_it_receives_from_a_peer_that_has_left() -> None:
    cancelled = trio.Event()

    def prepare(app: QuartTrio) -> None:
        @app.websocket("/socket")
        async def listen() -> None:
            await websocket.accept()
            try:
                while True:
                    await websocket.receive()
            except trio.Cancelled:
                cancelled.set()
                raise

    async with quart(prepare) as served:
        await upgraded(served, frame(TEXT, b"x", MASK), expect=b"")
        with trio.fail_after(PATIENCE_S):
            await cancelled.wait()


async def test_a_refusal_before_the_upgrade_is_an_answer_in_http() -> None:
    def prepare(app: QuartTrio) -> None:
        @app.websocket("/socket")
        async def refuse() -> Response:
            return Response(b"not you", 403)

    async with quart(prepare) as served, served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        assert await peer.response() == (403, b"not you")
    async with quart(lambda _app: None) as served, served.peer() as peer:
        await peer.send(UPGRADE + b"\r\n")
        assert (await peer.response())[0] == 404
