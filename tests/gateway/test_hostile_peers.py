"""What once ended the process ends its own connection: a node beside it answers a caller afterwards.

`tests/hazards/` shows that it would; here the whole gateway stands behind the listener.
"""

from pathlib import Path

import pytest

from tests.fakes.postgres import PostgresServer
from tests.gateway.world import AnyWorld, gateway
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
