"""Direct requests on the node's side: which operations there are, and one call from request to `end` (contract §5)."""

import hashlib
import logging
import math
from collections.abc import Awaitable, Callable
from typing import Any

import trio

from skygw.client.lanes import Lanes, Queued, Recipient
from skygw.ids import CallId
from skygw.protocol.chunks import HEADER_BYTES, Chunk, pack_chunk
from skygw.protocol.codec import encode
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import DirectRequest
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import Limits
from skygw.protocol.node_frames import DirectError, DirectResponseEnd, DirectResponseStart, ErrorCode

log = logging.getLogger("skygw.client")

MAX_CALLS = 64
"""Direct calls one session serves at a time; more are refused as `busy`."""

EFFECTS = ("none", "transfer")
"""A direct request reads or transfers. Only commands move hardware (contract §0.2)."""


class OperationRefused(Exception):
    """Raised by a handler that will not do it: the caller is told `code`, `message` and `details`."""

    def __init__(self, code: str, message: str, details: dict[str, Any] | None = None) -> None:
        super().__init__(message)
        self.code = code
        self.message = message
        self.details = details


class DirectCall(Recipient):
    """One request and the response to it, given to an operation's handler.

    The handler runs in a cancel scope that ends with the caller's deadline, a `direct_cancel` or the link. After it
    returns the response is ended with its digest.
    """

    id: CallId

    def __init__(self, request: DirectRequest, *, deadline: float, limits: Limits, lanes: Lanes) -> None:
        super().__init__(request.id)
        self.operation = request.operation
        self.params: Opaque = request.params
        self.offset = request.offset
        self.length = request.length
        self.if_digest = request.if_digest
        self.traceparent = request.traceparent
        self.deadline = deadline
        self.scope = trio.CancelScope(deadline=deadline)
        self._lanes = lanes
        self._credit = request.credit
        self._more_credit = trio.Event()
        self._most = max(1, limits.binary_bytes - HEADER_BYTES)
        self._text_bytes = limits.text_bytes
        self._total_size: int | None = None
        self._digest = hashlib.sha256()
        self._chunks = 0
        self._bytes = 0
        self.started = False

    async def start(
        self, content_type: str, *, total_size: int | None = None, metadata: dict[str, Any] | None = None
    ) -> None:
        """Opens the response. `total_size` is bytes; given, the handler must send exactly that many."""
        if self.started:
            raise RuntimeError("start() was called twice for one direct call.")
        self._total_size = total_size
        await self._send_frame(
            DirectResponseStart(
                id=self.id,
                content_type=content_type,
                total_size=total_size,
                metadata=None if metadata is None else Opaque.of(metadata),
            )
        )
        self.started = True

    async def send(self, data: bytes | bytearray | memoryview) -> None:
        """Sends bytes of the response in pieces, as the caller's credit allows; waits while there is none."""
        if not self.started:
            raise RuntimeError("send() needs start() first.")
        view = memoryview(data).cast("B")
        at = 0
        while at < len(view):
            while self._credit == 0:
                await self._more_credit.wait()
            piece = bytes(view[at : at + min(self._lanes.pieces.bytes, self._most, self._credit)])
            self._credit -= len(piece)
            at += len(piece)
            self._digest.update(piece)
            self._bytes += len(piece)
            chunk = Chunk(self.id, self._chunks, piece)
            self._chunks += 1
            await self._lanes.chunk(Queued(self, pack_chunk(chunk)))

    def add_credit(self, count: int) -> None:
        """From the session: the caller has read `count` bytes more."""
        self._credit += count
        self._more_credit.set()
        self._more_credit = trio.Event()

    async def end(self) -> None:
        """From the session, after the handler. Raises `RuntimeError` when the handler did not keep its word."""
        if not self.started:
            raise RuntimeError(f"The handler of {self.operation} returned without an answer.")
        if self._total_size is not None and self._bytes != self._total_size:
            raise RuntimeError(
                f"The handler of {self.operation} announced {self._total_size} bytes and sent {self._bytes}."
            )
        await self._send_frame(
            DirectResponseEnd(id=self.id, chunks=self._chunks, total_size=self._bytes, sha256=self._digest.hexdigest())
        )

    async def _send_frame(self, frame: Frame) -> None:
        text = encode(frame)
        if len(text.encode()) > self._text_bytes:
            raise ValueError(f"A {frame.kind} of over {self._text_bytes} bytes cannot be sent.")
        await self._lanes.chunk(Queued(self, text))


