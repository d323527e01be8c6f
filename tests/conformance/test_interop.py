"""Both ends of ours with another implementation, trio-websocket, at the other end."""

from functools import partial
from typing import TYPE_CHECKING, cast

import pytest
import trio
from trio_websocket import ConnectionClosed, WebSocketRequest, open_websocket_url, serve_websocket

from skygw.client.link import LinkEnded, open_link
from skygw.protocol.schemas import SUBPROTOCOL
from tests.conformance.echo_server import echo_app
from tests.serving.served import serving

if TYPE_CHECKING:
    from skygw.serving.asgi import App

MESSAGES: list[str | bytes] = ["", b"", "grün \U0001f52d", b"\x00\xff" * 30_000, "x" * 60_000]
DISCONNECT_S = 2.0


async def test_our_link_and_another_servers_understand_each_other() -> None:
    heard: list[str | bytes] = []
    ended: list[ConnectionClosed] = []

    async def echo(request: WebSocketRequest) -> None:
        connection = await request.accept(subprotocol=SUBPROTOCOL)
        try:
            for _ in MESSAGES:
                await connection.send_message(await connection.get_message())
            await connection.ping(b"are you there")
            await connection.send_message("there")
            await connection.get_message()
        except ConnectionClosed as closed:
            ended.append(closed)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(partial(serve_websocket, echo, "127.0.0.1", 0, None))
        url = f"ws://127.0.0.1:{server.port}/"
        connect = partial(open_link, url, token="t", connect_timeout_s=5, disconnect_timeout_s=DISCONNECT_S)
        with trio.fail_after(10):
            async with connect() as link:
                await link.send(MESSAGES)
                while len(heard) <= len(MESSAGES):
                    heard += await link.receive()
        with trio.fail_after(10):
            while not ended:  # noqa: ASYNC110 - the other implementation has no event for it
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()

    assert heard == [*MESSAGES, "there"]
    assert ended[0].reason is not None
    assert ended[0].reason.code == 1000


async def test_our_server_and_another_link_understand_each_other() -> None:
    async with serving(cast("App", echo_app())) as served:
        host, port = served.listener.address
        with trio.fail_after(10):
            async with open_websocket_url(f"ws://{host}:{port}/", disconnect_timeout=DISCONNECT_S) as connection:
                heard = []
                for message in MESSAGES:
                    await connection.send_message(message)
                    heard.append(await connection.get_message())
                await connection.ping(b"are you there")
                await connection.aclose(4_242, "enough")

    assert heard == MESSAGES
    assert connection.closed is not None
    assert connection.closed.code == 4_242


async def test_a_refusal_of_our_server_reaches_our_link() -> None:
    async with serving(cast("App", echo_app())) as served:
        host, port = served.listener.address
        with pytest.raises(LinkEnded) as caught:
            async with open_link(f"ws://{host}:{port}/nowhere", token="t", connect_timeout_s=5, disconnect_timeout_s=1):
                raise AssertionError

    assert caught.value.status == 404
