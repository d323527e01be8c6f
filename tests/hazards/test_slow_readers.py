"""A peer that does not read, or reads too slowly, must not hold a task, nor memory, for as long as it likes."""

import pytest
import trio

from tests.hazards.peers import upgrade
from tests.hazards.servers import Server, bystander, new_key

SMALL_BUFFER = 4096
PIECE = 16 * 1024
EVERY_S = 0.02


def request(kind: str, key: str) -> bytes:
    """Asks for a flood, over HTTP or on a WebSocket."""
    if kind == "http":
        return f"GET /flood/{key} HTTP/1.1\r\nHost: here\r\n\r\n".encode()
    return upgrade(f"/ws/flood/{key}")


@pytest.mark.limits(send_timeout_s=0.5)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_peer_that_never_reads_is_cut_after_the_send_deadline(server: Server, kind: str) -> None:
    key = new_key()
    async with bystander(server) as beside, server.peer(receive_buffer=SMALL_BUFFER) as deaf:
        await deaf.send(request(kind, key))
        assert await server.told(key)
        assert await beside.is_served()


@pytest.mark.limits(send_timeout_s=0.5, send_min_bytes_per_s=8e6)
@pytest.mark.parametrize("kind", ["http", "websocket"])
async def test_a_peer_that_drains_below_the_floor_is_cut_though_it_never_stops(server: Server, kind: str) -> None:
    key = new_key()
    is_cut = False
    async with bystander(server) as beside, server.peer(receive_buffer=SMALL_BUFFER) as slow:
        await slow.send(request(kind, key))
        with server.patience():
            while not is_cut:
                is_cut = len(await slow.read_exactly(PIECE)) < PIECE
                await trio.sleep(EVERY_S)  # the pace of this peer: 0.8 MB/s
        assert await server.told(key)
        assert await beside.is_served()