OperationHandler = Callable[[DirectCall], Awaitable[None]]


class Operations:
    """What the node offers. Only what reads or transfers can be registered at all."""

    def __init__(self) -> None:
        self._handlers: dict[str, OperationHandler] = {}

    def register(self, name: str, handler: OperationHandler, *, effects: str) -> None:
        """Raises `ValueError` for effects other than `none` and `transfer`, and for a name taken."""
        if effects not in EFFECTS:
            raise ValueError(
                f"The operation {name} has effects {effects!r}: a direct request may only read or transfer; "
                "what moves hardware is a command."
            )
        if name in self._handlers:
            raise ValueError(f"The operation {name} is registered already.")
        self._handlers[name] = handler

    def find(self, name: str) -> OperationHandler | None:
        return self._handlers.get(name)


def direct_error(call_id: CallId, code: str, message: str, details: dict[str, Any] | None = None) -> str:
    """The text of a `direct_error`; a message too long is cut."""
    return encode(
        DirectError(
            id=call_id,
            code=code[:64],
            message=message[:2_000],
            details=None if details is None else Opaque.of(details),
        )
    )


class Calls:
    """The direct calls of one session. `take` is for its reader; each call runs in the nursery of `run`."""

    def __init__(self, operations: Operations, *, limits: Limits, lanes: Lanes) -> None:
        self._operations = operations
        self._limits = limits
        self._lanes = lanes
        self._open: dict[CallId, DirectCall] = {}
        self._accepted, self._to_run = trio.open_memory_channel[tuple[DirectCall, OperationHandler]](MAX_CALLS)

    def take(self, request: DirectRequest, *, remaining_s: float) -> None:
        """Starts a call or refuses it. Never waits. An id that is running already is ignored."""
        if request.id in self._open:
            return
        handler = self._operations.find(request.operation)
        if handler is None:
            self._lanes.control(
                direct_error(
                    request.id,
                    ErrorCode.NOT_FOUND,
                    f"This node has no direct operation {request.operation}.",
                    {"reason": "acts_not_allowed"},
                )
            )
            return
        if len(self._open) >= MAX_CALLS:
            self._lanes.control(
                direct_error(request.id, ErrorCode.CONFLICT, f"{MAX_CALLS} calls are running.", {"reason": "busy"})
            )
            return
        call = DirectCall(request, deadline=trio.current_time() + remaining_s, limits=self._limits, lanes=self._lanes)
        self._open[call.id] = call
        self._accepted.send_nowait((call, handler))  # never full: as many places as calls may be open

    def credit(self, call_id: CallId, count: int) -> None:
        """Credit for a call that has ended is late and means nothing."""
        call = self._open.get(call_id)
        if call is not None:
            call.add_credit(count)

    def cancel(self, call_id: CallId) -> None:
        """Nobody waits any more: the handler is cancelled and what is queued is not sent."""
        call = self._open.get(call_id)
        if call is not None:
            call.abandoned = True
            call.scope.cancel()

    async def run(self) -> None:
        """Runs calls until cancelled; then all of them are cancelled too."""
        async with trio.open_nursery() as nursery:
            async for call, handler in self._to_run:
                nursery.start_soon(self._serve, call, handler)

    async def _serve(self, call: DirectCall, handler: OperationHandler) -> None:
        try:
            error = await self._handle(call, handler)
        finally:
            del self._open[call.id]
        if error is not None and not call.abandoned:
            call.abandoned = True  # what is still queued of this response would come after its error
            self._lanes.control(error)

    async def _handle(self, call: DirectCall, handler: OperationHandler) -> str | None:
        """The error to answer with, or `None` after a good end."""
        try:
            with call.scope:
                await handler(call)
                call.scope.deadline = math.inf  # the end is a write: a deadline never wraps one
                await call.end()
                return None
        except OperationRefused as refused:
            return direct_error(call.id, refused.code, refused.message, refused.details)
        except Exception:  # the handler is not ours: whatever it raises ends this call and nothing else
            log.exception("the handler of %s failed", call.operation)
            return direct_error(call.id, ErrorCode.INTERNAL, f"The operation {call.operation} failed on the node.")
        return direct_error(
            call.id, ErrorCode.CONFLICT, "The caller's time ran out on the node.", {"reason": "deadline_exceeded"}
        )
