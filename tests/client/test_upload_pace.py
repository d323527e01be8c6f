"""Uploads yield to the socket: their pace follows what they add to its round trip."""

import pytest
import trio
import trio.testing

from skygw.client.round_trip import RoundTrip
from skygw.client.upload_pace import SLOWEST, UploadPace
from skygw.protocol.codec import from_node
from skygw.protocol.limits import KIB, MIB
from skygw.protocol.node_frames import Ping

TARGET_S = 0.1


class Bottleneck:
    """A line of so many bytes a second that everything waits for in one queue, uploads and pings alike."""

    def __init__(self, bytes_per_s: float, *, latency_s: float = 0.04) -> None:
        self.bytes_per_s = bytes_per_s
        self.latency_s = latency_s
        self.round_trip = RoundTrip()
        self.carried = 0
        self.waits: list[tuple[float, float]] = []
        """(when, what a ping waited in the queue)."""
        self._free_at = trio.current_time()
        self._pings, self._to_answer = trio.open_memory_channel[tuple[str, float]](100)

    def put(self, size: int) -> float:
        """When it has passed."""
        self._free_at = max(self._free_at, trio.current_time()) + size / self.bytes_per_s
        return self._free_at

    def say(self, text: str) -> None:
        (read,) = from_node.decode(text)
        frame = getattr(read, "frame", None)
        assert isinstance(frame, Ping)
        assert frame.id is not None
        now = trio.current_time()
        self.waits.append((now, max(0.0, self._free_at - now)))
        self._pings.send_nowait((frame.id, self.put(60) + self.latency_s))

    async def answer(self) -> None:
        async for name, at in self._to_answer:
            await trio.sleep_until(at)
            self.round_trip.answered(name)

    async def upload(self, pace: UploadPace) -> None:
        """As a kernel takes it: at once, and it waits in the line's queue."""
        while True:
            size = pace.slice_bytes
            await pace.turn(size)
            self.put(size)
            self.carried += size


def waits_between(line: Bottleneck, begin: float, end: float) -> list[float]:
    return sorted(wait for at, wait in line.waits if begin <= at < end)


@pytest.mark.parametrize("bytes_per_s", [64_000, 1_250_000, 12_500_000], ids=["0.5 Mbit/s", "10 Mbit/s", "100 Mbit/s"])
async def test_uploads_use_the_line_and_add_little_to_the_round_trip(
    autojump_clock: trio.testing.MockClock, bytes_per_s: int
) -> None:
    line = Bottleneck(bytes_per_s)
    pace = UploadPace(line.round_trip, target_s=TARGET_S, most_per_s=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.answer)
        nursery.start_soon(pace.keep, line.say)
        nursery.start_soon(line.upload, pace)
        nursery.start_soon(line.upload, pace)
        began = trio.current_time()
        await trio.sleep(60)
        before = line.carried
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    waits = waits_between(line, began + 60, began + 120)
    assert waits[len(waits) // 2] < 2 * TARGET_S
    assert waits[-1] < 5 * TARGET_S
    assert line.carried - before > 0.5 * 60 * bytes_per_s


async def test_without_looking_at_the_round_trip_it_would_grow_without_bound(
    autojump_clock: trio.testing.MockClock,
) -> None:
    line = Bottleneck(64_000)
    pace = UploadPace(line.round_trip, target_s=1e9, most_per_s=10 * MIB)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.answer)
        nursery.start_soon(pace.keep, line.say)
        nursery.start_soon(line.upload, pace)
        await trio.sleep(30)
        nursery.cancel_scope.cancel()

    assert line.waits[-1][1] > 10.0


async def test_a_line_that_becomes_slower_is_noticed(autojump_clock: trio.testing.MockClock) -> None:
    line = Bottleneck(1_250_000)
    pace = UploadPace(line.round_trip, target_s=TARGET_S, most_per_s=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.answer)
        nursery.start_soon(pace.keep, line.say)
        nursery.start_soon(line.upload, pace)
        began = trio.current_time()
        await trio.sleep(30)
        line.bytes_per_s = 125_000
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    waits = waits_between(line, began + 60, began + 90)
    assert waits[len(waits) // 2] < 3 * TARGET_S


async def test_nothing_is_asked_while_nothing_is_sent_but_once_at_the_beginning(
    autojump_clock: trio.testing.MockClock,
) -> None:
    line = Bottleneck(1_250_000)
    pace = UploadPace(line.round_trip, target_s=TARGET_S, most_per_s=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.answer)
        nursery.start_soon(pace.keep, line.say)
        await trio.sleep(60)
        idle = len(line.waits)
        await pace.turn(16 * KIB)
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    assert idle == 1
    assert 1 < len(line.waits) < 10


async def test_a_gateway_that_does_not_answer_makes_uploads_slow(autojump_clock: trio.testing.MockClock) -> None:
    line = Bottleneck(1_250_000)
    pace = UploadPace(line.round_trip, target_s=TARGET_S, most_per_s=None)
    async with trio.open_nursery() as nursery:
        nursery.start_soon(line.answer)
        nursery.start_soon(pace.keep, line.say)
        nursery.start_soon(line.upload, pace)
        await trio.sleep(10)
        quick = pace.bytes_per_s
        line.latency_s = 1e6
        await trio.sleep(60)
        nursery.cancel_scope.cancel()

    assert quick > 10 * SLOWEST
    assert pace.bytes_per_s < 2 * SLOWEST


async def test_without_a_socket_only_the_setting_bounds_the_pace(autojump_clock: trio.testing.MockClock) -> None:
    pace = UploadPace(RoundTrip(), target_s=TARGET_S, most_per_s=1_000_000)
    began = trio.current_time()
    for _ in range(10):
        await pace.turn(100_000)

    assert trio.current_time() - began == pytest.approx(1.0)


def ask(trip: RoundTrip) -> str:
    text = trip.ask()
    assert text is not None
    (read,) = from_node.decode(text)
    frame = getattr(read, "frame", None)
    assert isinstance(frame, Ping)
    assert frame.id is not None
    return frame.id


async def test_what_is_added_is_counted_from_the_shortest_and_of_an_overdue_answer_while_it_is(
    autojump_clock: trio.testing.MockClock,
) -> None:
    trip = RoundTrip()
    trip.begin()
    unknown = trip.added_s()
    for seconds in (0.2, 0.05, 0.3):
        name = ask(trip)
        await trio.sleep(seconds)
        trip.answered(name)
    added = trip.added_s()
    name = ask(trip)
    twice = trip.ask()
    await trio.sleep(2.05)
    overdue = trip.added_s()
    trip.answered("another's")
    still = trip.added_s()

    assert unknown is None
    assert added == pytest.approx(0.25)
    assert twice is None
    assert overdue == still == pytest.approx(2.0)


async def test_a_shortest_round_trip_is_forgotten_after_a_while(autojump_clock: trio.testing.MockClock) -> None:
    trip = RoundTrip()
    trip.begin()
    name = ask(trip)
    trip.answered(name)
    for _ in range(30):
        name = ask(trip)
        await trio.sleep(0.5)
        trip.answered(name)
        await trio.sleep(60)

    assert trip.added_s() == pytest.approx(0.0)
