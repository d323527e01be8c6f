"""A WebSocket on a connection in memory: who is told what, whoever ends it, and what is known of each message."""

import pytest
import trio
import trio.testing

from skygw.websocket.connection import MAX_PONG_BYTES, MESSAGES_AT_ONCE
from skygw.websocket.frames import CLOSE, PING, TEXT, Close, FrameReader, Pong, close_payload, frame
from skygw.websocket.keeping import LOOKS_AFTER_EVERY_S
from skygw.websocket.outcomes import Fault, LinkClosed, Sent
from tests.fakes.memory_transport import MASK, MemoryTransport, opened, text

Clock = trio.testing.MockClock


# In.


async def test_messages_that_came_together_are_received_together_and_no_more_than_a_few_at_once() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    transport.say(b"".join(text(str(number)) for number in range(MESSAGES_AT_ONCE + 3)))
    assert await socket.receive() == [str(number) for number in range(MESSAGES_AT_ONCE)]
    assert await socket.receive_one() == "16"
    assert await socket.receive() == ["17", "18"]


async def test_what_came_behind_the_handshake_is_received_first() -> None:
    transport = MemoryTransport()
    socket = opened(transport, unread=text("early"))
    transport.say(text("later"))
    assert [await socket.receive_one() for _ in range(2)] == ["early", "later"]


