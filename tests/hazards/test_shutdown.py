"""SIGTERM ends the process in bounded time and in order, whatever its peers do."""

from collections.abc import Callable
from contextlib import AsyncExitStack

import pytest
import trio

from tests.hazards.peers import upgrade, vanish
from tests.hazards.servers import Kind, Server, bystander, new_key
from tests.serving.served import Peer

OF_EACH = 50
ENDS_WITHIN_S = {Kind.OURS: 10.0, Kind.STOCK: 2.0}
"""Of which the drain is given little. The stock stack is expected to go on for ever."""
SIP = 512
SMALL_BUFFER = 4096


def http(path: str) -> bytes:
    return f"GET {path} HTTP/1.1\r\nHost: here\r\n\r\n".encode()


STUCK: dict[str, Callable[[], bytes]] = {
    "never reads an answer": lambda: http(f"/flood/{new_key()}"),
    "never reads a message": lambda: upgrade(f"/ws/flood/{new_key()}"),
    "drains an answer slowly": lambda: http(f"/flood/{new_key()}"),
    "drains messages slowly": lambda: upgrade(f"/ws/flood/{new_key()}"),
    "vanished": lambda: upgrade(f"/ws/flood/{new_key()}"),
    "a silent websocket": lambda: upgrade(f"/ws/echo/{new_key()}"),
    "half a head": lambda: b"GET /hello HTT",
    "half a body": lambda: b"POST /count HTTP/1.1\r\nHost: here\r\nContent-Length: 100\r\n\r\nhalf",
}


async def connect(server: Server, stack: AsyncExitStack) -> list[Peer]:
    """All of them, stuck, and each of them accepted; those that still read are returned."""
    draining = []
    for name, segment in STUCK.items():
        for _ in range(OF_EACH):
            peer = await stack.enter_async_context(server.peer(receive_buffer=SMALL_BUFFER))
            await peer.send(segment())
            if "slowly" in name:
                draining.append(peer)
            elif name == "vanished":
                vanish(peer.transport)
    async with bystander(server):
        return draining  # connections are accepted in their order


async def drain_slowly(peers: list[Peer]) -> None:
    while True:
        for peer in peers:
            with trio.move_on_after(0.001):
                await peer.read_exactly(SIP)
        await trio.sleep(0.01)  # their pace


async def test_a_signal_ends_the_process_whatever_its_peers_do(server: Server) -> None:
    async with AsyncExitStack() as stack:
        draining = await connect(server, stack)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain_slowly, draining)
            server.terminate()
            with trio.fail_after(ENDS_WITHIN_S[server.kind]):
                exit_code = await server.has_ended()
            nursery.cancel_scope.cancel()
        assert exit_code == 0


@pytest.mark.limits(told_of_signals=False)
async def test_a_signal_is_waited_for_and_the_end_is_an_orderly_one(server: Server) -> None:
    server.terminate()
    with trio.fail_after(ENDS_WITHIN_S[server.kind]):
        assert await server.has_ended() == 0
