"""What an ack can mean, nothing about a report that was not given to the writer yet; and how fast a backlog goes."""

from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio
import trio.testing

from skygw.client.durable_sender import AHEAD_S, DurableSender, Pace
from skygw.client.lanes import Lanes, Snapshots
from skygw.client.outbox import Outbox
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MIB, Limits
from skygw.protocol.node_frames import PublishLog


@pytest.mark.parametrize("word", ["ack", "nack"])
async def test_neither_ack_nor_nack_takes_a_report_that_was_not_sent(
    tmp_path: Path, word: str, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await Outbox.open(tmp_path, max_bytes=MIB)
    for number in range(2):
        await outbox.append(PublishLog(seq=1, data=Opaque.of({"number": number}), observed_at=datetime.now(UTC)))
    lanes = Lanes(Snapshots())
    sender = DurableSender(outbox, lanes, Limits(), hub_has=0)

    def answer() -> None:
        for seq in (1, 2):
            if word == "ack":
                sender.acked(seq)
            else:
                sender.nacked(seq, "never")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(sender.run)
        with trio.fail_after(5):
            await lanes.wait()
            answer()
            early = [len(lanes.take()), sender._confirmed]
            answer()
            while outbox.acked < 2:  # noqa: ASYNC110 - the outbox tells nobody that it was cleared
                await trio.sleep(0.005)
        nursery.cancel_scope.cancel()
    await outbox.close()

    assert early == [2, 0]
    refusals = [f"the hub refuses report {seq} for ever: never" for seq in (1, 2)]
    assert caplog.messages == (refusals if word == "nack" else [])


@pytest.mark.parametrize(("frames_per_s", "size"), [(10.0, 1), (1e9, 1_000)], ids=["frames", "bytes"])
async def test_a_backlog_goes_at_its_pace_and_a_single_report_at_once(
    autojump_clock: trio.testing.MockClock, frames_per_s: float, size: int
) -> None:
    pace = Pace(frames_per_s=frames_per_s, bytes_per_s=10_000.0)  # ten of a thousand bytes
    began = trio.current_time()
    await pace.turn(size)
    assert trio.current_time() == began
    for _ in range(99):
        await pace.turn(size)
    assert trio.current_time() - began == pytest.approx(100 / 10 - AHEAD_S)
    await trio.sleep(3_600)
    again = trio.current_time()
    for _ in range(50):
        await pace.turn(size)
    assert trio.current_time() - again == pytest.approx(50 / 10 - AHEAD_S)