async def test_a_cancelled_receive_loses_nothing(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    with trio.move_on_after(1):
        await socket.receive()
    transport.say(text("kept"))
    assert await socket.receive() == ["kept"]


async def test_a_loop_of_receives_that_never_waits_gives_way_to_others() -> None:
    transport = MemoryTransport()
    socket = opened(transport, unread=b"".join(text("x") for _ in range(100)))
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        for _ in range(100):
            await socket.receive_one()
        nursery.cancel_scope.cancel()
    assert turns >= 100 // MESSAGES_AT_ONCE - 1


async def test_pings_are_answered_with_their_payloads_in_order() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    transport.say(frame(PING, b"one", MASK) + frame(PING, b"two", MASK) + text("behind"))
    assert await socket.receive() == ["behind"]
    assert transport.said == [Pong(b"one"), Pong(b"two")]


async def test_a_flood_of_pings_fills_nothing_and_its_last_one_is_answered() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    transport.say(b"".join(frame(PING, b"%125d" % number, MASK) for number in range(500)) + text("behind"))
    assert await socket.receive() == ["behind"]
    assert transport.said[-1] == Pong(b"%125d" % 499)
    assert transport.handed_over <= MAX_PONG_BYTES + 200


async def test_a_ping_and_a_goodbye_right_behind_the_handshake_are_answered() -> None:
    transport = MemoryTransport()
    unread = frame(PING, b"early", MASK) + frame(CLOSE, close_payload(1_000, ""), MASK)
    socket = opened(transport, unread=unread)
    with pytest.raises(LinkClosed):
        await socket.receive()
    assert transport.said == [Pong(b"early"), Close(1_000, "")]
    assert socket.ended.is_set()


async def test_the_peers_goodbye_is_answered_and_told_with_its_code_after_the_last_message() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    transport.say(text("last") + frame(CLOSE, close_payload(4_242, "enough"), MASK))
    assert await socket.receive() == ["last"]
    for _ in range(2):
        with pytest.raises(LinkClosed) as told:
            await socket.receive()
        assert (told.value.code, told.value.reason, told.value.fault) == (4_242, "enough", None)
    assert transport.said == [Close(4_242, "")]
    assert socket.ended.is_set()
    with pytest.raises(LinkClosed):
        await socket.send(["too late"])


async def test_a_connection_that_breaks_has_no_code() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    transport.hang_up()
    with pytest.raises(LinkClosed) as told:
        await socket.receive()
    assert told.value.code is None


@pytest.mark.parametrize(
    ("sent", "own", "code"),
    [
        (b"\x81\x00", None, 1002),
        (b"\x81\x00", 4500, 4500),
        (frame(TEXT, b"\xff", MASK), None, 1007),
        (b"\x82\xff" + (1 << 21).to_bytes(8) + MASK, 4500, 1009),
    ],
    ids=["framing", "framing, with a code of our own", "no UTF-8", "size, which has one code only"],
)
async def test_a_broken_rule_ends_the_link_with_a_code_and_blames_the_peer(
    sent: bytes, own: int | None, code: int
) -> None:
    transport = MemoryTransport()
    socket = opened(transport, violation_code=own)
    transport.say(text("fine") + sent)
    assert await socket.receive() == ["fine"]
    with pytest.raises(LinkClosed) as told:
        await socket.receive()
    assert (told.value.code, told.value.fault) == (code, Fault.BROKE_A_RULE)
    (goodbye,) = transport.said
    assert isinstance(goodbye, Close)
    assert (goodbye.code, goodbye.reason) == (code, told.value.reason)


async def test_a_flood_of_empty_frames_lets_others_have_their_turn() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    turns = 0

    async def count() -> None:
        nonlocal turns
        while True:
            turns += 1
            await trio.lowlevel.checkpoint()

    transport.say(text("") * (64 * 1024 // 6))
    async with trio.open_nursery() as nursery:
        nursery.start_soon(count)
        await trio.lowlevel.checkpoint()
        before = turns
        await socket.receive()
        nursery.cancel_scope.cancel()
    assert turns - before >= 64 // 8 - 3  # who runs first in a turn is left to chance


# Out.


async def test_many_messages_are_one_write() -> None:
    transport = MemoryTransport()
    sent = Sent()
    await opened(transport).send(["a", b"b", "ü"], sent)
    assert len(transport.writes) == 1
    assert transport.said == ["a", b"b", "ü"]
    assert sent == Sent(whole=3)


async def test_a_client_masks_with_a_key_of_its_own_each_time() -> None:
    transport = MemoryTransport()
    socket = opened(transport, is_client=True)
    await socket.send(["same"])
    await socket.send(["same"])
    assert transport.writes[0] != transport.writes[1]
    reader = FrameReader(masked=True, max_message_bytes=100)
    assert reader.feed(b"".join(transport.writes)) == ["same", "same"]


async def test_of_a_write_that_stalls_it_is_known_what_was_handed_over(autojump_clock: Clock) -> None:
    transport = MemoryTransport(room=2 * 6 + 3)  # two frames of six bytes, and a part of the third
    socket = opened(transport)
    sent = Sent()
    began = trio.current_time()
    with pytest.raises(LinkClosed) as told:
        await socket.send(["aaaa"] * 5, sent)
    assert told.value.fault is Fault.DOES_NOT_READ
    assert "took 15 of 30 bytes" in told.value.reason
    assert trio.current_time() - began == transport.patience_s
    assert sent == Sent(whole=2, doubtful=1)
    assert transport.aborted


async def test_a_write_cancelled_in_the_middle_ends_the_link(autojump_clock: Clock) -> None:
    transport = MemoryTransport(room=3)
    socket = opened(transport)
    sent = Sent()
    with trio.move_on_after(1):
        await socket.send(["aaaa", "bbbb"], sent)
    assert sent == Sent(whole=0, doubtful=1)
    assert transport.aborted
    assert socket.ended.is_set()


async def test_a_write_cancelled_before_its_first_byte_leaves_the_link_as_it_was() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    sent = Sent()
    with trio.CancelScope() as scope:
        scope.cancel()
        await socket.send(["never"], sent)
    assert sent == Sent()
    await socket.send(["after"], sent)
    assert transport.said == ["after"]


async def test_a_write_that_waits_for_another_is_not_begun(autojump_clock: Clock) -> None:
    transport = MemoryTransport(room=0)
    socket = opened(transport)
    sent = Sent()
    async with trio.open_nursery() as nursery:

        async def blocked() -> None:
            with pytest.raises(LinkClosed):
                await socket.send(["first"])

        nursery.start_soon(blocked)
        await trio.testing.wait_all_tasks_blocked()
        with trio.move_on_after(1):
            await socket.send(["second"], sent)
    assert sent == Sent()


async def test_a_pong_that_is_due_while_a_write_stalls_goes_out_right_after_it(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    async with trio.open_nursery() as nursery:
        socket._writing = True  # as if another task were in the middle of a write
        transport.say(frame(PING, b"now", MASK) + text("x"))
        assert await socket.receive() == ["x"]
        assert transport.said == []
        socket._writing = False
        nursery.start_soon(socket.send, ["data"])
    assert transport.said == [Pong(b"now"), "data"]


async def test_all_who_wait_for_a_write_that_ends_the_link_are_told(autojump_clock: Clock) -> None:
    transport = MemoryTransport(room=0)
    socket = opened(transport)
    told = 0

    async def send() -> None:
        nonlocal told
        with pytest.raises(LinkClosed):
            await socket.send(["x"])
        told += 1

    with trio.fail_after(60):
        async with trio.open_nursery() as nursery:
            for _ in range(3):
                nursery.start_soon(send)
    assert told == 3


async def test_a_peer_that_pings_without_end_does_not_hold_the_writer() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    write = transport.send

    async def send_and_be_pinged(data: bytes) -> None:
        await write(data)
        socket._take(frame(PING, b"again", MASK))

    transport.send = send_and_be_pinged  # type: ignore[method-assign]
    await socket.send(["data"])
    assert transport.said == ["data", Pong(b"again")]


async def test_our_goodbye_is_said_once_and_the_peers_ends_the_link() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    await socket.close(4_001, "draining")
    await socket.close(1_000, "again")
    assert transport.said == [Close(4_001, "draining")]
    with pytest.raises(LinkClosed):
        await socket.send(["too late"])
    transport.say(text("already on its way") + frame(CLOSE, close_payload(4_001, ""), MASK))
    assert await socket.receive() == ["already on its way"]
    with pytest.raises(LinkClosed) as told:
        await socket.receive()
    assert (told.value.code, told.value.reason) == (4_001, "draining")
    assert socket.ended.is_set()


async def test_an_abort_wakes_whoever_receives() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    async with trio.open_nursery() as nursery:

        async def wait() -> None:
            with pytest.raises(LinkClosed):
                await socket.receive()

        nursery.start_soon(wait)
        await trio.testing.wait_all_tasks_blocked()
        socket.abort()
        socket.abort()
    assert transport.aborted


async def test_a_goodbye_cancelled_before_its_first_byte_was_not_said() -> None:
    transport = MemoryTransport()
    socket = opened(transport)
    with trio.CancelScope() as scope:
        scope.cancel()
        await socket.close(4_001, "draining")
    assert transport.said == []
    await socket.send(["still here"])
    await socket.close(4_002, "silent")
    assert transport.said == ["still here", Close(4_002, "silent")]


async def test_whoever_receives_is_told_of_a_lost_link_in_its_turn(autojump_clock: Clock) -> None:
    transport = MemoryTransport()
    turn = trio.Event()
    socket = opened(transport, parting=turn.wait)
    told_at: list[float] = []

    async def receive() -> None:
        with pytest.raises(LinkClosed):
            await socket.receive()
        told_at.append(trio.current_time())

    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.keep)
        nursery.start_soon(receive)
        transport.hang_up()
        await trio.sleep(2 * LOOKS_AFTER_EVERY_S)
        assert (told_at, socket.ended.is_set(), transport.reads) == ([], False, 1)
        now = trio.current_time()
        turn.set()
    assert told_at == [now]


async def test_whoever_sends_is_told_of_a_lost_link_at_once() -> None:
    transport = MemoryTransport()
    socket = opened(transport, parting=trio.sleep_forever)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(socket.receive)
        await trio.testing.wait_all_tasks_blocked()
        transport.hang_up()
        transport.aborted = True
        await trio.testing.wait_all_tasks_blocked()
        with pytest.raises(LinkClosed):
            await socket.send(["a command"])
        assert socket.ended.is_set()
        nursery.cancel_scope.cancel()
