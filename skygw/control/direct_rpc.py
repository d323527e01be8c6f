"""Direct RPC: one request to one node, its answer streamed back, verified, within the caller's time (contract §6)."""

import hashlib
from collections import OrderedDict
from collections.abc import AsyncGenerator
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Protocol

import trio

from skygw.control.trace_context import carried_traceparent
from skygw.errors import (
    BadResponse,
    DeadlineExceeded,
    Draining,
    GatewayError,
    Hop,
    LinkLost,
    NodeOffline,
    Outcome,
    Reached,
)
from skygw.ids import Epoch, InstallId, RequestId
from skygw.nodes.calls import Call
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Lane
from skygw.nodes.session import NodeSession
from skygw.protocol.gateway_frames import DirectCancel, DirectCredit, DirectRequest
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import DirectResponseStart

REMEMBER_S = 60.0
"""How long what became of a call can be asked."""

REMEMBERED_CALLS = 50_000
"""…and of how many: 50,000 × about 400 bytes."""

OFFLINE_RETRY_S = 5.0

PIECE_BYTES = 256 * 1024
"""The longest piece of an answer that is handed on at once; on its way out it is copied."""

HELD_BYTES = 4 * 1024
"""What is held back until the answer is verified. It is not counted in the credit: one call may have twice as much more
under way, the tail of this piece and that of the one before."""


@dataclass(frozen=True, slots=True)
class DirectOrder:
    """What a caller wants of a node. `timeout_s` is for everything; `connect_wait_s` is part of it."""

    install_id: InstallId
    operation: str
    params: Opaque
    timeout_s: float
    service: str
    request_id: RequestId
    connect_wait_s: float = 0.0
    offset: int | None = None
    length: int | None = None
    if_digest: str | None = None
    traceparent: str | None = None


@dataclass(slots=True)
class CallRecord:
    """What is known of one call, while it runs and for 60 s after."""

    install_id: InstallId
    operation: str
    request_id: RequestId
    epoch: Epoch | None = None
    outcome: Outcome = Outcome.IN_PROGRESS
    reached: Reached | None = Reached.RECEIVED
    reason: str | None = None
    started_at: datetime | None = None
    ended_at: datetime | None = None


class CallLog:
    """Outcomes by (service, request id): a caller sees its own only."""

    def __init__(self) -> None:
        self._records: OrderedDict[tuple[str, RequestId], tuple[float, CallRecord]] = OrderedDict()

    def open(self, order: DirectOrder) -> CallRecord:
        record = CallRecord(order.install_id, order.operation, order.request_id, started_at=datetime.now(UTC))
        key = (order.service, order.request_id)
        self._records.pop(key, None)
        self._records[key] = (float("inf"), record)
        self._forget()
        return record

    def close(self, order: DirectOrder, record: CallRecord) -> None:
        record.ended_at = datetime.now(UTC)
        key = (order.service, order.request_id)
        held = self._records.get(key)
        if held is not None and held[1] is record:
            self._records[key] = (trio.current_time() + REMEMBER_S, record)
            self._records.move_to_end(key)

    def find(self, service: str, request_id: RequestId) -> CallRecord | None:
        self._forget()
        held = self._records.get((service, request_id))
        return None if held is None or held[0] < trio.current_time() else held[1]

    def _forget(self) -> None:
        now = trio.current_time()
        while self._records:
            key, (until, _) = next(iter(self._records.items()))
            if until == float("inf") and len(self._records) <= REMEMBERED_CALLS:
                return  # still running; what ended behind it goes when it ends or is asked for
            if until > now and len(self._records) <= REMEMBERED_CALLS:
                return
            del self._records[key]


