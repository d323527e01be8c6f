"""One TCP segment of one unauthenticated peer must not end the process and everybody's connections with it."""

import pytest

from tests.hazards.peers import Op, frame, upgrade
from tests.hazards.servers import Server, bystander

NOWHERE = "/ws/nowhere"
"""Any path will do, also one that is not served."""

H2C = (
    b"GET /hello HTTP/1.1\r\nHost: here\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAAA\r\n\r\n"
)


@pytest.mark.parametrize(
    "segment",
    [
        upgrade(NOWHERE) + frame(Op.TEXT, b"hello"),
        upgrade(NOWHERE, "Content-Length: 5") + b"hello",
        H2C,
    ],
    ids=["a frame behind the upgrade", "an upgrade with a body", "bad settings for h2c"],
)
async def test_one_segment_ends_its_own_connection_at_most(server: Server, segment: bytes) -> None:
    async with bystander(server) as beside, server.peer() as attacker:
        await attacker.send(segment)
        await attacker.transport.send_eof()
        with server.patience():
            await attacker.read_to_end()
        assert await beside.is_served()
        assert await beside.is_served()
        assert server.is_alive
