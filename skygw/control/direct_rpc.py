"""Direct RPC: one request to one node, its answer streamed back, verified, within the caller's time (contract §6)."""

import hashlib
from collections import OrderedDict
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from types import TracebackType
from typing import Protocol, Self

import trio

from skygw.control.allow_list import AllowList
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
from skygw.protocol.node_frames import DirectResponseEnd, DirectResponseStart

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
    """The node's answer as it comes: `start` first, then its pieces, by `async for`, which may be left at any point."""

    def __init__(self, *, session: NodeSession, call: Call, start: DirectResponseStart, record: CallRecord) -> None:
        self.start = start
        self.epoch = session.epoch
        self._session = session
        self._call = call
        self._record = record
        self._owed = 0
        """Bytes that were taken, and that the node may not yet send anew."""
        self._due = 0
        """Bytes of the piece that was handed on last."""
        self._digest = hashlib.sha256()
        self._size = 0
        self._held = b""
        self.end: DirectResponseEnd | None = None
        """The node's last word, once it agrees with what came."""
        self.is_through = False
        """Nothing comes behind the piece that was handed on last."""

    def __aiter__(self) -> Self:
        return self

    async def __anext__(self) -> bytes:
        """The next piece of the payload, in order. The last bytes, at most `HELD_BYTES`, are held back until the node's
        `end` agrees with what came.

        Raises `BadResponse`, `NodeFailed`, `LinkLost`. What came before an error is what the node sent, unverified. A
        piece counts against the node's credit until the next one is asked for, so that buffered pieces and this one
        together stay within the credit. Cancelling loses nothing.
        """
        if self.is_through:
            raise StopAsyncIteration
        while True:
            self._owed += self._due
            self._due = 0
            # With nothing here to be taken the node must not wait for what is owed.
            self._grant(at_least=self._call.whole_credit // 4 if self._call.buffered else 1)
            piece = await self._call.piece(at_most=PIECE_BYTES)
            if not isinstance(piece, bytes):
                break
            self._size += len(piece)
            self._digest.update(piece)
            # Granted at once, or a credit that is held back as a whole would never be renewed.
            self._owed += min(len(piece), HELD_BYTES)
            self._due = max(0, len(piece) - HELD_BYTES)
            ready = self._held + piece[:-HELD_BYTES]
            self._held = piece[-HELD_BYTES:]
            if ready:
                return ready
        self._verify(piece)
        # Before the last bytes go out: a caller who has them may leave, or ask, before anything else is done here.
        self._record.outcome = Outcome.SUCCEEDED
        self.end = piece
        self.is_through = True
        if self._held:
            return self._held
        raise StopAsyncIteration

    def _verify(self, end: DirectResponseEnd) -> None:
        if end.total_size != self._size:
            raise self._bad(f"the node says it sent {end.total_size} bytes, and {self._size} came")
        if end.sha256 != self._digest.hexdigest():
            raise self._bad("the SHA-256 of what came is not the one the node sent")

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

    def __init__(self, registry: ConnectionRegistry, *, metrics: CallMetrics, allowed: AllowList) -> None:
        self._registry = registry
        self._allowed = allowed
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

    def call(self, order: DirectOrder) -> "DirectCall":
        """`async with` it: sends the request and waits for the start of the answer. Leaving the block early, or being
        cancelled in it, cancels the request at the node. Raises every reason of contract §3 that a direct request can
        have.

        The deadline holds for the block too, whatever it waits for: it is cancelled then, which is `DeadlineExceeded`
        after it, and cuts a write to a caller who takes nothing. What had been verified by then has succeeded.
        """
        return DirectCall(self, order)

    def begin(self, order: DirectOrder) -> CallRecord:
        """A call is in flight from now on, until its `end`."""
        self.in_flight += 1
        self._metrics.call_started()
        return self.log.open(order)

    def end(self, order: DirectOrder, record: CallRecord, *, seconds: float) -> None:
        """What became of it is in the record."""
        self.in_flight -= 1
        if self.in_flight == 0:
            self._idle.set()
        self.log.close(order, record)
        self._metrics.call_ended(outcome=record.outcome, reason=record.reason or "", seconds=seconds)

    async def session_for(self, order: DirectOrder, deadline: float) -> NodeSession:
        """The node's, now or within the order's `connect_wait_s`. Raises `Draining`, `NodeOffline`, `Forbidden` if the
        service may not act there, `RoutingUnavailable` if nobody can say whether it may.
        """
        if self._draining:
            raise Draining("This gateway is draining; ask another, or again soon.", retry_after_s=OFFLINE_RETRY_S)
        if self._allowed.names(order.service):
            await self._require_allowed(order, deadline)
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

    async def _require_allowed(self, order: DirectOrder, deadline: float) -> None:
        session = self._registry.current(order.install_id)
        with trio.move_on_at(deadline) as time_left:
            await self._allowed.require_installation(
                order.service, order.install_id, None if session is None else session.binding
            )
        if time_left.cancelled_caught:
            raise DeadlineExceeded("The time ran out before it was known whether this service may ask this node.")


class DirectCall:
    """One call, in its caller's task, from the request to the last byte of the answer. Not a generator, because that
    would cost as much as the call.
    """

    def __init__(self, rpc: DirectRpc, order: DirectOrder) -> None:
        self._rpc = rpc
        self._order = order

    async def __aenter__(self) -> DirectAnswer:
        self._began = trio.current_time()
        self._deadline = self._began + self._order.timeout_s
        self._record = self._rpc.begin(self._order)
        try:
            self._session = await self._rpc.session_for(self._order, self._deadline)
            self._record.epoch = self._session.epoch
            self._call = self._session.calls.open(self._order.service)
        except BaseException as error:
            self._close(error)
            raise
        self._time_left = trio.CancelScope(deadline=self._deadline)
        self._time_left.__enter__()
        try:
            start = await self._send()
        except BaseException as error:
            self._leave(type(error), error, error.__traceback__)
            raise
        self._record.reached = self._call.reached
        return DirectAnswer(session=self._session, call=self._call, start=start, record=self._record)

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._leave(kind, error, traceback)

    def _leave(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        """Gives the slot back and closes the record. Raises `DeadlineExceeded` in place of being cancelled by it."""
        record, call = self._record, self._call
        record.reached = call.reached
        if record.outcome is Outcome.IN_PROGRESS:
            record.outcome = self._abandon()
            record.reason = "caller_gone"
        self._session.calls.close(call)
        try:
            self._time_left.__exit__(kind, error, traceback)
            if self._time_left.cancelled_caught:
                what = "the answer was through" if record.reached is Reached.RUNNING else "the node answered"
                error = DeadlineExceeded(
                    f"The time ran out before {what}.", outcome=record.outcome, reached=record.reached
                )
                raise error from None
        finally:
            self._close(error)

    def _close(self, error: BaseException | None) -> None:
        record = self._record
        if isinstance(error, GatewayError):
            record.reached = error.reached or record.reached
            if record.outcome is not Outcome.SUCCEEDED:
                record.outcome = error.outcome
                record.reason = error.reason
        self._rpc.end(self._order, record, seconds=trio.current_time() - self._began)

    async def _send(self) -> DirectResponseStart:
        order, session, call = self._order, self._session, self._call
        left_ms = int((self._deadline - trio.current_time()) * 1000)
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
            order.service,
        )
        return await call.started()

    def _abandon(self) -> Outcome:
        """The caller stopped waiting: takes the request back if it was not sent, else tells the node."""
        parcel = self._call.parcel
        if parcel is None or parcel.withdraw():
            return Outcome.NOT_SENT
        if not self._call.node_is_done:
            with suppress(LinkLost):  # a node without a link has dropped the request by itself
                cancel = DirectCancel(id=self._call.id, reason="nobody waits for this any more")
                self._session.put(Lane.CONTROL, cancel)
        return Outcome.UNKNOWN
