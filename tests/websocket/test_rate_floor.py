"""A peer that takes what it is sent too slowly is given up, in however small pieces it is sent."""

import socket
from collections.abc import AsyncIterator

import pytest
import trio

from skygw.websocket import NotReading, Patience, PlainTransport

PATIENCE = Patience(stalled_s=0.5, min_bytes_per_s=10e6)
MESSAGE = bytes(32 * 1024)
SIP = 16 * 1024
EVERY_S = 0.02
MESSAGES = 10_000


async def sips(there: trio.socket.SocketType) -> AsyncIterator[int]:
    """What a peer takes, at less than a tenth of the floor, and never nothing for long."""
    while data := await there.recv(SIP):
        yield len(data)
        await trio.sleep(EVERY_S)  # its pace


async def test_one_that_takes_each_message_in_time_and_all_of_them_too_slowly() -> None:
    here, other = socket.socketpair()
    here.setblocking(False)
    there = trio.socket.from_stdlib_socket(other)
    transport = PlainTransport(here, PATIENCE)
    whole = 0

    async def drain() -> None:
        async for _ in sips(there):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(drain)
        gave_up = False
        with trio.fail_after(30.0):
            try:
                for _ in range(MESSAGES):
                    await transport.send(MESSAGE)
                    whole += 1
            except NotReading:
                gave_up = True
        nursery.cancel_scope.cancel()
    assert gave_up
    assert whole > 1
    transport.abort()
    there.close()


async def test_one_that_is_slow_and_catches_up_is_kept() -> None:
    here, other = socket.socketpair()
    here.setblocking(False)
    there = trio.socket.from_stdlib_socket(other)
    transport = PlainTransport(here, Patience(stalled_s=0.5, min_bytes_per_s=1024.0))

    async def pause_and_drain() -> None:
        await trio.sleep(0.3)  # its pause, within the patience
        while await there.recv(1024 * 1024):
            pass

    async with trio.open_nursery() as nursery:
        nursery.start_soon(pause_and_drain)
        for _ in range(200):
            await transport.send(MESSAGE)
        nursery.cancel_scope.cancel()
    assert transport.handed_over == 200 * len(MESSAGE)
    transport.abort()
    there.close()


@pytest.mark.parametrize("size", [64, 1024 * 1024])
async def test_one_that_takes_nothing(size: int) -> None:
    here, there = socket.socketpair()
    here.setblocking(False)
    transport = PlainTransport(here, Patience(stalled_s=0.2))

    async def send_without_end() -> None:
        while True:
            await transport.send(bytes(size))

    with trio.fail_after(10.0), pytest.raises(NotReading):
        await send_without_end()
    transport.abort()
    there.close()
