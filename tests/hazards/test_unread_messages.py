"""An app that is behind with its reading is still told of the end, and its peer's pings are still answered."""

import pytest

from tests.hazards.peers import Op, frame, goodbye
from tests.hazards.servers import Server, new_key

pytestmark = pytest.mark.limits(websocket_ping_after_s=0.6)
"""How often our server looks at a link whose app is busy follows from it."""


async def test_the_disconnect_is_delivered_behind_11_unread_messages(server: Server) -> None:
    key = new_key()
    async with server.websocket(f"/ws/busy/{key}") as socket:
        await socket.peer.send(frame(Op.TEXT, b"unread") * 11 + goodbye(1001))
        with server.patience():
            await socket.close_code()
    assert await server.told(key)


async def test_pings_are_answered_behind_22_unread_messages(server: Server) -> None:
    async with server.websocket(f"/ws/busy/{new_key()}") as socket:
        await socket.peer.send(frame(Op.TEXT, b"unread") * 22 + frame(Op.PING, b"are you there?"))
        with server.patience():
            found = await socket.next_of(Op.PONG)
        assert found is not None
        assert found.payload == b"are you there?"
