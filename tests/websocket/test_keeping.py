"""Who is asked for a sign of life and who is given up, and what goes on while the app is busy elsewhere."""

import socket as stdlib
import time

import pytest
import trio
import trio.testing

from skygw.websocket.connection import READ_AHEAD_BYTES, WebSocket
from skygw.websocket.frames import CLOSE, PING, PONG, Ping, Pong, close_payload, frame
from skygw.websocket.keeping import LOOKS_AFTER_EVERY_S, Rhythm
from skygw.websocket.outcomes import Fault, LinkClosed
from skygw.websocket.transport import Patience, PlainTransport
from tests.fakes.memory_transport import MASK, MemoryTransport, opened, text

Clock = trio.testing.MockClock


async def test_a_silent_peer_is_asked_and_then_given_up(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    began = trio.current_time()
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.keep)
        with pytest.raises(LinkClosed) as told:
            await socket.receive()
    assert told.value.fault is Fault.GONE
    assert told.value.code is None
    assert transport.said == [Ping(b"")]
    assert trio.current_time() - began == 25
    assert transport.aborted


async def test_a_ping_that_may_not_go_out_yet_is_tried_again_at_the_next_look(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    with trio.move_on_after(10 + 2 * LOOKS_AFTER_EVERY_S):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.keep)
            nursery.start_soon(socket.receive)
            socket._writing = True  # as if another task were in the middle of a write
            await trio.sleep(10 + LOOKS_AFTER_EVERY_S)
            assert transport.said == []
            socket._writing = False
    assert transport.said == [Ping(b"")]


async def test_a_peer_that_falls_silent_while_the_app_is_busy_is_given_up_in_the_same_time(
    autojump_clock: Clock,
) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    transport.say(text("the last"))
    began = trio.current_time()
    await socket.keep()
    assert socket.fault is Fault.GONE
    assert trio.current_time() - began <= 25 + LOOKS_AFTER_EVERY_S  # the last was read at the first look


async def test_a_peer_that_answers_is_kept(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    with trio.move_on_after(200):
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.keep)
            nursery.start_soon(socket.receive)
            answered = 0
            while True:
                await trio.sleep(1)
                if len(transport.said) > answered:
                    answered = len(transport.said)
                    transport.say(frame(PONG, b"", MASK))
    assert not socket.ended.is_set()
    assert len(transport.said) >= 10


async def test_pings_are_answered_and_a_goodbye_is_seen_while_the_app_is_busy_elsewhere(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.keep)
        transport.say(text("unread") * 30 + frame(PING, b"there?", MASK))
        await trio.sleep(3 * LOOKS_AFTER_EVERY_S)
        assert transport.said == [Pong(b"there?")]
        transport.say(frame(CLOSE, close_payload(1_001, ""), MASK))
        await socket.ended.wait()
    assert sum([len(await socket.receive()) for _ in range(2)]) == 30
    with pytest.raises(LinkClosed) as told:
        await socket.receive()
    assert told.value.code == 1_001


async def test_reading_pauses_when_the_app_is_far_behind_and_its_peer_is_not_blamed(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.keep)
        for _ in range(100):
            transport.say(text("x" * 60_000))
        await trio.sleep(120)
        assert not socket.ended.is_set()
        assert transport.reads <= READ_AHEAD_BYTES // 60_000 + 2
        got = 0
        while got < 100:
            got += len(await socket.receive())
        nursery.cancel_scope.cancel()


async def test_whoever_receives_again_gets_what_was_read_ahead_and_then_reads_itself(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.keep)
        await trio.sleep(LOOKS_AFTER_EVERY_S * 1.5)  # by now it reads for us
        transport.say(text("first"))
        assert await socket.receive() == ["first"]
        transport.say(text("second"))
        assert await socket.receive() == ["second"]
        nursery.cancel_scope.cancel()


async def test_an_app_that_waits_while_it_is_read_for_hears_what_comes_after_that_has_ended(
    autojump_clock: Clock,
) -> None:
    transport = MemoryTransport()
    socket = opened(transport)

    async def say_late() -> None:
        await trio.sleep(LOOKS_AFTER_EVERY_S * 2)
        transport.say(text("late"))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.keep)
        await trio.sleep(LOOKS_AFTER_EVERY_S * 1.5)  # by now it reads for us, for so long again
        nursery.start_soon(say_late)
        with trio.fail_after(LOOKS_AFTER_EVERY_S * 3):
            assert await socket.receive() == ["late"]


async def test_a_ping_that_finds_the_app_back_leaves_the_reading_to_one_of_them(autojump_clock: Clock) -> None:
    class OneReader(MemoryTransport):
        """As a socket: two who read at once are an error."""

        readers = 0

        async def receive(self) -> bytes:
            self.readers += 1
            assert self.readers == 1
            try:
                return await super().receive()
            finally:
                self.readers -= 1

    transport = OneReader()
    socket = opened(transport)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.keep)
        await trio.sleep(LOOKS_AFTER_EVERY_S * 1.5)  # by now it reads for us
        got = await gather(nursery, socket)
        transport.say(frame(PING, b"", MASK))
        await trio.sleep(1)
        transport.say(text("x"))
        await trio.sleep(1)
        nursery.cancel_scope.cancel()
    assert got == ["x"]


async def gather(nursery: trio.Nursery, socket: WebSocket) -> list[str | bytes]:
    """What the next `receive` brings, once it has."""
    got: list[str | bytes] = []

    async def receive() -> None:
        got.extend(await socket.receive())

    nursery.start_soon(receive)
    await trio.testing.wait_all_tasks_blocked()
    return got


async def test_bytes_that_came_while_the_process_stood_still_are_life() -> None:
    """Timers and readers wake in the same turn then, in any order."""
    near, far = stdlib.socketpair()
    with near, far:
        near.setblocking(False)
        rhythm = Rhythm(ping_after_s=0.1, gone_after_s=0.2)
        transport = PlainTransport(near, Patience())
        socket = WebSocket(transport, is_client=False, max_message_bytes=100, rhythm=rhythm)
        async with trio.open_nursery() as nursery:
            nursery.start_soon(socket.keep)
            got = await gather(nursery, socket)
            for _ in range(8):
                far.send(text("alive"))
                time.sleep(0.25)  # noqa: ASYNC251 - it is the whole process that stands still
                await trio.testing.wait_all_tasks_blocked()
                assert not socket.ended.is_set()
                assert got.pop() == "alive"
                got = await gather(nursery, socket)
            nursery.cancel_scope.cancel()
