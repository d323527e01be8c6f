"""Floods that keep to the letter of the protocols: memory stays what it was, and a bystander is served meanwhile.

For our server alone: there is no need to show what these do to others.
"""

import os
import struct
from collections.abc import Awaitable, Callable

import pytest
import trio

from tests.hazards.limits import KIB, MIB
from tests.hazards.peers import Op, frame, upgrade
from tests.hazards.servers import Bystander, Kind, Server, bystander, new_key

MAY_RISE_BYTES = 8 * MIB
SMALL_BUFFER = 4096
FLOOD_BYTES = int(os.environ.get("SKYGW_TEST_FLOOD_MIB", "2")) * MIB
FLOOD_S = FLOOD_BYTES / (4 * MIB)
"""How long one lasts at most; what the server makes wait is not waited for."""
SOCKETS = 40

Flood = Callable[[Server], Awaitable[None]]


async def pour(stream: trio.SocketStream, piece: bytes, *, size: int = FLOOD_BYTES) -> None:
    """So many bytes of `piece` again and again, as far as the server takes them: it may end the connection."""
    block = piece * max(1, 256 * KIB // len(piece))
    with trio.move_on_after(FLOOD_S):
        try:
            for _ in range(size // len(block)):
                await stream.send_all(block)
        except trio.BrokenResourceError:
            return


async def fragments_without_content(server: Server) -> None:
    """The message never ends and never grows; each frame of it does take something to remember."""
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        await socket.peer.send(frame(Op.BINARY, b"x", is_last=False))
        await pour(socket.peer.transport, frame(Op.CONTINUATION, is_last=False))


async def fragments_of_one_byte(server: Server) -> None:
    """A message just under its bound, in a million pieces."""
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        await socket.peer.send(frame(Op.TEXT, b"x", is_last=False))
        await pour(
            socket.peer.transport, frame(Op.CONTINUATION, b"x", is_last=False), size=min(7 * MIB, 4 * FLOOD_BYTES)
        )


async def fragments_with_pings_between(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        await socket.peer.send(frame(Op.TEXT, b"x", is_last=False))
        await pour(socket.peer.transport, frame(Op.CONTINUATION, b"x", is_last=False) + frame(Op.PING, b"?"))


async def pings_nobody_reads_the_answers_to(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}", receive_buffer=SMALL_BUFFER) as socket:
        await pour(socket.peer.transport, frame(Op.PING, b"p" * 125))


async def pings_to_an_app_that_does_not_read(server: Server) -> None:
    async with server.websocket(f"/ws/busy/{new_key()}", receive_buffer=SMALL_BUFFER) as socket:
        await pour(socket.peer.transport, frame(Op.PING, b"p" * 125))


async def pongs_nobody_asked_for(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        await pour(socket.peer.transport, frame(Op.PONG, b"p"))


async def messages_to_an_app_that_does_not_read(server: Server) -> None:
    async with server.websocket(f"/ws/busy/{new_key()}") as socket:
        await pour(socket.peer.transport, frame(Op.TEXT, b"x"))


async def empty_messages_to_an_app_that_does_not_read(server: Server) -> None:
    async with server.websocket(f"/ws/busy/{new_key()}") as socket:
        await pour(socket.peer.transport, frame(Op.BINARY))


async def large_messages_to_an_app_that_does_not_read(server: Server) -> None:
    async with server.websocket(f"/ws/busy/{new_key()}") as socket:
        await pour(socket.peer.transport, frame(Op.BINARY, bytes(512 * KIB)), size=4 * FLOOD_BYTES)


async def messages_whose_echo_nobody_reads(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}", receive_buffer=SMALL_BUFFER) as socket:
        await pour(socket.peer.transport, frame(Op.TEXT, b"x" * 100))


async def frames_after_the_goodbye(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        await socket.peer.send(frame(Op.CLOSE, struct.pack("!H", 1000)))
        await pour(socket.peer.transport, frame(Op.TEXT, b"too late"))


async def goodbyes_without_end(server: Server) -> None:
    async with server.websocket(f"/ws/echo/{new_key()}") as socket:
        await pour(socket.peer.transport, frame(Op.CLOSE, struct.pack("!H", 1000)))


async def a_storm_of_goodbyes(server: Server) -> None:
    """Upgraded, and gone in every way there is: at once, in the middle of a frame, by half, after a goodbye."""
    endings = [
        frame(Op.CLOSE, struct.pack("!H", 1001)),
        frame(Op.CLOSE),
        frame(Op.TEXT, b"half of it")[:9],
        frame(Op.PING) * 50,
        b"",
    ]
    for number in range(SOCKETS):
        async with server.peer() as peer:
            await peer.send(upgrade(f"/ws/echo/{new_key()}"))
            if number % 2:
                await peer.read_until(b"\r\n\r\n")
            try:
                await peer.transport.send_all(endings[number % len(endings)])
                if number % 3 == 0:
                    await peer.transport.send_eof()
            except trio.BrokenResourceError:
                continue


async def requests_whose_answers_nobody_reads(server: Server) -> None:
    async with server.peer(receive_buffer=SMALL_BUFFER) as peer:
        await pour(peer.transport, b"GET /hello HTTP/1.1\r\nHost: here\r\n\r\n")


async def chunks_of_one_byte(server: Server) -> None:
    async with server.peer() as peer:
        await peer.send(b"POST /count HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n")
        await pour(peer.transport, b"1\r\nx\r\n")


async def a_chunk_extension_without_end(server: Server) -> None:
    async with server.peer() as peer:
        await peer.send(b"POST /count HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n1;")
        await pour(peer.transport, b"x=y;")


async def trailers_without_end(server: Server) -> None:
    async with server.peer() as peer:
        await peer.send(b"POST /count HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        await pour(peer.transport, b"X-Trailer: more\r\n")


async def a_head_without_end(server: Server) -> None:
    async with server.peer() as peer:
        await peer.send(b"GET /hello HTTP/1.1\r\n")
        await pour(peer.transport, b"X-Header: more\r\n")


async def a_head_of_short_lines(server: Server) -> None:
    async with server.peer() as peer:
        await peer.send(b"GET /hello HTTP/1.1\r\n")
        await pour(peer.transport, b"a\r\n")


async def trailers_of_short_lines(server: Server) -> None:
    async with server.peer() as peer:
        await peer.send(b"POST /count HTTP/1.1\r\nHost: here\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n")
        await pour(peer.transport, b"a\r\n")


async def blank_lines_before_a_request(server: Server) -> None:
    async with server.peer() as peer:
        await pour(peer.transport, b"\r\n")


async def a_body_nobody_takes(server: Server) -> None:
    key = new_key()
    async with server.peer() as peer:
        size = 4 * FLOOD_BYTES
        await peer.send(f"POST /upload/{key} HTTP/1.1\r\nHost: here\r\nContent-Length: {size}\r\n\r\n".encode())
        await pour(peer.transport, bytes(KIB), size=size)


FLOODS: tuple[Flood, ...] = (
    fragments_without_content,
    fragments_of_one_byte,
    fragments_with_pings_between,
    pings_nobody_reads_the_answers_to,
    pings_to_an_app_that_does_not_read,
    pongs_nobody_asked_for,
    messages_to_an_app_that_does_not_read,
    empty_messages_to_an_app_that_does_not_read,
    large_messages_to_an_app_that_does_not_read,
    messages_whose_echo_nobody_reads,
    frames_after_the_goodbye,
    goodbyes_without_end,
    a_storm_of_goodbyes,
    requests_whose_answers_nobody_reads,
    chunks_of_one_byte,
    a_chunk_extension_without_end,
    trailers_without_end,
    a_head_without_end,
    a_head_of_short_lines,
    trailers_of_short_lines,
    blank_lines_before_a_request,
    a_body_nobody_takes,
)


async def served_throughout(beside: Bystander, during: Flood, server: Server) -> bool:
    """Whether the bystander was answered each time it asked, until the flood was over and once more."""
    is_served = True
    async with trio.open_nursery() as nursery:

        async def ask() -> None:
            nonlocal is_served
            while is_served:
                is_served = await beside.is_served()

        nursery.start_soon(ask)
        await during(server)
        nursery.cancel_scope.cancel()
    return is_served


@pytest.mark.parametrize("server", [Kind.OURS], indirect=True, ids=str)
@pytest.mark.limits(send_timeout_s=1.0)
@pytest.mark.parametrize("flood", FLOODS, ids=lambda flood: flood.__name__)
async def test_a_flood_takes_no_memory_and_no_turn_of_others(server: Server, flood: Flood) -> None:
    async with bystander(server) as beside:
        server.memory.forget_peak()
        before = server.memory.now()
        assert await served_throughout(beside, flood, server)
        async with bystander(server) as newcomer:
            assert await newcomer.is_served()
        assert server.memory.peak() - before <= MAY_RISE_BYTES
