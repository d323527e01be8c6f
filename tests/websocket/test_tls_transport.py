"""TLS over a real socket pair: what is claimed of a write, and what a cancelled one leaves of the connection."""

import ssl
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio
import trio.testing
import trustme

from skygw.websocket import (
    ConnectionLost,
    NotReading,
    Patience,
    PlainTransport,
    Rhythm,
    TlsTransport,
    WebSocket,
)
from skygw.websocket.frames import PING, Close, Event, FrameReader, Pong, frame
from tests.fakes.memory_transport import MASK
from tests.websocket.test_transport import BULK, read_to_end, sockets


@contextmanager
def tls_pair(patience: Patience) -> Iterator[tuple[TlsTransport, TlsTransport]]:
    authority = trustme.CA()
    serving = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("localhost").configure_cert(serving)
    asking = ssl.create_default_context()
    authority.configure_trust(asking)
    with sockets() as (ours, theirs):
        client = TlsTransport.asking(theirs, asking, Patience(), host="localhost")
        yield TlsTransport.serving(ours, serving, patience), client


async def shake_hands(*ends: TlsTransport) -> None:
    async with trio.open_nursery() as nursery:
        for end in ends:
            nursery.start_soon(end.shake_hands)


async def test_tls_carries_bytes_both_ways_up_to_the_end() -> None:
    with tls_pair(Patience()) as (ours, theirs), trio.fail_after(20):
        await shake_hands(ours, theirs)
        await theirs.send(b"question")
        assert await ours.receive() == b"question"
        got = b""

        async def listen() -> None:
            nonlocal got
            got = await read_to_end(theirs)
            await theirs.send_end()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await ours.send(b"x" * 100_000)
            await ours.send_end()
        assert got == b"x" * 100_000
        assert ours.handed_over == ours.begun == 100_000


async def test_of_a_tls_record_that_was_cut_nothing_is_claimed() -> None:
    with tls_pair(Patience(stalled_s=0.1)) as (ours, theirs), trio.fail_after(20):
        await shake_hands(ours, theirs)
        with pytest.raises(NotReading):
            await ours.send(BULK)
        assert ours.handed_over < ours.begun < len(BULK)


async def test_a_peer_that_speaks_no_tls_is_a_lost_connection() -> None:
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    with sockets() as (ours, theirs), trio.fail_after(20):
        await PlainTransport(theirs, Patience()).send(b"GET / HTTP/1.1\r\n\r\n")
        with pytest.raises(ConnectionLost):
            await TlsTransport.serving(ours, context, Patience()).shake_hands()


async def test_a_write_that_waits_for_room_can_be_cancelled() -> None:
    with tls_pair(Patience(stalled_s=60)) as (ours, theirs), trio.fail_after(20):
        await shake_hands(ours, theirs)
        with trio.CancelScope() as scope:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(ours.send, BULK)
                await trio.testing.wait_all_tasks_blocked(0.05)
                scope.cancel()
        assert 0 < ours.handed_over < ours.begun < len(BULK)


async def until_begun(transport: TlsTransport, work: trio.CancelScope) -> None:
    """Cancels the work in the very turn in which a write has begun and is not out."""
    before = transport.begun
    while transport.begun == before:
        await trio.lowlevel.checkpoint()
    work.cancel()


@pytest.mark.parametrize("turn", range(16))  # whether it is that turn is left to chance each time
async def test_a_reader_that_is_cancelled_while_it_writes_a_pong_leaves_a_link_that_takes_a_goodbye(turn: int) -> None:
    with tls_pair(Patience()) as (ours, theirs), trio.fail_after(20):
        await shake_hands(ours, theirs)
        socket = WebSocket(ours, is_client=False, max_message_bytes=1_000, rhythm=Rhythm())
        async with trio.open_nursery() as nursery:
            nursery.start_soon(theirs.send, frame(PING, b"there?", MASK))
            with trio.CancelScope() as work:
                nursery.start_soon(until_begun, ours, work)
                await socket.receive()
        await socket.close(4_001, "draining")
        said: list[Event] = []
        reader = FrameReader(masked=False, max_message_bytes=1_000)
        while len(said) < 2:
            said += reader.feed(await theirs.receive())
        assert said == [Pong(b"there?"), Close(4_001, "draining")]
