"""Opening a link against servers that do not behave, over TLS, and how it ends."""

import socket
import ssl
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from skygw.client.link import UNSENT_BYTES, LinkEnded, open_link
from skygw.protocol.schemas import SUBPROTOCOL
from skygw.websocket import Fault, LinkClosed
from skygw.websocket.transport import PlainTransport


@asynccontextmanager
async def answering(answer: bytes | None) -> AsyncIterator[str]:
    """A server that answers every connection with these bytes and closes, or with `None` never says anything."""

    async def serve(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        if answer is None:
            await trio.sleep_forever()
        else:
            await stream.send_all(answer)

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, serve, 0, host="127.0.0.1"))
        yield f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/v1/ws/node"
        nursery.cancel_scope.cancel()


@asynccontextmanager
async def serving(
    serve: Callable[[WebSocketConnection], Awaitable[object]], tls: ssl.SSLContext | None = None
) -> AsyncIterator[str]:
    """Another implementation's server; the connection is closed when `serve` returns."""

    async def handle(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol=SUBPROTOCOL)
        try:
            await serve(connection)
        except ConnectionClosed:
            return

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, handle, "localhost", 0, tls, max_message_size=2**24))
        yield f"{'ws' if tls is None else 'wss'}://localhost:{server.listeners[0].port}/v1/ws/node"
        nursery.cancel_scope.cancel()


opened = partial(open_link, token="t", connect_timeout_s=5, disconnect_timeout_s=0.5)


@pytest.mark.parametrize(
    "answer",
    [
        None,
        b"",
        b"\x16\x03\x01 this is no HTTP at all\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nhi",
        b"HTTP/1.1 101 Switching Protocols\r\n\r\n",
        b"HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: upgrade\r\n"
        b"Sec-WebSocket-Accept: wrong\r\n\r\n",
        b"HTTP/1.1 503 Busy\r\nContent-Length: 1000\r\n\r\ncut",
    ],
    ids=["silence", "nothing", "garbage", "no upgrade", "bare 101", "wrong accept", "half a refusal"],
)
async def test_a_server_that_does_not_behave_is_a_link_that_ended(answer: bytes | None) -> None:
    async with answering(answer) as url:
        with pytest.raises(LinkEnded):
            async with open_link(url, token="t", connect_timeout_s=0.2, disconnect_timeout_s=0.1):
                raise AssertionError


async def test_nobody_listening_is_a_link_that_ended() -> None:
    with pytest.raises(LinkEnded, match=r"failed: .*refused"):
        async with opened("ws://127.0.0.1:1/"):
            raise AssertionError


@pytest.mark.parametrize("url", ["ws://127.0.0.1:1/\u2603", "ws://\u2603.invalid/", f"ws://{'x' * 70}.invalid/"])
async def test_an_address_that_cannot_be_asked_for_is_a_link_that_ended(url: str) -> None:
    with pytest.raises(LinkEnded):
        async with opened(url):
            raise AssertionError


async def test_a_token_that_no_header_can_carry_is_a_link_that_ended_and_is_not_shown() -> None:
    async with answering(b"") as url:
        with pytest.raises(LinkEnded) as caught:
            async with opened(url, token="se\r\ncret"):
                raise AssertionError

    assert "cret" not in str(caught.value)


async def test_a_refusal_carries_its_status_its_own_words_and_how_long_to_wait() -> None:
    body = b'{"detail":"Draining.\\u001b[2J"}'
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with answering(answer) as url:
        with pytest.raises(LinkEnded) as caught:
            async with opened(url):
                raise AssertionError

    assert (caught.value.status, caught.value.retry_after_s) == (503, 9.0)
    assert str(caught.value).endswith("HTTP 503: Draining.[2J")


async def test_a_refusal_whose_sentence_never_comes_is_known_by_its_status(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("skygw.client.link.REFUSAL_S", 0.05)

    async def stall(stream: trio.SocketStream) -> None:
        await stream.receive_some()
        await stream.send_all(b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: 100\r\n\r\n")
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        (listener,) = await nursery.start(partial(trio.serve_tcp, stall, 0, host="127.0.0.1"))
        with pytest.raises(LinkEnded) as caught:
            async with opened(f"ws://127.0.0.1:{listener.socket.getsockname()[1]}/"):
                raise AssertionError
        nursery.cancel_scope.cancel()

    assert (caught.value.status, caught.value.retry_after_s) == (503, 9.0)


async def test_a_link_over_tls_trusts_the_given_authority_and_no_other() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async def echo(connection: WebSocketConnection) -> None:
        await connection.send_message(await connection.get_message())
        await connection.get_message()

    async with serving(echo, server_context) as url:
        async with opened(url, ssl_context=client_context) as link:
            await link.send(["hello"])
            heard = await link.receive()
        with pytest.raises(LinkEnded, match="certificate"):
            async with opened(url):
                raise AssertionError

    assert heard == ["hello"]


async def test_small_messages_leave_at_once_and_little_waits_in_the_kernel() -> None:
    async with serving(WebSocketConnection.get_message) as url, opened(url) as link:
        transport = link._transport
        assert isinstance(transport, PlainTransport)
        at_once = transport._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        unsent = transport._socket.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT)

    assert at_once
    assert unsent == UNSENT_BYTES


async def test_leaving_says_goodbye_and_waits_for_the_gateways_own() -> None:
    heard: list[object] = []

    async def listen(connection: WebSocketConnection) -> None:
        try:
            await connection.get_message()
        finally:
            heard.append(connection.closed)

    async with serving(listen) as url:
        async with opened(url) as link:
            pass
        assert link.ended.is_set()
        with trio.fail_after(5):
            while not heard:  # noqa: ASYNC110 - the other implementation has no event for it
                await trio.sleep(0.005)

    assert getattr(heard[0], "code", None) == 1000


async def test_leaving_a_gateway_that_does_not_answer_is_not_held_up() -> None:
    async def deaf(connection: WebSocketConnection) -> None:
        await trio.sleep_forever()

    async with serving(deaf) as url:
        with trio.fail_after(5):
            async with open_link(url, token="t", connect_timeout_s=5, disconnect_timeout_s=0.1):
                pass


async def test_the_gateways_code_and_reason_are_told() -> None:
    async def close(connection: WebSocketConnection) -> None:
        await connection.aclose(4502, "revoked by the hub")

    async with serving(close) as url:
        with pytest.raises(LinkEnded, match="4502: revoked by the hub") as caught:
            async with opened(url) as link:
                await link.receive()

    assert caught.value.code == 4502


@pytest.mark.parametrize("fault", list(Fault))
def test_a_code_that_the_node_gave_a_broken_gateway_is_not_the_gateways(fault: Fault) -> None:
    end = LinkEnded.of(LinkClosed(1002, "it said nonsense", fault))

    assert end.code is None
    assert "it said nonsense" in str(end)


async def test_a_send_that_is_cancelled_drops_the_connection() -> None:
    async def deaf(connection: WebSocketConnection) -> None:
        await trio.sleep_forever()

    async with serving(deaf) as url, opened(url) as link:
        with trio.move_on_after(0.2) as patience:
            while True:
                await link.send([b"x" * 2**20])
        with pytest.raises(LinkClosed):
            await link.send(["after"])

    assert patience.cancelled_caught
