"""Direct requests in flight on one socket: each owns a slot that the node's reply is matched to.

A slot belongs to a context manager (`DirectCall`) in the caller's task. What comes for one that is gone is counted and
dropped.
"""

import base64
import binascii
from collections.abc import Callable
from uuid import uuid4

import trio

from skygw.errors import (
    BadResponse,
    Busy,
    DeadlineExceeded,
    GatewayError,
    Hop,
    LinkLost,
    NodeFailed,
    NodeRefused,
    Outcome,
    Reached,
)
from skygw.ids import CallId
from skygw.nodes.outbox import Parcel, ParcelState
from skygw.nodes.shares import share_of
from skygw.protocol.chunks import Chunk
from skygw.protocol.node_frames import (
    DirectError,
    DirectResponseChunk,
    DirectResponseEnd,
    DirectResponseStart,
    ErrorCode,
)

NODE_REFUSALS = {ErrorCode.INVALID, ErrorCode.FORBIDDEN, ErrorCode.NOT_FOUND, ErrorCode.CONFLICT}
"""Codes by which a node says no before it did anything; every other code means it tried and failed."""


def _no_late_reply() -> None:
    """Used where nobody counts."""


class Call:
    """One direct request, from the caller's side (`started`, `piece`) and the reader's (`on_…`).

    The reader never waits: what arrives is put into a buffer of at most `credit` bytes, and the caller is woken if it
    waits. A node that sends more than its credit, or chunks out of order, ends its response with `bad_response`.
    """

    def __init__(self, call_id: CallId, *, credit: int, caller: str = "") -> None:
        self.id = call_id
        self.caller = caller
        self.parcel: Parcel | None = None
        self._wake: trio.Event | None = None  # while somebody waits
        self._start: DirectResponseStart | None = None
        self._end: DirectResponseEnd | None = None
        self._failure: GatewayError | None = None
        self._buffer = bytearray()
        self.whole_credit = credit
        """What the node may have under way when everything that came was taken."""
        self._credit = credit
        self._next_seq = 0
        self._received = 0
        self._node_is_done = False

    @property
    def reached(self) -> Reached | None:
        """How far the request is known to have come."""
        if self._start is not None:
            return Reached.RUNNING
        if self.parcel is not None and self.parcel.state is ParcelState.WRITTEN:
            return Reached.WRITTEN
        return Reached.RECEIVED

    @property
    def outcome_if_abandoned(self) -> Outcome:
        """What may be said when the answer never came."""
        if self.parcel is None or self.parcel.surely_not_sent:
            return Outcome.NOT_SENT
        return Outcome.UNKNOWN

    @property
    def finished(self) -> bool:
        """Whether it is decided what became of the answer."""
        return self._end is not None or self._failure is not None

    @property
    def node_is_done(self) -> bool:
        """Whether the node has said its last word, so that there is nothing to cancel."""
        return self._node_is_done

    @property
    def is_whole(self) -> bool:
        """Whether as much has come as was announced, so that the node needs no more credit."""
        return self._start is not None and self._received == self._start.total_size

    @property
    def credit_left(self) -> int:
        return self._credit

    def grant(self, size: int) -> None:
        """The node has been told that it may send `size` bytes more."""
        self._credit += size

    # The caller's side.

    async def started(self) -> DirectResponseStart:
        """Waits for the start of the answer. Raises what became of it; cancelling leaves the slot as it is."""
        await trio.lowlevel.checkpoint_if_cancelled()
        while self._start is None:
            if self._failure is not None:
                raise self._failure
            await self._news()
        return self._start

    async def _news(self) -> None:
        """Waits until something has come since the caller looked last; nothing can come between its look and this."""
        self._wake = trio.Event()
        try:
            await self._wake.wait()
        finally:
            self._wake = None

    def _tell(self) -> None:
        if self._wake is not None:
            self._wake.set()

    @property
    def buffered(self) -> int:
        """Bytes that have come and were not taken."""
        return len(self._buffer)

    async def piece(self, *, at_most: int) -> bytes | DirectResponseEnd:
        """Waits for more bytes, or for the end. Raises what became of the answer. If bytes are here nobody else gets to
        run (there are never more than the credit), but a cancelled caller notices.
        """
        await trio.lowlevel.checkpoint_if_cancelled()
        while not self._buffer:
            if self._failure is not None:
                raise self._failure
            if self._end is not None:
                return self._end
            await self._news()
        with memoryview(self._buffer) as whole:
            taken = bytes(whole[:at_most])
        del self._buffer[:at_most]
        return taken

    # The reader's side.

    def fail(self, error: GatewayError) -> None:
        """Ends the call; the first word wins."""
        if not self.finished:
            self._failure = error
            self._buffer.clear()
            self._tell()

    def on_start(self, start: DirectResponseStart) -> None:
        if self._start is not None:
            self._bad("the answer was started twice")
        elif not self.finished:
            self._start = start
            self._tell()

    def on_chunk(self, seq: int, payload: bytes) -> None:
        if self.finished:
            return
        if self._start is None:
            self._bad("a chunk came before the start")
        elif seq != self._next_seq:
            self._bad(f"chunk {seq} came where {self._next_seq} was due")
        elif len(payload) > self._credit:
            self._bad(f"{len(payload)} bytes came on a credit of {self._credit}")
        elif self._start.total_size is not None and self._received + len(payload) > self._start.total_size:
            self._bad(f"more came than the {self._start.total_size} bytes that were announced")
        else:
            self._next_seq += 1
            self._received += len(payload)
            self._credit -= len(payload)
            self._buffer += payload
            self._tell()

    def on_text_chunk(self, frame: DirectResponseChunk) -> None:
        try:
            payload = base64.b64decode(frame.data, validate=True)
        except (binascii.Error, ValueError):
            self._bad("a chunk is not base64")
        else:
            self.on_chunk(frame.seq, payload)

    def on_end(self, end: DirectResponseEnd) -> None:
        if self.finished:
            return
        if self._start is None:
            self._bad("the end came before the start")
        elif end.chunks != self._next_seq:
            self._bad(f"the end speaks of {end.chunks} chunks, and {self._next_seq} came")
        elif self._start.total_size is not None and self._start.total_size != end.total_size:
            self._bad(f"{self._start.total_size} bytes were announced and {end.total_size} sent")
        else:
            self._node_is_done = True
            self._end = end
            self._tell()

    def on_error(self, frame: DirectError) -> None:
        self._node_is_done = True
        self.fail(
            node_error(
                frame.code, frame.message, frame.details and frame.details.value, started=self._start is not None
            )
        )

    def _bad(self, what: str) -> None:
        self.fail(BadResponse(f"The node's answer does not hold together: {what}.", hop=Hop.NODE, reached=self.reached))


