"""After six hours without a line: a night's reports are caught up within a minute, and the node answers all the while.

The real sender, its lanes and its calls against a real session of the gateway, over a line of 20 Mbit/s and 120 ms, in
simulated time. Instead of threads the journal is asked in place: threads and a clock that jumps do not go together.
`nox -s catch_up` does it with 100,000; CI with as much as takes a second, and as much less time.
"""

import os
import sys
from collections.abc import Callable
from datetime import UTC, datetime
from pathlib import Path
from typing import TypeVar
from uuid import UUID

import trio
import trio.testing

from skygw.client.direct import Calls, DirectCall, Operations
from skygw.client.durable_sender import DurableSender
from skygw.client.journal import Journal
from skygw.client.lanes import Lanes, Snapshots
from skygw.client.outbox import Outbox
from skygw.protocol.codec import BadFrame, encode, from_gateway
from skygw.protocol.gateway_frames import Ack, DirectCredit, DirectRequest, Welcome
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MIB
from skygw.protocol.node_frames import Ping, Pong, PublishLog
from tests.fakes.rooms import Gateway, PlayedLink, Site, direct_order

T = TypeVar("T")

QUEUED = int(os.environ.get("SKYGW_TEST_QUEUED", "5000"))
LINE_BYTES_PER_S = 2_500_000.0
LATENCY_S = 0.06
COMMIT_S = 0.02
EACH_S = 0.5
CAUGHT_UP_WITHIN_S = 60.0 * QUEUED / 100_000


async def in_place(work: Callable[[], T], /) -> T:
    """Work on the disk without a thread."""
    await trio.lowlevel.checkpoint()
    return work()


def filled(directory: Path, count: int) -> Journal:
    """Lines as of six hours; one transaction, since it is not the keeping of them that is tried here."""
    journal = Journal(directory, max_bytes=1024 * MIB)
    text = encode(
        PublishLog(
            seq=987_654_321,
            data=Opaque.of(
                {
                    "logEntryType": "device",
                    "deviceUid": str(UUID(int=1)),
                    "severity": "info",
                    "message": "The dome followed the mount to azimuth 213.4, and the guider settled after 4.2 s.",
                }
            ),
            observed_at=datetime.now(UTC),
        )
    )
    rows = ((seq, text.replace("987654321", str(seq)), len(text)) for seq in range(1, count + 1))
    with journal._transaction():
        journal._connection.executemany("INSERT INTO frames VALUES (?, ?, ?)", rows)
        journal._set("next_seq", count + 1)
    return journal


class Node:
    """What of a node's client brings its reports and answers its calls, at the other end of a memory link."""

    def __init__(self, outbox: Outbox, link: PlayedLink, welcome: Welcome) -> None:
        self.link = link
        self.lanes = Lanes(Snapshots())
        self.sender = DurableSender(outbox, self.lanes, welcome.limits, hub_has=welcome.acked_seq)
        self.outbox = outbox
        operations = Operations()
        operations.register("device.read", _device_read, effects="none")
        self.calls = Calls(operations, limits=welcome.limits, lanes=self.lanes)
        self._fly, self._flying = trio.open_memory_channel[tuple[float, str | bytes]](100_000)
        self._come, self._coming = trio.open_memory_channel[tuple[float, str | bytes]](100_000)

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            for task in (self.sender.run, self.calls.run, self._write, self._carry, self._hear, self._read):
                nursery.start_soon(task)

    async def _write(self) -> None:
        while True:
            batch = self.lanes.take()
            if not batch:
                await self.lanes.wait()
                continue
            size = sum(map(len, batch))
            took_s = size / LINE_BYTES_PER_S
            await trio.sleep(took_s)
            self.lanes.pieces.wrote(size, took_s=took_s)
            for message in batch:
                self._fly.send_nowait((trio.current_time() + LATENCY_S, message))

    async def _carry(self) -> None:
        async for at, message in self._flying:
            await trio.sleep_until(at)
            self.link.say(message)

    async def _hear(self) -> None:
        async for message in self.link.sent:
            self._come.send_nowait((trio.current_time() + LATENCY_S, message))

    async def _read(self) -> None:
        async for at, message in self._coming:
            await trio.sleep_until(at)
            assert isinstance(message, str)
            for read in from_gateway.decode(message):
                assert not isinstance(read, BadFrame), read
                match read.frame:
                    case Ack():
                        self.sender.acked(read.frame.seq)
                    case DirectRequest():
                        self.calls.take(read.frame, remaining_s=30.0)
                    case DirectCredit():
                        self.calls.credit(read.frame.id, read.frame.bytes)
                    case Ping():
                        self.lanes.control(encode(Pong(id=read.frame.id)))


async def _device_read(call: DirectCall) -> None:
    answer = b'{"parked": true}' * 200
    await call.start("application/json", total_size=len(answer))
    await call.send(answer)


async def test_a_nights_reports_are_caught_up_within_a_minute_while_calls_are_answered(
    autojump_clock: trio.testing.MockClock, nursery: trio.Nursery, tmp_path: Path
) -> None:
    gateway, site = Gateway(nursery), Site()
    gateway.database.slow_s = COMMIT_S
    outbox = Outbox(filled(tmp_path, QUEUED), in_place)
    link = gateway.accept(site)
    link.say(site.hello(outbox_uid=outbox.outbox_uid))
    node = Node(outbox, link, await link.hear_next(Welcome))
    nursery.start_soon(node.run)
    began, took = trio.current_time(), []
    while outbox.acked < QUEUED and trio.current_time() < began + 2 * CAUGHT_UP_WITHIN_S:
        await outbox.append(PublishLog(seq=1, data=Opaque.of({"message": "meanwhile"}), observed_at=datetime.now(UTC)))
        asked = trio.current_time()
        async with gateway.rpc.call(direct_order(site)) as call:
            async for _ in call:
                pass
        took.append(trio.current_time() - asked)
        await trio.sleep(EACH_S)
    caught_up_s = trio.current_time() - began
    nursery.cancel_scope.cancel()
    sys.stdout.write(f"{QUEUED} reports in {caught_up_s:.1f} s; the longest of {len(took)} calls {max(took):.2f} s\n")

    assert outbox.acked >= QUEUED
    assert caught_up_s < CAUGHT_UP_WITHIN_S
    assert gateway.metrics.ended_with == []
    assert max(took) < 1.0
    assert gateway.reports.seqs(outbox.outbox_uid) == list(range(1, len(gateway.reports.seqs(outbox.outbox_uid)) + 1))
