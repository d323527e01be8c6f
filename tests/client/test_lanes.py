"""What one write holds: the urgent first, together what is small, and nothing of what nobody waits for."""

from datetime import UTC, datetime
from uuid import UUID

import pytest
import trio
import trio.testing

from skygw.client.lanes import (
    BATCH_BYTES,
    MAX_CHUNKS,
    MAX_CONTROL,
    MAX_DURABLE,
    ControlLaneFull,
    Lanes,
    Queued,
    Recipient,
    Report,
    Snapshots,
)
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import PublishSnapshot, SnapshotStream

CALL = Recipient(UUID(int=1))


def snapshot(uid: str) -> PublishSnapshot:
    return PublishSnapshot(
        stream=SnapshotStream.DEVICE_SNAPSHOT, data=Opaque.of({"uid": uid}), observed_at=datetime.now(UTC), live_seq=1
    )


async def test_what_waits_goes_out_in_one_write_the_urgent_first() -> None:
    snapshots = Snapshots()
    lanes = Lanes(snapshots)
    await lanes.chunk(Queued(CALL, b"chunk"))
    snapshots.put("mount", snapshot("mount"))
    await lanes.durable(Report(1, "report"))
    lanes.control("pong")

    control, durable, state, chunk = lanes.take()

    assert (control, durable, chunk) == ("pong", "report", b"chunk")
    assert isinstance(state, str)
    assert '"uid":"mount"' in state
    assert lanes.take() == []


async def test_a_write_is_bounded_so_that_what_is_urgent_does_not_wait_long() -> None:
    lanes = Lanes(Snapshots())
    for seq in range(1, 31):
        await lanes.durable(Report(seq, "x" * 4_000))
    first = lanes.take()
    lanes.control("proof")

    assert sum(map(len, first)) < BATCH_BYTES + 4_000
    assert lanes.take()[0] == "proof"


async def test_a_large_chunk_has_a_write_of_its_own_behind_what_is_small() -> None:
    lanes = Lanes(Snapshots())
    await lanes.chunk(Queued(CALL, b"x" * 2 * BATCH_BYTES))
    lanes.control("pong")

    assert lanes.take() == ["pong"]
    assert lanes.take() == [b"x" * 2 * BATCH_BYTES]


async def test_chunks_that_nobody_waits_for_are_not_sent() -> None:
    lanes = Lanes(Snapshots())
    gone, waiting = Recipient(UUID(int=2)), Recipient(UUID(int=3))
    await lanes.chunk(Queued(gone, b"g" * 2 * BATCH_BYTES))
    await lanes.chunk(Queued(waiting, b"w"))
    lanes.control("pong")
    gone.abandoned = True

    assert lanes.take() == ["pong", b"w"]


async def test_only_what_was_given_to_the_writer_counts_as_begun() -> None:
    lanes = Lanes(Snapshots())
    for seq in (7, 8, 9):
        await lanes.durable(Report(seq, "x" * BATCH_BYTES))

    assert lanes.begun_seq == 0
    lanes.take()
    assert lanes.begun_seq == 7


async def test_reports_and_chunks_wait_for_room_and_lose_nothing(autojump_clock: trio.testing.MockClock) -> None:
    lanes = Lanes(Snapshots())
    taken: list[str | bytes] = []

    async def reports() -> None:
        for seq in range(1, 3 * MAX_DURABLE):
            await lanes.durable(Report(seq, f"{seq}"))

    async def chunks() -> None:
        for number in range(3 * MAX_CHUNKS):
            await lanes.chunk(Queued(CALL, b"%d" % number))

    async with trio.open_nursery() as nursery:
        nursery.start_soon(reports)
        nursery.start_soon(chunks)
        await trio.testing.wait_all_tasks_blocked()
        assert len(lanes.take()) == MAX_DURABLE + MAX_CHUNKS
        while len(taken) < 2 * MAX_DURABLE - 1 + 2 * MAX_CHUNKS:
            await trio.testing.wait_all_tasks_blocked()
            taken += lanes.take()

    assert [text for text in taken if isinstance(text, str)] == [
        str(n) for n in range(MAX_DURABLE + 1, 3 * MAX_DURABLE)
    ]
    assert [data for data in taken if isinstance(data, bytes)] == [b"%d" % n for n in range(MAX_CHUNKS, 3 * MAX_CHUNKS)]


async def test_a_peer_that_asks_and_does_not_read_is_noticed() -> None:
    lanes = Lanes(Snapshots())
    for _ in range(MAX_CONTROL):
        lanes.control("pong")

    with pytest.raises(ControlLaneFull):
        lanes.control("pong")