def node_error(code: str, message: str, details: object, *, started: bool) -> GatewayError:
    """A node's own word as an error: a refusal if it did nothing, a failure otherwise. Of a time that ran out the node
    may know a moment before the gateway does: that is the same end, and says the same.
    """
    known = {"node": {"code": code, "message": message, "details": details}}
    if isinstance(details, dict) and details.get("reason") == DeadlineExceeded.reason:
        return DeadlineExceeded(
            f"The time ran out on the node: {message}",
            outcome=Outcome.UNKNOWN,
            reached=Reached.RUNNING if started else Reached.WRITTEN,
            hop=Hop.NODE,
            details=known,
        )
    if code in NODE_REFUSALS and not started:
        return NodeRefused(f"The node refused: {message}", node_code=code, details=known, reached=Reached.WRITTEN)
    return NodeFailed(
        f"The node failed: {message}", details=known, reached=Reached.RUNNING if started else Reached.WRITTEN
    )


class CallTable:
    """The calls of one session. Of the places one caller has its share (`shares.py`)."""

    def __init__(self, *, at_most: int, credit: int, on_late: Callable[[], None] = _no_late_reply) -> None:
        self._calls: dict[CallId, Call] = {}
        self._of: dict[str, int] = {}
        self._at_most = at_most
        self._credit = credit
        self._on_late = on_late
        self._lost: LinkLost | None = None

    def __len__(self) -> int:
        return len(self._calls)

    def open(self, caller: str) -> Call:
        """Claims a slot, which whoever did must `close`. Raises `Busy` when the node, or this caller of it, has enough
        to do.
        """
        if self._lost is not None:
            raise LinkLost(self._lost.message)
        in_flight, own = len(self._calls), self._of.get(caller, 0)
        if in_flight >= self._at_most:
            raise Busy(
                f"This node has {in_flight} direct requests in flight, and {self._at_most} is the limit.",
                retry_after_s=1.0,
                details={"usedUp": "calls"},
            )
        share = share_of(self._at_most - (in_flight - own))
        if own >= share:
            raise Busy(
                f"{caller} has {own} direct requests in flight at this node, and its share is {share} of "
                f"{self._at_most}: the rest is for other services.",
                retry_after_s=1.0,
                details={"usedUp": "calls", "service": caller},
            )
        call = Call(CallId(uuid4()), credit=self._credit, caller=caller)
        self._calls[call.id] = call
        self._of[caller] = own + 1
        return call

    def close(self, call: Call) -> None:
        """Frees the slot: what comes for it from now on is counted and dropped."""
        del self._calls[call.id]
        left = self._of[call.caller] - 1
        if left:
            self._of[call.caller] = left
        else:
            del self._of[call.caller]

    def find(self, call_id: CallId) -> Call | None:
        """The call a reply is for; a reply for nobody is counted."""
        call = self._calls.get(call_id)
        if call is None:
            self._on_late()
        return call

    def on_reply(self, frame: DirectResponseStart | DirectResponseChunk | DirectResponseEnd | DirectError) -> bool:
        """Hands a frame of an answer to the call it is for; returns whether there is one."""
        call = self.find(frame.id)
        if call is None:
            return False
        # Not `match`: pydantic's models answer `isinstance` in Python, each time it is not the class itself.
        if type(frame) is DirectResponseStart:
            call.on_start(frame)
        elif type(frame) is DirectResponseEnd:
            call.on_end(frame)
        elif type(frame) is DirectResponseChunk:
            call.on_text_chunk(frame)
        elif type(frame) is DirectError:
            call.on_error(frame)
        return True

    def on_chunk(self, chunk: Chunk) -> None:
        call = self.find(chunk.id)
        if call is not None:
            call.on_chunk(chunk.seq, chunk.payload)

    def fail_all(self, why: str) -> None:
        """The link is gone: every caller is told, each with what is known of its own request."""
        self._lost = LinkLost(why)
        for call in self._calls.values():
            call.fail(LinkLost(why, outcome=call.outcome_if_abandoned, reached=call.reached))
