"""How a conversation ends is said and heard: codes and reasons both ways, and no write is claimed that was none."""

import pytest

from tests.hazards.peers import Op, goodbye
from tests.hazards.servers import Server, new_key


async def test_the_peers_close_code_and_reason_reach_the_handler(server: Server) -> None:
    key = new_key()
    async with server.websocket(f"/ws/echo/{key}") as socket:
        await socket.peer.send(goodbye(4242, "gone home"))
        with server.patience():
            assert await socket.close_code() == 4242
    assert await server.told(key) == {"how": "told", "code": 4242, "reason": "gone home"}


async def test_a_lost_connection_is_told_to_the_handler_as_one_without_a_code(server: Server) -> None:
    key = new_key()
    async with server.websocket(f"/ws/echo/{key}"):
        pass
    told = await server.told(key)
    assert (told["how"], told["code"]) == ("told", None)


async def test_an_uncaught_error_closes_with_1011(server: Server) -> None:
    server.fails_on_purpose = True
    async with server.websocket("/ws/fails") as socket:
        await socket.send(Op.TEXT, b"now")
        with server.patience():
            assert await socket.close_code() == 1011


async def test_a_shutdown_says_so_to_every_websocket(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        server.terminate()
        with server.patience():
            assert await socket.close_code() == 1012


@pytest.mark.limits(websocket_ping_after_s=0.6)
async def test_what_is_sent_after_the_peer_left_is_not_claimed_as_written(server: Server) -> None:
    key = new_key()
    async with server.websocket(f"/ws/sends-late/{key}") as socket:
        await socket.peer.send(goodbye(1001))
        with server.patience():
            await socket.peer.read_to_end()
    await server.open_gate(key)
    assert await server.told(key) == {"was_written": False}


async def test_what_was_registered_for_after_the_websocket_runs_when_the_peer_leaves(server: Server) -> None:
    key = new_key()
    async with server.websocket(f"/ws/cleans-up/{key}"):
        pass
    assert await server.told(key) == {"how": "cleaned up"}


async def test_an_empty_binary_message_arrives_as_one(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        await socket.send(Op.BINARY, b"")
        with server.patience():
            found = await socket.next_of(Op.BINARY, Op.TEXT, Op.CLOSE)
        assert found is not None
        assert (found.op, found.payload) == (Op.BINARY, b"")