class DirectAnswer:
    """The node's answer as it comes: `start` first, then `pieces`."""

    def __init__(self, *, session: NodeSession, call: Call, start: DirectResponseStart, record: CallRecord) -> None:
        self.start = start
        self.epoch = session.epoch
        self._session = session
        self._call = call
        self._record = record
        self._owed = 0
        """Bytes that were taken, and that the node may not yet send anew."""

    async def pieces(self) -> AsyncGenerator[bytes, None]:
        """The payload in order. The last bytes, at most `HELD_BYTES`, are held back until the node's `end` agrees with
        what came. Close it (`aclosing`) where it may be left early.

        Raises `BadResponse`, `NodeFailed`, `LinkLost`. What was yielded before an error is what the node sent,
        unverified. A piece counts against the node's credit until the next one is asked for, so that buffered and
        yielded bytes together stay within the credit.
        """
        digest = hashlib.sha256()
        size = 0
        held = b""
        while True:
            if not self._call.buffered:  # nothing is here to be taken: the node must not wait for what is owed
                self._grant(at_least=1)
            piece = await self._call.piece(at_most=PIECE_BYTES)
            if not isinstance(piece, bytes):
                break
            size += len(piece)
            digest.update(piece)
            # Granted at once, or a credit that is held back as a whole would never be renewed.
            self._owed += min(len(piece), HELD_BYTES)
            ready = held + piece[:-HELD_BYTES]
            held = piece[-HELD_BYTES:]
            due = max(0, len(piece) - HELD_BYTES)
            del piece  # one copy is enough while the caller takes its time
            if ready:
                yield ready
            self._owed += due
            self._grant(at_least=self._call.whole_credit // 4)
        if piece.total_size != size:
            raise self._bad(f"the node says it sent {piece.total_size} bytes, and {size} came")
        if piece.sha256 != digest.hexdigest():
            raise self._bad("the SHA-256 of what came is not the one the node sent")
        # Before the last bytes go out: a caller who has them may leave, or ask, before anything else is done here.
        self._record.outcome = Outcome.SUCCEEDED
        if held:
            yield held

    def _bad(self, what: str) -> BadResponse:
        return BadResponse(f"The node's answer does not hold together: {what}.", hop=Hop.NODE, reached=Reached.RUNNING)

    def _grant(self, *, at_least: int) -> None:
        if self._owed < max(1, at_least) or self._call.finished or self._call.is_whole:
            return
        size, self._owed = self._owed, 0
        self._call.grant(size)
        # A session that is ending has told the call already, and `piece` raises what is known.
        with suppress(LinkLost):
            self._session.put(Lane.CONTROL, DirectCredit(id=self._call.id, bytes=size))


class CallMetrics(Protocol):
    """What is counted of calls. `reason` is empty when nothing was wrong."""

    def call_started(self) -> None: ...

    def call_ended(self, *, outcome: str, reason: str, seconds: float) -> None: ...


class DirectRpc:
    """The proxy between callers and nodes."""

    def __init__(self, registry: ConnectionRegistry, *, metrics: CallMetrics) -> None:
        self._registry = registry
        self._metrics = metrics
        self._draining = False
        self.log = CallLog()
        self.in_flight = 0
        self._idle = trio.Event()

    def drain(self) -> None:
        self._draining = True

    async def idle(self) -> None:
        """Waits until no call is in flight. The caller brings the deadline."""
        while self.in_flight:
            self._idle = trio.Event()
            await self._idle.wait()

    @asynccontextmanager
    async def call(self, order: DirectOrder) -> AsyncGenerator[DirectAnswer, None]:
        """Sends the request and waits for the start of the answer. Leaving the block early, or being cancelled in it,
        cancels the request at the node. Raises every reason of contract §3 that a direct request can have.

        The deadline holds for the block too, whatever it waits for: it is cancelled then, which is `DeadlineExceeded`
        after it, and cuts a write to a caller who takes nothing. What had been verified by then has succeeded.
        """
        began = trio.current_time()
        deadline = began + order.timeout_s
        record = self.log.open(order)
        self.in_flight += 1
        self._metrics.call_started()
        reason = ""
        try:
            if self._draining:
                raise Draining("This gateway is draining; ask another, or again soon.", retry_after_s=OFFLINE_RETRY_S)
            session = await self._session(order, deadline)
            record.epoch = session.epoch
            with session.calls.open() as call, trio.CancelScope(deadline=deadline) as time_left:
                try:
                    start = await self._send(order, session, call, deadline)
                    record.reached = call.reached
                    yield DirectAnswer(session=session, call=call, start=start, record=record)
                finally:
                    record.reached = call.reached
                    if record.outcome is Outcome.IN_PROGRESS:
                        record.outcome = self._abandon(session, call)
                        reason = "caller_gone"
            if time_left.cancelled_caught:
                what = "the answer was through" if record.reached is Reached.RUNNING else "the node answered"
                raise DeadlineExceeded(
                    f"The time ran out before {what}.", outcome=record.outcome, reached=record.reached
                )
        except GatewayError as error:
            record.reached = error.reached or record.reached
            if record.outcome is not Outcome.SUCCEEDED:
                record.outcome = error.outcome
                reason = error.reason
            raise
        finally:
            self.in_flight -= 1
            record.reason = reason or None
            if self.in_flight == 0:
                self._idle.set()
            self.log.close(order, record)
            self._metrics.call_ended(outcome=record.outcome, reason=reason, seconds=trio.current_time() - began)

    async def _session(self, order: DirectOrder, deadline: float) -> NodeSession:
        session = self._registry.current(order.install_id)
        if session is not None and session.ending is None:
            return session
        if order.connect_wait_s > 0:
            with trio.move_on_at(min(deadline, trio.current_time() + order.connect_wait_s)):
                return await self._registry.connected(order.install_id)
        raise NodeOffline(
            "This installation is not connected."
            + (f" Waited {order.connect_wait_s:g} s for it." if order.connect_wait_s > 0 else ""),
            retry_after_s=OFFLINE_RETRY_S,
        )

    async def _send(self, order: DirectOrder, session: NodeSession, call: Call, deadline: float) -> DirectResponseStart:
        left_ms = int((deadline - trio.current_time()) * 1000)
        if left_ms <= 0:
            raise DeadlineExceeded("The time ran out before the request could be sent.", reached=Reached.RECEIVED)
        call.parcel = session.put(
            Lane.DATA,
            DirectRequest(
                id=call.id,
                operation=order.operation,
                params=order.params,
                offset=order.offset,
                length=order.length,
                if_digest=order.if_digest,
                deadline_ms=left_ms,
                credit=call.credit_left,
                epoch=session.epoch,
                t_ms=session.t_ms(),
                traceparent=carried_traceparent(order.traceparent),
            ),
        )
        return await call.started()

    def _abandon(self, session: NodeSession, call: Call) -> Outcome:
        """The caller stopped waiting: takes the request back if it was not sent, else tells the node."""
        if call.parcel is None or call.parcel.withdraw():
            return Outcome.NOT_SENT
        if not call.node_is_done:
            self._cancel_at_node(session, call, "nobody waits for this any more")
        return Outcome.UNKNOWN

    def _cancel_at_node(self, session: NodeSession, call: Call, reason: str) -> None:
        with suppress(LinkLost):  # a node without a link has dropped the request by itself
            session.put(Lane.CONTROL, DirectCancel(id=call.id, reason=reason))
