"""One direction over a bad line, on a clock that jumps: what arrives, when, and how it ends."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from math import inf

import pytest
import trio
import trio.testing

from skygw.sim.line import Course, Line, Way
from skygw.sim.mishaps import Mishaps
from skygw.sim.pipe import End, Pipe
from skygw.sim.traffic import Counts, Traffic

MBIT = Course(bits_per_s=1_000_000, latency_s=0.15)
"""125,000 bytes per second."""


@dataclass
class Rig:
    """Pipes upwards over one line. `sender` and `receiver` are the ends of the first."""

    line: Line
    traffic: Traffic
    nursery: trio.Nursery
    pipes: list[Pipe]
    ends: list[End]

    def connect(self, seed: object = "seed") -> tuple[trio.abc.SendStream, trio.abc.ReceiveStream]:
        sender, source = trio.testing.lockstep_stream_one_way_pair()
        target, receiver = trio.testing.lockstep_stream_one_way_pair()
        mishaps = Mishaps(self.line.up, seed, len(self.pipes))
        pipe = Pipe(source, target, line=self.line, way=Way.UP, traffic=self.traffic, mishaps=mishaps)
        self.pipes.append(pipe)
        self.traffic.connections += 1
        self.nursery.start_soon(self._run, pipe, target)
        return sender, receiver

    async def _run(self, pipe: Pipe, target: trio.abc.SendStream) -> None:
        self.ends.append(await pipe.run())
        await target.aclose()


@asynccontextmanager
async def rig(up: Course) -> AsyncIterator[Rig]:
    line = Line(up=up, down=up)
    async with trio.open_nursery() as nursery:
        yield Rig(line, Traffic(up, Counts()), nursery, [], [])
        nursery.cancel_scope.cancel()


async def received(stream: trio.abc.ReceiveStream, count: float = inf) -> bytes:
    """So many bytes, or all there are to the end."""
    data = bytearray()
    while len(data) < count and (piece := await stream.receive_some()):
        data += piece
    return bytes(data)


async def received_within(stream: trio.abc.ReceiveStream, seconds: float) -> bytes:
    data = bytearray()
    with trio.move_on_after(seconds):
        while piece := await stream.receive_some():
            data += piece
    return bytes(data)


async def test_a_piece_arrives_after_the_latency_and_its_time_on_the_line(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(MBIT) as line:
        sender, receiver = line.connect()
        began = trio.current_time()
        await sender.send_all(b"x" * 1_250)
        await received(receiver, 1_250)
        assert trio.current_time() - began == pytest.approx(0.15 + 0.01)


async def test_latency_costs_no_throughput(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        sender, receiver = line.connect()
        line.nursery.start_soon(sender.send_all, bytes(10_000_000))
        arrived = await received_within(receiver, 0.15 + 10)
        assert len(arrived) == pytest.approx(1_250_000, rel=0.01)


async def test_the_connections_of_a_line_share_its_rate_fairly(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        ends = [line.connect() for _ in range(4)]
        arrived: list[int] = []

        async def count(receiver: trio.abc.ReceiveStream) -> None:
            arrived.append(len(await received_within(receiver, 0.15 + 8)))

        async with trio.open_nursery() as reading:
            for sender, receiver in ends:
                line.nursery.start_soon(sender.send_all, bytes(10_000_000))
                reading.start_soon(count, receiver)
        assert sum(arrived) == pytest.approx(1_000_000, rel=0.01)
        assert max(arrived) - min(arrived) <= 2 * MBIT.turn_bytes


async def test_a_short_message_does_not_wait_for_the_bulk_of_others(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        bulk = [line.connect() for _ in range(8)]
        sender, receiver = line.connect()
        for busy, sink in bulk:
            line.nursery.start_soon(busy.send_all, bytes(10_000_000))
            line.nursery.start_soon(received, sink)
        await trio.sleep(5)
        began = trio.current_time()
        await sender.send_all(b"stop")
        await received(receiver, 4)
        a_turn_of_each_s = 9 * MBIT.turn_bytes / MBIT.bytes_per_s
        assert trio.current_time() - began <= 0.15 + a_turn_of_each_s


async def test_what_waits_and_flies_is_bounded_and_the_sender_feels_it(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        sender, _ = line.connect()
        line.nursery.start_soon(sender.send_all, bytes(10_000_000))
        await trio.sleep(60)  # nobody receives
        bound = MBIT.queue_bytes + line.line.flight_bytes(Way.UP) + MBIT.turn_bytes
        assert 0 < line.pipes[0].held <= bound


async def test_a_receiver_that_reads_nothing_takes_nothing_from_the_others(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(MBIT) as line:
        stuck, _ = line.connect()
        sender, receiver = line.connect()
        line.nursery.start_soon(stuck.send_all, bytes(10_000_000))
        await trio.sleep(60)
        line.nursery.start_soon(sender.send_all, bytes(10_000_000))
        assert len(await received_within(receiver, 0.15 + 8)) == pytest.approx(1_000_000, rel=0.01)


async def test_nothing_overtakes_however_much_the_line_jitters(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(Course(bits_per_s=10_000_000, latency_s=0.05, jitter_s=0.2, loss=0.1)) as line:
        sender, receiver = line.connect()
        sent = b"".join(number.to_bytes(4, "big") for number in range(50_000))
        line.nursery.start_soon(sender.send_all, sent)
        assert await received(receiver, len(sent)) == sent
        assert line.traffic.counts.losses > 0


async def test_a_lost_segment_comes_a_round_trip_later_and_what_is_behind_it_waits(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(Course(latency_s=0.3, loss=1.0)) as line:
        sender, receiver = line.connect()
        began = trio.current_time()
        await sender.send_all(bytes(14_000))
        await received(receiver, 14_000)
        assert trio.current_time() - began >= 0.3 + 0.6


async def test_while_the_line_stalls_nothing_moves_and_afterwards_everything_goes_on(
    autojump_clock: trio.testing.MockClock,
) -> None:
    async with rig(MBIT) as line:
        sender, receiver = line.connect()
        line.nursery.start_soon(sender.send_all, bytes(10_000_000))
        await received_within(receiver, 2)
        line.traffic.gate.shut(5)
        assert await received_within(receiver, 5) == b""
        assert len(await received_within(receiver, 4)) == pytest.approx(500_000, rel=0.1)


async def test_a_shorter_stall_does_not_end_a_longer_one(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(Course()) as line:
        sender, receiver = line.connect()
        line.traffic.gate.shut(5)
        line.traffic.gate.shut(1)
        await sender.send_all(b"x")
        assert await received_within(receiver, 4.9) == b""
        assert await received_within(receiver, 0.2) == b"x"


async def test_a_slow_reader_takes_so_many_bytes_a_second(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(Course()) as line:
        line.traffic.read_bytes_per_s = 1_000
        sender, receiver = line.connect()
        line.nursery.start_soon(sender.send_all, bytes(1_000_000))
        assert len(await received_within(receiver, 30)) == pytest.approx(30_000, rel=0.02)


async def test_bytes_are_changed_at_the_same_places_for_the_same_seed(autojump_clock: trio.testing.MockClock) -> None:
    async def arrived(seed: str, pause_s: float) -> tuple[bytes, int]:
        async with rig(Course(flip=0.001)) as line:
            sender, receiver = line.connect(seed)
            for _ in range(10):
                await sender.send_all(bytes(1_000))
                await trio.sleep(pause_s)
            return await received(receiver, 10_000), line.traffic.counts.flips

    first, flips = await arrived("a", 0)
    assert sum(byte != 0 for byte in first) == flips > 0
    assert await arrived("a", 0.5) == (first, flips)
    assert (await arrived("b", 0))[0] != first


async def test_one_byte_is_changed_at_a_chosen_place_once(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(Course()) as line:
        line.traffic.flip_at.add(700)
        sender, receiver = line.connect()
        await sender.send_all(bytes(1_000))
        arrived = await received(receiver, 1_000)
        assert [place for place, byte in enumerate(arrived) if byte] == [700]
        other, other_end = line.connect()
        await other.send_all(bytes(1_000))
        assert await received(other_end, 1_000) == bytes(1_000)


async def test_the_end_arrives_behind_the_last_byte(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        sender, receiver = line.connect()
        await sender.send_all(bytes(20_000))
        await sender.aclose()
        assert len(await received(receiver)) == 20_000
        assert line.ends == [End.FINISHED]


async def test_bytes_that_vanish_never_arrive_and_neither_does_the_end(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        sender, receiver = line.connect()
        await sender.send_all(b"before")
        await received(receiver, 6)
        await sender.send_all(b"on its way")
        line.pipes[0].vanish()
        await sender.send_all(bytes(1_000_000))  # taken, all of it
        assert await received_within(receiver, 60) == b""
        assert line.pipes[0].held == 0
        await sender.aclose()
        await trio.testing.wait_all_tasks_blocked()
        assert line.ends == [End.VANISHED]


async def test_an_end_that_was_on_its_way_vanishes_too(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        sender, _ = line.connect()
        await sender.aclose()
        await trio.testing.wait_all_tasks_blocked()
        line.pipes[0].vanish()
        await trio.testing.wait_all_tasks_blocked()
        assert line.ends == [End.VANISHED]


async def test_a_receiver_that_is_gone_ends_the_pipe(autojump_clock: trio.testing.MockClock) -> None:
    async with rig(MBIT) as line:
        sender, receiver = line.connect()
        await receiver.aclose()
        await sender.send_all(b"to nobody")
        await trio.sleep(1)
        assert line.ends == [End.RECEIVER_GONE]
