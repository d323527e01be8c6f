"""Commits what a node reports durably, in order, before it is acknowledged; waits out a database that is away."""

import logging
from collections import deque
from collections.abc import Callable

import trio

from skygw.errors import RoutingUnavailable
from skygw.ids import InstallId, OutboxUid
from skygw.nodes.ports import DurableReport, ReportStore, ResultSink
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import Ack, Nack
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES
from skygw.protocol.node_frames import Error, ErrorCode

log = logging.getLogger("skygw.nodes")

BATCH_FRAMES = 256
"""Reports in one transaction: a burst costs few commits, and none takes long."""

RETRY_S = 1.0


class TooManyUnacked(Exception):
    """The node sent more durable frames than it may have unacknowledged."""


class Committer:
    """One per session. `take` is called by the reader and never waits; `run` commits.

    Bound: `MAX_UNACKED_FRAMES` frames and `MAX_UNACKED_BYTES` of text.
    """

    def __init__(
        self,
        *,
        install_id: InstallId,
        outbox_uid: OutboxUid,
        acked_seq: int,
        store: ReportStore,
        results: ResultSink,
        say: Callable[[Frame], None],
    ) -> None:
        self.acked_seq = acked_seq
        self._last_taken = acked_seq
        self._install_id = install_id
        self._outbox_uid = outbox_uid
        self._store = store
        self._results = results
        self._say = say
        self._waiting: deque[DurableReport] = deque()
        self._waiting_bytes = 0
        self._wake = trio.Event()

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def take(self, report: DurableReport) -> None:
        """Queues a report. A repeated one is acknowledged again; one that leaves a hole is refused, because a hole is
        never guessed to be a gap. Raises `TooManyUnacked`.
        """
        if report.seq <= self._last_taken:
            if report.seq <= self.acked_seq:
                self._say(Ack(seq=self.acked_seq, outbox_uid=self._outbox_uid))
            return
        if report.seq != self._last_taken + 1:
            self._say(
                Error(
                    code=ErrorCode.INVALID,
                    message=f"seq {report.seq} came where {self._last_taken + 1} was due; send from there.",
                    details=Opaque.of({"reason": "out_of_order", "expected_seq": self._last_taken + 1}),
                )
            )
            return
        if len(self._waiting) >= MAX_UNACKED_FRAMES:
            raise TooManyUnacked(f"{MAX_UNACKED_FRAMES} durable frames wait for their ack already")
        if self._waiting_bytes + len(report.text) > MAX_UNACKED_BYTES:
            raise TooManyUnacked(f"{self._waiting_bytes} bytes of durable frames wait for their ack already")
        self._last_taken = report.seq
        self._waiting.append(report)
        self._waiting_bytes += len(report.text)
        self._wake.set()

    async def run(self) -> None:
        """Commits until cancelled. A cancelled commit may or may not have happened: nothing was acknowledged."""
        while True:
            while not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            batch = [self._waiting[at] for at in range(min(BATCH_FRAMES, len(self._waiting)))]
            await self._commit(batch)
            for report in batch:
                self._waiting.popleft()
                self._waiting_bytes -= len(report.text)
            self._answer(batch)

    async def _commit(self, batch: list[DurableReport]) -> None:
        said = False
        while True:
            try:
                await self._store.commit(self._install_id, self._outbox_uid, batch)
            except RoutingUnavailable:
                if not said:
                    log.warning("reports wait for the database", extra={"waiting": len(self._waiting)})
                    said = True
                await trio.sleep(RETRY_S)
            else:
                return

    def _answer(self, batch: list[DurableReport]) -> None:
        self.acked_seq = batch[-1].seq
        for report in batch:
            if report.nacked is not None:
                self._say(Nack(seq=report.seq, outbox_uid=self._outbox_uid, reason=report.nacked))
        self._say(Ack(seq=self.acked_seq, outbox_uid=self._outbox_uid))
        for report in batch:
            if report.result is not None:
                self._results.result_committed(self._install_id, report.result)
