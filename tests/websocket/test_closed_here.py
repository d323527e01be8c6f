"""A connection that was closed here says so to whoever waits on it, or comes late, however many they are."""

import socket

import pytest
import trio

from skygw.websocket import ConnectionLost, Patience, PlainTransport


def transport() -> tuple[PlainTransport, socket.socket]:
    here, there = socket.socketpair()
    here.setblocking(False)
    there.setblocking(False)
    return PlainTransport(here, Patience()), there


async def test_receiving_on_closed_connections_says_that_they_are_closed() -> None:
    """One after the other: Trio's own wait would call the second one busy."""
    for _ in range(2):
        closed, there = transport()
        closed.close()
        with pytest.raises(ConnectionLost):
            await closed.receive()
        there.close()


async def test_closing_wakes_who_receives() -> None:
    closed, there = transport()
    lost = False

    async def receive() -> None:
        nonlocal lost
        try:
            await closed.receive()
        except ConnectionLost:
            lost = True

    async with trio.open_nursery() as nursery:
        nursery.start_soon(receive)
        await trio.testing.wait_all_tasks_blocked()
        closed.abort()
    assert lost
    there.close()
