"""Direct requests on a socket: many at a time, each answered as fast as the socket takes it (contract §5, §6)."""

import base64
from collections.abc import Awaitable, Callable

import trio

from skygw.control.direct_rpc import DirectOrder, DirectRpc
from skygw.control.order import Budget
from skygw.conversations.refusals import code_of, details_of, refusal
from skygw.conversations.words import Words
from skygw.errors import Busy, GatewayError, IdReused, NotFound, Outcome
from skygw.ids import CallId, InstallId, RequestId
from skygw.observability.tracing import Trace
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.codec import encode
from skygw.protocol.commander_frames import DirectAsked, DirectCanceled
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import (
    DirectError,
    DirectResponseChunk,
    DirectResponseEnd,
    DirectResponseStart,
    ErrorCode,
)
from skygw.telemetry.outlet import SubscriberOutlet

MAX_DIRECT = 32
"""Direct requests under way on one socket. A reader that is slow holds the credit of each, 1 MiB: 32 MiB at most."""

CHUNK_BYTES = 33 * 1024
"""Of payload in one message: 44 KiB as text. What is more urgent waits for no more than one of these."""

FindInstallation = Callable[[str], Awaitable[InstallId]]
"""Whether there is one. Raises `NotFound`, `RoutingUnavailable`."""


class DirectRequests:
    """Of one socket. With `binary`, pieces are binary messages under the caller's id."""

    def __init__(
        self, rpc: DirectRpc, find: FindInstallation, outlet: SubscriberOutlet, *, budget: Budget, binary: bool
    ) -> None:
        self._rpc = rpc
        self._find = find
        self._outlet = outlet
        self._budget = budget
        self._binary = binary
        self._under_way: dict[CallId, trio.CancelScope] = {}

    def ask(self, asked: DirectAsked, service: str, here: trio.Nursery) -> None:
        """Its place is kept until its last words are on their way. Raises `IdReused`, `Busy`."""
        if asked.id in self._under_way:
            raise IdReused(f"The id {asked.id} belongs to a request that is under way on this socket.")
        if len(self._under_way) >= MAX_DIRECT:
            raise Busy(
                f"This socket has {len(self._under_way)} direct requests under way, and {MAX_DIRECT} is the limit.",
                retry_after_s=1.0,
            )
        scope = self._under_way[asked.id] = trio.CancelScope()
        here.start_soon(self._carry, asked, service, scope)

    def cancel(self, said: DirectCanceled) -> None:
        scope = self._under_way.get(said.id)
        if scope is None:
            unknown = NotFound(f"No direct request {said.id} is under way on this socket.")
            self._outlet.say(encode(refusal(unknown, str(said.id))))
        else:
            scope.cancel()

    async def _carry(self, asked: DirectAsked, service: str, scope: trio.CancelScope) -> None:
        words = Words(self._outlet, when_said=lambda: self._forget(asked.id))
        order = DirectOrder(
            install_id=asked.install_id,
            operation=asked.operation,
            params=asked.params,
            timeout_s=self._budget.of(asked.timeout_s),
            connect_wait_s=asked.connect_wait_s,
            offset=asked.offset,
            length=asked.length,
            if_digest=asked.if_digest,
            service=service,
            request_id=RequestId(str(asked.id)),
            traceparent=Trace.parent(asked.traceparent).traceparent,
        )
        last = ""
        with scope:
            try:
                await self._find(str(asked.install_id))
                last = encode(await self._pass_on(asked.id, order, words))
            except GatewayError as error:
                words.withdraw()
                last = _failed(asked.id, error)
        if scope.cancelled_caught:
            words.withdraw()
            last = _canceled(asked.id, self._outcome(order))
        words.end(last)

    async def _pass_on(self, call_id: CallId, order: DirectOrder, words: Words) -> DirectResponseEnd:
        """Says the answer; its end, which it returns, may be said behind it when nothing more is held for it."""
        chunks, size = 0, 0
        async with self._rpc.call(order) as answer:
            start = answer.start
            await words.put(
                encode(
                    DirectResponseStart(
                        id=call_id,
                        content_type=start.content_type,
                        total_size=start.total_size,
                        metadata=start.metadata,
                    )
                )
            )
            async for piece in answer:
                for at in range(0, len(piece), CHUNK_BYTES):
                    await words.put(self._chunk(call_id, chunks, piece[at : at + CHUNK_BYTES]))
                    chunks += 1
                size += len(piece)
        if answer.end is None:
            raise RuntimeError("an answer that was read to its end has none")
        return DirectResponseEnd(id=call_id, chunks=chunks, total_size=size, sha256=answer.end.sha256)

    def _chunk(self, call_id: CallId, seq: int, payload: bytes) -> str | bytes:
        if self._binary:
            return pack_chunk(Chunk(call_id, seq, payload))
        return encode(DirectResponseChunk(id=call_id, seq=seq, data=base64.b64encode(payload).decode()))

    def _outcome(self, order: DirectOrder) -> Outcome:
        record = self._rpc.log.find(order.service, order.request_id)
        return Outcome.NOT_SENT if record is None else record.outcome

    def _forget(self, call_id: CallId) -> None:
        del self._under_way[call_id]


def _failed(call_id: CallId, error: GatewayError) -> str:
    return encode(
        DirectError(
            id=call_id, code=code_of(error).value, message=error.message[:2_000], details=Opaque.of(details_of(error))
        )
    )


def _canceled(call_id: CallId, outcome: Outcome) -> str:
    details = {"reason": "canceled", "outcome": outcome.value, "retry": "never", "hop": "gateway"}
    return encode(
        DirectError(
            id=call_id,
            code=ErrorCode.CONFLICT.value,
            message="Canceled by its caller; the node is told.",
            details=Opaque.of(details),
        )
    )
