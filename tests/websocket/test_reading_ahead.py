"""While an app is busy elsewhere its link is read for it; when it comes back, it reads by itself."""

import pytest
import trio
import trio.testing

from skygw.websocket import LinkClosed, Rhythm, WebSocket
from skygw.websocket.connection import LOOKS_AFTER_EVERY_S, READ_AHEAD_MESSAGES
from skygw.websocket.frames import CLOSE, PING, TEXT, close_payload, frame
from tests.websocket.memory_transport import MemoryTransport

NO_MASK = bytes(4)


def websocket(transport: MemoryTransport) -> WebSocket:
    return WebSocket(transport, is_client=False, max_message_bytes=1024, rhythm=Rhythm())


def text(said: str) -> bytes:
    return frame(TEXT, said.encode(), NO_MASK)


async def test_an_app_that_comes_back_while_it_is_read_for_hears_what_is_said_much_later(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = MemoryTransport()
    link = websocket(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep)
        await trio.sleep(LOOKS_AFTER_EVERY_S * 1.5)  # busy elsewhere, and the link is being read for it

        async def say_much_later() -> None:
            await trio.sleep(LOOKS_AFTER_EVERY_S * 2)
            transport.arrives(text("hello"))

        nursery.start_soon(say_much_later)
        with trio.fail_after(LOOKS_AFTER_EVERY_S * 3):
            assert await link.receive_one() == "hello"
        nursery.cancel_scope.cancel()
    assert link.fault is None
    assert not link.ended.is_set()


async def test_a_ping_to_a_busy_app_is_answered(autojump_clock: trio.testing.MockClock) -> None:
    transport = MemoryTransport()
    link = websocket(transport)
    transport.arrives(text("unread") * 22 + frame(PING, b"there?", NO_MASK))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(link.keep)
        await trio.sleep(LOOKS_AFTER_EVERY_S * 2)
        nursery.cancel_scope.cancel()
    assert transport.sent == b"\x8a\x06there?"


async def test_a_goodbye_to_a_busy_app_is_heard_behind_what_it_has_not_read(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = MemoryTransport()
    link = websocket(transport)
    transport.arrives(text("unread") * 11 + frame(CLOSE, close_payload(4242, "gone home"), NO_MASK))
    with trio.fail_after(LOOKS_AFTER_EVERY_S * 2):
        await link.keep()
    heard = [await link.receive_one() for _ in range(11)]
    with pytest.raises(LinkClosed) as closed:
        await link.receive_one()
    assert heard == ["unread"] * 11
    assert (closed.value.code, closed.value.reason) == (4242, "gone home")


async def test_reading_ahead_stops_at_its_bound_and_its_silence_is_not_the_peers(
    autojump_clock: trio.testing.MockClock,
) -> None:
    transport = MemoryTransport()
    link = websocket(transport)
    for _ in range(10):
        transport.arrives(text("x") * READ_AHEAD_MESSAGES)
    with trio.move_on_after(60.0):
        await link.keep()
    assert not link.ended.is_set()
    assert len(link._messages) == READ_AHEAD_MESSAGES
