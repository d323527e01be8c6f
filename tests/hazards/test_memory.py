"""Whatever a peer sends, the server's memory stays what it was."""

import zlib

import pytest
import trio

from tests.hazards.limits import KIB, MIB
from tests.hazards.peers import Op, frame
from tests.hazards.servers import Server, bystander, new_key

MAY_RISE_BYTES = 8 * MIB

BOMB = zlib.compress(bytes(64 * MIB), wbits=-15)
"""64 KiB that unfold into 64 MiB."""
FRAGMENT = bytes(64 * KIB)
FRAGMENTS = 64 * MIB // len(FRAGMENT)
CHUNKS = 128


async def send_while_taken(server: Server, stream: trio.SocketStream, pieces: list[bytes]) -> None:
    """As much of it as the server takes, until it ends the connection or lets the peer wait."""
    with trio.move_on_after(1.0):
        try:
            for piece in pieces:
                await stream.send_all(piece)
        except trio.BrokenResourceError:
            return


async def test_compression_is_not_accepted_where_it_is_offered(server: Server) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate; client_max_window_bits"
    async with server.websocket(f"/ws/echo/{new_key()}", offer) as socket:
        assert b"permessage-deflate" not in socket.head.lower()


async def test_a_deflate_bomb_takes_no_memory(server: Server) -> None:
    offer = "Sec-WebSocket-Extensions: permessage-deflate"
    async with bystander(server) as beside:
        server.memory.forget_peak()
        before = server.memory.now()
        async with server.websocket(f"/ws/echo/{new_key()}", offer) as socket:
            await socket.peer.send(frame(Op.BINARY, BOMB, is_packed=True))
            with server.patience():
                await socket.close_code()
        assert await beside.is_served()
        assert server.memory.peak() - before <= MAY_RISE_BYTES


async def test_a_message_without_end_takes_no_memory(server: Server) -> None:
    async with bystander(server) as beside:
        server.memory.forget_peak()
        before = server.memory.now()
        async with server.websocket(f"/ws/echo/{new_key()}") as socket:
            first = frame(Op.BINARY, FRAGMENT, is_last=False)
            more = frame(Op.CONTINUATION, FRAGMENT, is_last=False)
            await send_while_taken(server, socket.peer.transport, [first, *[more] * FRAGMENTS])
        assert await beside.is_served()
        assert server.memory.peak() - before <= MAY_RISE_BYTES


@pytest.mark.limits(websocket_max_message_bytes=MIB)
async def test_a_message_without_end_ends_its_link_with_1009_and_the_handler_is_told(server: Server) -> None:
    key = new_key()
    async with server.websocket(f"/ws/echo/{key}") as socket:
        first = frame(Op.BINARY, FRAGMENT, is_last=False)
        more = frame(Op.CONTINUATION, FRAGMENT, is_last=False)
        await send_while_taken(server, socket.peer.transport, [first, *[more] * (2 * MIB // len(FRAGMENT))])
        with server.patience():
            assert await socket.close_code() == 1009
            assert await socket.peer.read_to_end() == b""
        assert (await server.told(key))["how"] == "told"


@pytest.mark.limits(max_body_bytes=1024 * MIB)
async def test_an_upload_waits_in_the_network_while_its_handler_is_slow(server: Server) -> None:
    """The body is asked for piece by piece, below Quart: Quart itself takes all of it in at once."""
    key = new_key()
    size = 64 * MIB
    async with bystander(server) as beside, server.peer() as uploader:
        server.memory.forget_peak()
        before = server.memory.now()
        await uploader.send(f"POST /upload/{key} HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n\r\n".encode())
        await server.told(f"{key}-asked")
        await send_while_taken(server, uploader.transport, [FRAGMENT] * (size // len(FRAGMENT)))
        assert await beside.is_served()
        assert server.memory.peak() - before <= MAY_RISE_BYTES


async def test_a_chunked_body_is_bounded_as_one_with_a_length_is(server: Server) -> None:
    async with server.peer() as peer:
        await peer.send(b"POST /count HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        chunk = b"%x\r\n" % len(FRAGMENT) + FRAGMENT + b"\r\n"
        await send_while_taken(server, peer.transport, [chunk] * CHUNKS + [b"0\r\n\r\n"])
        with server.patience():
            assert (await peer.response())[0] == 413
