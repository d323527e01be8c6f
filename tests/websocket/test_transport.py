"""Bytes over a real socket pair: what is handed over is counted, and no write lasts longer than its patience."""

import socket
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
import trio

from skygw.websocket.transport import (
    UNSENT_BYTES,
    ConnectionLost,
    NotReading,
    Patience,
    PlainTransport,
    Transport,
    tune,
)

BULK = b"x" * (8 * 1024 * 1024)
"""More than the kernel holds of a connection nobody reads."""


@contextmanager
def sockets() -> Iterator[tuple[socket.socket, socket.socket]]:
    """Two ends of one TCP connection, neither of which blocks."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        ours = socket.create_connection(listening.getsockname())
        theirs, _ = listening.accept()
    with ours, theirs:
        ours.setblocking(False)
        theirs.setblocking(False)
        yield ours, theirs


@contextmanager
def transports(patience: Patience | None = None) -> Iterator[tuple[PlainTransport, PlainTransport]]:
    with sockets() as (ours, theirs):
        yield PlainTransport(ours, patience or Patience()), PlainTransport(theirs, Patience())


async def read_to_end(transport: Transport) -> bytes:
    data = bytearray()
    while piece := await transport.receive():
        data += piece
    return bytes(data)


async def test_bytes_arrive_in_order_up_to_the_end() -> None:
    with transports() as (ours, theirs):
        got = b""

        async def listen() -> None:
            nonlocal got
            got = await read_to_end(theirs)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(listen)
            await ours.send(b"first")
            await ours.send(BULK)
            await ours.send_end()
        assert got == b"first" + BULK
        assert ours.handed_over == ours.begun == len(got)


async def test_a_peer_that_takes_nothing_is_given_up() -> None:
    with transports(Patience(stalled_s=0.1)) as (ours, _):
        with trio.fail_after(10), pytest.raises(NotReading, match=rf"took \d+ of {len(BULK)} bytes in"):
            await ours.send(BULK)
        assert 0 < ours.handed_over < len(BULK)


async def test_a_peer_that_takes_too_little_is_given_up_though_it_never_stalls() -> None:
    with sockets() as (sending, reading), trio.fail_after(30):
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours = PlainTransport(sending, Patience(stalled_s=0.5, min_bytes_per_s=1e9))

        async def drain(theirs: PlainTransport) -> None:
            while await theirs.receive():
                await trio.lowlevel.checkpoint()

        async with trio.open_nursery() as nursery:
            nursery.start_soon(drain, PlainTransport(reading, Patience()))
            with pytest.raises(NotReading):
                await ours.send(BULK * 8)
            nursery.cancel_scope.cancel()


async def test_a_peer_that_takes_each_small_write_in_time_and_all_of_them_too_slowly_is_given_up() -> None:
    """At about 0.8 MB/s where ten times as much is asked for."""
    with sockets() as (sending, reading), trio.fail_after(30):
        sending.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 4096)
        reading.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        ours = PlainTransport(sending, Patience(stalled_s=0.5, min_bytes_per_s=8e6))
        written = 0

        async def sip() -> None:
            while True:
                await trio.lowlevel.wait_readable(reading)
                reading.recv(16 * 1024)
                await trio.sleep(0.02)  # the peer's pace

        async def send_without_end() -> None:
            nonlocal written
            while True:
                await ours.send(BULK[: 16 * 1024])
                written += 1

        async with trio.open_nursery() as nursery:
            nursery.start_soon(sip)
            with pytest.raises(NotReading):
                await send_without_end()
            nursery.cancel_scope.cancel()
        assert written > 1


async def test_a_peer_that_pauses_and_catches_up_is_kept() -> None:
    with transports(Patience(stalled_s=0.5)) as (ours, theirs):

        async def pause_and_drain() -> None:
            for _ in range(3):
                await trio.sleep(0.2)  # its pauses, each within the patience and all of them beyond
                for _ in range(16):
                    await theirs.receive()
            await read_to_end(theirs)

        async with trio.open_nursery() as nursery:
            nursery.start_soon(pause_and_drain)
            for _ in range(4):
                await ours.send(BULK)
            await ours.send_end()
        assert ours.handed_over == 4 * len(BULK)


async def test_a_cancelled_write_says_how_far_it_came() -> None:
    with transports() as (ours, _):
        with trio.move_on_after(0.1):
            await ours.send(BULK)
        assert 0 < ours.handed_over < len(BULK)
        before = ours.handed_over
        with trio.CancelScope() as scope:
            scope.cancel()
            await ours.send(b"never")
        assert ours.handed_over == ours.begun == before


async def test_a_cancelled_read_loses_nothing() -> None:
    with transports() as (ours, theirs):
        with trio.move_on_after(0.01):
            await theirs.receive()
        await ours.send(b"kept")
        assert await theirs.receive() == b"kept"


async def test_an_abort_wakes_whoever_reads_and_writes() -> None:
    with transports(Patience(stalled_s=60)) as (ours, _):
        lost = 0

        async def until_lost(verb: str) -> None:
            nonlocal lost
            with pytest.raises(ConnectionLost):
                await (ours.receive() if verb == "receive" else ours.send(BULK))
            lost += 1

        with trio.fail_after(10):
            async with trio.open_nursery() as nursery:
                nursery.start_soon(until_lost, "receive")
                nursery.start_soon(until_lost, "send")
                await trio.testing.wait_all_tasks_blocked()
                ours.abort()
                ours.abort()
        assert lost == 2
        with pytest.raises(ConnectionLost):
            await ours.receive()
        with pytest.raises(ConnectionLost):
            await ours.send(b"x")


async def test_connections_that_were_closed_here_say_so_to_whoever_comes_late() -> None:
    """More than one of them: Trio's own wait fails on the first and calls the others busy."""
    for _ in range(2):
        with transports() as (ours, _):
            ours.close()
            with pytest.raises(ConnectionLost):
                await ours.receive()


async def test_a_reset_by_the_peer_is_a_lost_connection() -> None:
    with transports() as (ours, theirs):
        theirs.abort()
        with trio.fail_after(10):
            await trio.lowlevel.wait_readable(ours._socket)
        with pytest.raises(ConnectionLost):
            await ours.receive()
        with pytest.raises(ConnectionLost):
            await ours.send(b"x")


async def test_a_loop_of_writes_or_reads_that_never_wait_gives_way_to_others() -> None:
    with transports() as (ours, theirs), trio.fail_after(20):
        for verb in ("send", "receive"):
            turns = 0
            done = False

            async def count() -> None:
                nonlocal turns
                while not done:  # noqa: B023 - it is the turns that are counted
                    turns += 1
                    await trio.lowlevel.checkpoint()

            async with trio.open_nursery() as nursery:
                nursery.start_soon(count)
                for _ in range(64):
                    if verb == "send":
                        await ours.send(b"x")
                    else:
                        await ours.send(b"x" * 70_000)
                        await theirs.receive()
                done = True
            assert turns >= 3


def test_a_tuned_socket_sends_at_once_and_keeps_little_in_the_kernel() -> None:
    with sockets() as (ours, _):
        tune(ours)
        assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY)
        if hasattr(socket, "TCP_NOTSENT_LOWAT"):
            assert ours.getsockopt(socket.IPPROTO_TCP, socket.TCP_NOTSENT_LOWAT) == UNSENT_BYTES
