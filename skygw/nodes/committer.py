"""Commits what a node reports durably, in order, before it is acknowledged; waits out a database that is away."""

import logging
from collections import deque
from collections.abc import Callable, Sequence

import trio

from skygw.errors import RoutingUnavailable, StoreFailed
from skygw.ids import InstallId, OutboxUid
from skygw.nodes.ports import DurableReport, ReportStore, ResultSink
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import Ack, Nack
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_UNACKED_BYTES, MAX_UNACKED_FRAMES
from skygw.protocol.node_frames import Error, ErrorCode

log = logging.getLogger("skygw.nodes")

BATCH_FRAMES = 256
BATCH_BYTES = 512 * 1024
"""Reports in one transaction and their text, unless one unit has more: a burst is few commits, and none takes long."""

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
        count_nack: Callable[[str], None],
    ) -> None:
        """`count_nack` is told the kind of each report that is nacked."""
        self.acked_seq = acked_seq
        self._last_taken = acked_seq
        self._install_id = install_id
        self._outbox_uid = outbox_uid
        self._store = store
        self._results = results
        self._say = say
        self._count_nack = count_nack
        self._waiting: deque[Sequence[DurableReport]] = deque()
        self._waiting_frames = 0
        self._waiting_bytes = 0
        self._wake = trio.Event()

    @property
    def waiting(self) -> int:
        return self._waiting_frames

    def take(self, unit: Sequence[DurableReport]) -> None:
        """Queues what came in one message: it is committed whole. A repeated report is acknowledged again; one that
        leaves a hole is refused with what is behind it, because a hole is never guessed to be a gap. Raises
        `TooManyUnacked`, and has taken nothing then.
        """
        new: list[DurableReport] = []
        due = self._last_taken + 1
        for report in unit:
            if report.seq == due:
                new.append(report)
                due += 1
            elif report.seq > due:
                self._refuse_hole(report.seq, due)
                break
        size = _size(new)
        if self._waiting_frames + len(new) > MAX_UNACKED_FRAMES:
            raise TooManyUnacked(f"{MAX_UNACKED_FRAMES} durable frames and more wait for their ack")
        if self._waiting_bytes + size > MAX_UNACKED_BYTES:
            raise TooManyUnacked(f"{self._waiting_bytes} bytes of durable frames wait for their ack already")
        if any(report.seq <= self.acked_seq for report in unit):
            self._say(Ack(seq=self.acked_seq, outbox_uid=self._outbox_uid))
        if new:
            self._last_taken = due - 1
            self._waiting.append(new)
            self._waiting_frames += len(new)
            self._waiting_bytes += size
            self._wake.set()

    def _refuse_hole(self, seq: int, due: int) -> None:
        self._say(
            Error(
                code=ErrorCode.INVALID,
                message=f"seq {seq} came where {due} was due; send from there.",
                details=Opaque.of({"reason": "out_of_order", "expected_seq": due}),
            )
        )

    async def run(self) -> None:
        """Commits until cancelled. A cancelled commit may or may not have happened: nothing was acknowledged."""
        while True:
            while not self._waiting:
                self._wake = trio.Event()
                await self._wake.wait()
            units = self._next_units()
            committed = await self._commit([report for unit in units for report in unit])
            for unit in units:
                self._waiting.popleft()
                self._waiting_frames -= len(unit)
                self._waiting_bytes -= _size(unit)
            self._answer(committed)

    def _next_units(self) -> list[Sequence[DurableReport]]:
        """Whole ones, at least one."""
        units: list[Sequence[DurableReport]] = []
        frames = size = 0
        for unit in self._waiting:
            frames += len(unit)
            size += _size(unit)
            if units and (frames > BATCH_FRAMES or size > BATCH_BYTES):
                break
            units.append(unit)
        return units

    async def _commit(self, batch: Sequence[DurableReport]) -> Sequence[DurableReport]:
        """What was committed: the batch, with those nacked that can never be."""
        said = False
        while True:
            try:
                return await self._commit_or_nack(batch)
            except RoutingUnavailable:
                if not said:
                    log.warning("reports wait for the database", extra={"waiting": self._waiting_frames})
                    said = True
                await trio.sleep(RETRY_S)

    async def _commit_or_nack(self, batch: Sequence[DurableReport]) -> Sequence[DurableReport]:
        try:
            await self._store.commit(self._install_id, self._outbox_uid, batch)
        except StoreFailed as refused:
            if not refused.about_the_data:
                raise
            batch = await self._without_refused(batch)
            await self._store.commit(self._install_id, self._outbox_uid, batch)
        return batch

    async def _without_refused(self, reports: Sequence[DurableReport]) -> list[DurableReport]:
        """The same run with those nacked, and empty, that the store will never take: found by halves."""
        why = await self._store.refuses(self._install_id, self._outbox_uid, reports)
        if why is None:
            return list(reports)
        if len(reports) > 1:
            middle = len(reports) // 2
            return [*await self._without_refused(reports[:middle]), *await self._without_refused(reports[middle:])]
        report = reports[0]
        if report.nacked is not None:
            return [report]
        log.warning("a report is nacked", extra={"seq": report.seq, "frame": report.kind, "why": why})
        return [DurableReport(seq=report.seq, kind=report.kind, text="", nacked=why, stream=report.stream)]

    def _answer(self, batch: Sequence[DurableReport]) -> None:
        self.acked_seq = batch[-1].seq
        for report in batch:
            if report.nacked is not None:
                self._count_nack(report.kind)
                self._say(Nack(seq=report.seq, outbox_uid=self._outbox_uid, reason=report.nacked))
        self._say(Ack(seq=self.acked_seq, outbox_uid=self._outbox_uid))
        for report in batch:
            if report.result is not None:
                self._results.result_committed(self._install_id, report.result)


def _size(unit: Sequence[DurableReport]) -> int:
    return sum(len(report.text) for report in unit)
