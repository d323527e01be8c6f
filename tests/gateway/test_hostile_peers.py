"""What once ended the process ends its own connection: a node beside it answers a caller afterwards.

The listener's own tests go through every case; here the whole gateway stands behind it.
"""

from pathlib import Path

import pytest
import trio

from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, AnyWorld, gateway
from tests.serving.hostile_http import CLOSED, TABLE, TAKEN, answer_to

FRAME = b"\x81\x85\x00\x00\x00\x00hello"


def upgrade(world: AnyWorld, *more: str) -> bytes:
    lines = [
        "GET /v1/ws/node HTTP/1.1",
        "Host: a",
        "Connection: Upgrade",
        "Upgrade: websocket",
        "Sec-WebSocket-Version: 13",
        "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==",
        "Sec-WebSocket-Protocol: skynet.node.v1",
        f"Authorization: Bearer {world.node_token()}",
        *more,
    ]
    return "\r\n".join(lines).encode() + b"\r\n\r\n"


async def status_of(port: int, sent: bytes) -> tuple[int, bytes]:
    """Sends as it stands; the status of the answer (0 if there was none) and its head."""
    stream = await trio.open_tcp_stream("127.0.0.1", port)
    try:
        await stream.send_all(sent)
        received = b""
        with trio.fail_after(PATIENCE_S):
            while b"\r\n\r\n" not in received:
                try:
                    more = await stream.receive_some()
                except trio.BrokenResourceError:
                    more = b""
                if not more:
                    return 0, received
                received += more
    finally:
        stream.socket.close()
    return int(received.split()[1]), received.lower()


@pytest.mark.parametrize("attack", ["frame behind", "body", "chunked body", "h2c", "prior knowledge"])
@pytest.mark.parametrize("listener", ["node", "internal"])
async def test_the_gateway_outlives_it(listener: str, attack: str, postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander:
        port = world.node_port if listener == "node" else world.internal_port
        h2c = b"Connection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\nHTTP2-Settings: ????\r\n\r\n"
        sent, expected = {
            "frame behind": (upgrade(world) + FRAME, 400),
            "body": (upgrade(world, "Content-Length: 5") + b"hello", 400),
            "chunked body": (upgrade(world, "Transfer-Encoding: chunked") + b"1\r\nx\r\n0\r\n\r\n", 400),
            "h2c": (b"GET /healthz HTTP/1.1\r\nHost: a\r\n" + h2c, 200),
            "prior knowledge": (b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\x00\x00\x00\x04\x00\x00\x00\x00\x00", 505),
        }[attack]
        assert (await status_of(port, sent))[0] == expected
        assert await bystander.is_served()


async def test_compression_is_offered_and_declined(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander:
        offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
        status, head = await status_of(world.node_port, upgrade(world, offer))
        assert status == 101
        assert b"sec-websocket-protocol: skynet.node.v1" in head
        assert b"sec-websocket-extensions" not in head
        assert await bystander.is_served()


@pytest.mark.parametrize("frame", [b"\xc1" + FRAME[1:], b"\x81\x05hello"], ids=["a reserved bit", "unmasked"])
async def test_a_broken_websocket_frame_ends_its_own_socket(
    frame: bytes, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander, world.node() as node:
        await node.socket._stream.send_all(frame)
        assert (await node.closed())[0] == 4500
        assert await bystander.is_served()


@pytest.mark.parametrize("listener", ["node", "internal"])
async def test_every_row_of_hostile_http_gets_its_answer(
    listener: str, postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.bystander() as bystander:
        port = world.node_port if listener == "node" else world.internal_port
        for number, row in enumerate(TABLE):
            status, body, _ = await answer_to(("127.0.0.1", port), row)
            # What is taken is the app's to answer: it may know no such path or method there, and say so at once.
            expected = {TAKEN: {200, 404, 405}, CLOSED: {CLOSED, 405}}.get(row.answer, {row.answer})
            assert status in expected, (row.name, status, body)
            if number % 10 == 0:
                assert await bystander.is_served(), row.name
        assert await bystander.is_served()
