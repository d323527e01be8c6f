"""What a node follows goes out behind stops and before everything else, and the newest of it."""

import json
from collections import deque

import trio

from skygw.errors import LinkLost
from skygw.nodes.outbox import Lane, Outbox, Parcel, ParcelState
from skygw.nodes.relay import relay


class Scripted:
    """A following whose messages are made when they are asked for."""

    def __init__(self) -> None:
        self.news: deque[str] = deque()
        self.asked = 0
        self.closed = False

    async def next(self) -> list[str]:
        self.asked += 1
        await trio.lowlevel.checkpoint()
        if not self.news:
            await trio.sleep_forever()
        return [self.news.popleft()]

    def close(self) -> None:
        self.closed = True


async def test_the_next_is_asked_for_when_the_last_is_out(nursery: trio.Nursery) -> None:
    following, outbox = Scripted(), Outbox()
    following.news.extend(["1", "2"])
    nursery.start_soon(relay, following, outbox.put)
    (first,) = await outbox.next()
    for _ in range(20):
        await trio.lowlevel.checkpoint()
    assert (first.message, following.asked) == ("1", 1)
    first.settle(ParcelState.WRITTEN)
    (second,) = await outbox.next()
    assert second.message == "2"


async def test_a_stop_goes_before_it_and_everything_else_behind(nursery: trio.Nursery) -> None:
    following, outbox = Scripted(), Outbox()
    outbox.put(Lane.DATA, "data")
    outbox.put(Lane.CONTROL, "control")
    following.news.append("weather")
    nursery.start_soon(relay, following, outbox.put)
    while outbox.queued_bytes(Lane.SAFETY) == 0:
        await trio.lowlevel.checkpoint()
    outbox.put(Lane.SAFING, "stop")
    assert [parcel.message for parcel in await outbox.next()] == ["stop", "weather", "control", "data"]


async def test_when_the_session_ends_nothing_is_followed(nursery: trio.Nursery) -> None:
    following = Scripted()
    following.news.append(json.dumps({}))
    ended = trio.Event()

    def put(lane: Lane, text: str) -> Parcel:
        ended.set()
        raise LinkLost("The node's socket is ending.")

    with trio.CancelScope() as scope:
        async with trio.open_nursery() as inner:
            inner.start_soon(relay, following, put)
            await ended.wait()
            scope.cancel()
    assert following.closed
