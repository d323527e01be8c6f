"""Opening a link against servers that do not behave, and over TLS."""

import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from functools import partial

import pytest
import trio
import trustme
from trio_websocket import ConnectionClosed, WebSocketRequest, serve_websocket

from skygw.client.link import LinkEnded, open_link
from skygw.protocol.schemas import SUBPROTOCOL
from skygw.websocket import LinkClosed


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
    with pytest.raises(LinkEnded, match="failed"):
        async with open_link("ws://127.0.0.1:1/", token="t", connect_timeout_s=1, disconnect_timeout_s=0.1):
            raise AssertionError


async def test_a_token_that_no_header_can_carry_is_a_link_that_ended_and_is_not_shown() -> None:
    async with answering(b"") as url:
        with pytest.raises(LinkEnded) as caught:
            async with open_link(url, token="se\r\ncret", connect_timeout_s=1, disconnect_timeout_s=0.1):
                raise AssertionError

    assert "cret" not in str(caught.value)


async def test_a_refusal_carries_its_status_its_own_words_and_how_long_to_wait() -> None:
    body = b'{"detail":"Draining.\\u001b[2J"}'
    answer = b"HTTP/1.1 503 Busy\r\nRetry-After: 9\r\nContent-Length: %d\r\n\r\n%s" % (len(body), body)
    async with answering(answer) as url:
        with pytest.raises(LinkEnded) as caught:
            async with open_link(url, token="t", connect_timeout_s=1, disconnect_timeout_s=0.1):
                raise AssertionError

    assert (caught.value.status, caught.value.retry_after_s) == (503, 9.0)
    assert str(caught.value).endswith("HTTP 503: Draining.[2J")


async def test_a_link_over_tls_trusts_the_given_authority_and_no_other() -> None:
    authority = trustme.CA()
    server_context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(server_context)
    client_context = ssl.create_default_context()
    authority.configure_trust(client_context)

    async def echo(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol=SUBPROTOCOL)
        try:
            await connection.send_message(await connection.get_message())
            await connection.get_message()
        except ConnectionClosed:
            return

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, echo, "localhost", 0, server_context))
        url = f"wss://localhost:{server.listeners[0].port}/v1/ws/node"
        opened = partial(open_link, url, token="t", connect_timeout_s=5, disconnect_timeout_s=0.5)
        async with opened(ssl_context=client_context) as link:
            await link.send(["hello"])
            heard = await link.receive()
        with pytest.raises(LinkEnded, match="certificate"):
            async with opened():
                raise AssertionError
        nursery.cancel_scope.cancel()

    assert heard == ["hello"]


async def test_a_send_that_is_cancelled_drops_the_connection() -> None:
    async def deaf(request: WebSocketRequest) -> None:
        await request.accept(subprotocol=SUBPROTOCOL)
        await trio.sleep_forever()

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            partial(serve_websocket, deaf, "127.0.0.1", 0, None, message_queue_size=0, max_message_size=2**24)
        )
        url = f"ws://127.0.0.1:{server.port}/v1/ws/node"
        async with open_link(url, token="t", connect_timeout_s=5, disconnect_timeout_s=0.1) as link:
            with trio.move_on_after(0.2) as patience:
                while True:
                    await link.send([b"x" * 2**20])
            with pytest.raises(LinkClosed):
                await link.send(["after"])
        nursery.cancel_scope.cancel()

    assert patience.cancelled_caught
