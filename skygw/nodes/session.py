"""One node socket from `welcome` to goodbye, in a nursery of its own: reader, writer, heartbeat, committer, token."""

import logging
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from uuid import uuid4

import trio

from skygw.errors import Busy, Forbidden, LinkLost
from skygw.ids import SessionUid
from skygw.nodes.calls import CallTable
from skygw.nodes.committer import Committer, TooManyUnacked
from skygw.nodes.heartbeat import Heartbeat
from skygw.nodes.link import LAST_WORDS_S, NodeLink, say_goodbye
from skygw.nodes.outbox import Lane, Outbox, OutboxClosed, OutboxFull, Parcel, ParcelState
from skygw.nodes.ports import (
    Binding,
    Claim,
    DurableReport,
    ReportStore,
    ResultSink,
    SessionMetrics,
    SnapshotSink,
    Standing,
    TokenRenewer,
)
from skygw.nodes.session_token import SessionToken
from skygw.protocol.chunks import BrokenChunk, unpack_chunk
from skygw.protocol.close_codes import CloseCode, fitted_reason
from skygw.protocol.codec import BadFrame, ProtocolViolation, Read, encode, from_node
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import (
    Goaway,
    LinkLossPolicy,
    Welcome,
)
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import DIRECT_CREDIT_BYTES, MAX_BINARY_BYTES, Limits
from skygw.protocol.node_frames import (
    AuthRefresh,
    DirectError,
    DirectResponseChunk,
    DirectResponseEnd,
    DirectResponseStart,
    Error,
    ErrorCode,
    Hello,
    NodeFrame,
    Ping,
    Pong,
    PublishCommandResult,
    PublishEvent,
    PublishGap,
    PublishLog,
    PublishSnapshot,
)
from skygw.websocket import Fault, LinkClosed, Sent

log = logging.getLogger("skygw.nodes")

_CODE_OF_FAULT = {Fault.DOES_NOT_READ: CloseCode.SLOW_CONSUMER, Fault.GONE: CloseCode.SILENT}
"""What a link that was given up is said to have ended with; broken framing has its code already."""


@dataclass(frozen=True, slots=True)
class SessionRules:
    """The times and limits a session keeps. Seconds."""

    heartbeat_s: float = 10.0
    dead_after_s: float = 25.0
    hello_timeout_s: float = 10.0
    issuer_grace_s: float = 900.0
    max_calls: int = 64
    call_credit: int = DIRECT_CREDIT_BYTES
    link_loss_policy: LinkLossPolicy = LinkLossPolicy.SAFE_SHUTDOWN


@dataclass(frozen=True, slots=True)
class SessionPorts:
    """The rooms a session talks to."""

    reports: ReportStore
    tokens: TokenRenewer
    snapshots: SnapshotSink
    results: ResultSink
    metrics: SessionMetrics


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a session ended. `by_node` when the node's side closed or the connection broke."""

    code: int | None
    reason: str
    by_node: bool
    at: datetime


class NodeSession:
    """Runs one socket. Others may call `put`, `calls.open` and `end`; none of these waits."""

    def __init__(
        self,
        *,
        link: NodeLink,
        hello: Hello,
        binding: Binding,
        claim: Claim,
        acked_seq: int,
        token_expires_at: float,
        address: str,
        rules: SessionRules,
        ports: SessionPorts,
        token_to_recheck: str | None = None,
    ) -> None:
        self.uid = SessionUid(uuid4())
        self.hello = hello
        self.binding = binding
        self.epoch = claim.epoch
        self.address = address
        self.since = datetime.now(UTC)
        self.ending: Ending | None = None
        self.calls = CallTable(at_most=rules.max_calls, credit=rules.call_credit, on_late=ports.metrics.late_reply)
        self._claim = claim
        self._link = link
        self._rules = rules
        self._ports = ports
        self._outbox = Outbox()
        self._committer = Committer(
            install_id=binding.install_id,
            outbox_uid=hello.outbox_uid,
            acked_seq=acked_seq,
            store=ports.reports,
            results=ports.results,
            say=self.say,
        )
        self.token = SessionToken(
            install_id=binding.install_id,
            expires_at=token_expires_at,
            to_recheck=token_to_recheck,
            tokens=ports.tokens,
            grace_s=rules.issuer_grace_s,
            say=self.say,
            end=self.end,
        )
        self._started_at = trio.current_time()
        self._work = trio.CancelScope()
        self._heartbeat = Heartbeat(
            link=link,
            every_s=rules.heartbeat_s,
            dead_after_s=rules.dead_after_s,
            t_ms=self.t_ms,
            say=self.say,
            end=self.end,
        )
        self._written_out = trio.Event()

    # What others may call.

    def t_ms(self) -> int:
        """Milliseconds of the gateway's monotonic clock since this session began."""
        return int((trio.current_time() - self._started_at) * 1000)

    @property
    def last_received_at(self) -> float:
        """On trio's clock."""
        return self._link.last_received_at

    @property
    def round_trip_s(self) -> float | None:
        """Of the last ping that was answered."""
        return self._heartbeat.round_trip_s

    @property
    def acked_seq(self) -> int:
        return self._committer.acked_seq

    @property
    def standing(self) -> Standing:
        """What the next session of this installation can begin from."""
        return Standing(self._claim, self.hello.instance_uid, self.hello.outbox_uid, self.acked_seq)

    @property
    def unacked(self) -> int:
        """Durable frames that came and are not committed yet."""
        return self._committer.waiting

    def queued_bytes(self, lane: Lane) -> int:
        return self._outbox.queued_bytes(lane)

    def has_room(self, size: int) -> bool:
        """Whether a message of `size` bytes would be taken into the data lane now."""
        return self.ending is None and self._outbox.has_room(Lane.DATA, size)

    def require_more_than_safing(self) -> None:
        """Raises `Forbidden` in the grace time of an expired token."""
        if self.token.in_grace:
            raise Forbidden("This node's token has expired and its issuer cannot be reached: only safing passes now.")

    def put(self, lane: Lane, frame: Frame) -> Parcel:
        """Queues a frame. Raises `Busy` when the data lane is full, `LinkLost` when the session is ending; in both
        cases nothing was or will be sent. Safing is taken even in the grace time of an expired token.
        """
        if lane is Lane.DATA:
            self.require_more_than_safing()
        try:
            parcel = self._outbox.put(lane, encode(frame))
        except OutboxClosed:
            raise LinkLost("The node's socket is ending.") from None
        except OutboxFull as full:
            if lane is Lane.DATA:
                raise Busy(f"This node does not take what it is sent: {full}.", retry_after_s=1.0) from None
            self.end(CloseCode.SLOW_CONSUMER, f"the node does not take what it is sent: {full}")
            raise LinkLost("The node's socket is ending: it does not take what it is sent.") from None
        self._ports.metrics.frame("out", frame.kind)
        return parcel

    def say(self, frame: Frame) -> None:
        """Queues a frame of the session's own business; if it cannot be taken the session is ending anyway."""
        try:
            self.put(Lane.CONTROL, frame)
        except LinkLost:
            log.debug("not said to a session that is ending: %s", frame.kind)

    def announce_end(self, reason: str, *, reconnect_after_ms: int) -> None:
        """Tells the node that the socket will be closed soon, and when to come back."""
        self.say(Goaway(reason=reason, reconnect_after_ms=reconnect_after_ms))

    def end(self, code: int, reason: str) -> None:
        """Ends the session soon. Idempotent; the first reason wins; the session's own task closes."""
        self._finish(Ending(code, fitted_reason(reason), by_node=False, at=datetime.now(UTC)))

    def ending_or_lost(self) -> Ending:
        """Why it ended; a session that was cancelled from outside was dropped."""
        return self.ending or Ending(None, "the gateway stopped", by_node=False, at=datetime.now(UTC))

    def _finish(self, ending: Ending) -> None:
        if self.ending is None:
            self.ending = ending
            self._outbox.close()
            self._work.cancel()

    # The session's own tasks.

    async def run(self) -> Ending:
        """Runs until the socket ends, whoever ends it. Cancelled from outside, the connection is dropped."""
        self._greet()
        ended_in_order = False
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._write)
                try:
                    await self._work_until_the_end()
                    with trio.move_on_after(LAST_WORDS_S):
                        await self._written_out.wait()
                finally:
                    self.ending = self.ending_or_lost()
                    nursery.cancel_scope.cancel()
            await self._close()
            ended_in_order = True
        finally:
            if not ended_in_order:  # after a close frame, of whichever side, aborting would take it back
                self._link.abort()
            self._outbox.abandon()
            ending = self.ending_or_lost()
            self.calls.fail_all(f"The node's socket ended: {ending.reason or ending.code or 'connection lost'}.")
        return ending

    async def _work_until_the_end(self) -> None:
        try:
            with self._work:
                async with trio.open_nursery() as work:
                    work.start_soon(self._read)
                    work.start_soon(self._heartbeat.run)
                    work.start_soon(self._committer.run)
                    work.start_soon(self.token.watch)
                    work.start_soon(self.token.recheck)
        except Exception:
            self.end(CloseCode.INTERNAL_ERROR, "internal error")  # our fault, not the node's
            raise
        if self.ending is None:  # a task of ours returned: that is our fault too
            self.end(CloseCode.INTERNAL_ERROR, "internal error")

    async def _close(self) -> None:
        """Says what it ended with, unless the node's side ended it."""
        if self.ending is not None and not self.ending.by_node and self.ending.code is not None:
            await say_goodbye(self._link, self.ending.code, self.ending.reason)

    def _greet(self) -> None:
        """`welcome` takes the safing lane, because nothing may overtake it."""
        welcome = Welcome(
            session_uid=self.uid,
            epoch=self.epoch,
            registry_uid=self._claim.registry_uid,
            heartbeat_s=self._rules.heartbeat_s,
            limits=Limits(),
            server_time=datetime.now(UTC),
            acked_seq=self._committer.acked_seq,
            link_loss_policy=self._rules.link_loss_policy,
            t_ms=self.t_ms(),
        )
        with suppress(LinkLost):  # superseded already
            self.put(Lane.SAFING, welcome)

    async def _write(self) -> None:
        """The only task that sends. A write is never under a call's deadline: the link has one of its own."""
        try:
            while batch := await self._outbox.next():
                sent = Sent()
                try:
                    await self._link.send([parcel.message for parcel in batch], sent)
                except LinkClosed as closed:
                    self._lost(closed)
                    return
                finally:
                    self._settle(batch, sent)
        finally:
            self._written_out.set()

    def _settle(self, batch: list[Parcel], sent: Sent) -> None:
        """Says of each message what is known: handed over, perhaps, or certainly not."""
        for index, parcel in enumerate(batch):
            if index < sent.whole:
                parcel.settle(ParcelState.WRITTEN)
                self._ports.metrics.message("out", len(parcel.message))
            elif index < sent.whole + sent.doubtful:
                parcel.settle(ParcelState.DOUBTFUL)
            else:
                parcel.settle(ParcelState.WITHDRAWN)

    def _lost(self, closed: LinkClosed) -> None:
        code = closed.code if closed.fault is None else _CODE_OF_FAULT.get(closed.fault, closed.code)
        if closed.fault is Fault.DOES_NOT_READ:
            queued = sum(self._outbox.queued_bytes(lane) for lane in Lane)
            log.warning("node does not read", extra={"why": closed.reason, "queued_bytes": queued})
        by_node = closed.fault is None and closed.code != CloseCode.SERVICE_RESTART  # that, the listener said
        self._finish(Ending(code, fitted_reason(closed.reason), by_node=by_node, at=datetime.now(UTC)))

    async def _read(self) -> None:
        """The only task that receives. Nothing here waits for anything but the socket."""
        while True:
            try:
                messages = await self._link.receive()
            except LinkClosed as closed:
                self._lost(closed)
                return
            for message in messages:
                self._take_message(message)

    def _take_message(self, message: str | bytes) -> None:
        self._ports.metrics.message("in", len(message))
        try:
            if isinstance(message, bytes):
                self._take_chunk(message)
            else:
                self._take_text(message)
        except (ProtocolViolation, BrokenChunk) as violation:
            self.end(CloseCode.PROTOCOL_VIOLATION, str(violation))
        except TooManyUnacked as flood:
            self.end(CloseCode.RATE_LIMITED, str(flood))

    def _take_chunk(self, message: bytes) -> None:
        if len(message) > MAX_BINARY_BYTES:
            raise ProtocolViolation(f"a binary message of {len(message)} bytes, and {MAX_BINARY_BYTES} is the limit")
        chunk = unpack_chunk(message)
        self._ports.metrics.frame("in", "direct_response_chunk")
        self.calls.on_chunk(chunk)

    def _take_text(self, message: str) -> None:
        for item in from_node.decode(message):
            if self.ending is not None:
                return  # what comes behind the end moves nothing
            if isinstance(item, BadFrame):
                self._ports.metrics.frame("in", "bad")
                self._answer_bad(item)
            else:
                self._ports.metrics.frame("in", item.frame.kind)
                self._take(item)

    def _answer_bad(self, bad: BadFrame) -> None:
        if bad.seq is not None and bad.kind is not None:
            self._committer.take([DurableReport(seq=bad.seq, kind=bad.kind, text="", nacked=bad.message)])
            return
        self.say(
            Error(code=ErrorCode.INVALID, message=bad.message, id=bad.id, details=Opaque.of({"reason": "invalid"}))
        )

    def _take(self, item: Read[NodeFrame]) -> None:
        frame = item.frame
        match frame:  # what comes most often first: each pydantic class that it is not costs half a microsecond
            case PublishSnapshot():
                self._ports.snapshots.offer(self.binding.install_id, self.epoch, frame)
            case DirectResponseStart() | DirectResponseEnd() | DirectResponseChunk() | DirectError():
                self.calls.on_reply(frame)
            case PublishLog() | PublishEvent() | PublishGap():
                self._committer.take([DurableReport(seq=frame.seq, kind=frame.kind, text=item.text)])
            case PublishCommandResult():
                self._ports.results.result_arrived(self.binding.install_id, frame)
                self._committer.take([DurableReport(seq=frame.seq, kind=frame.kind, text=item.text, result=frame)])
            case AuthRefresh():
                self.token.offer(frame.token)
            case Ping():
                self.say(Pong(id=frame.id))
            case Pong():
                self._heartbeat.take_pong(frame)
            case Error():
                log.warning("node says error", extra={"code": frame.code, "said": frame.message[:250]})
            case Hello():
                self.say(Error(code=ErrorCode.CONFLICT, message="`hello` comes once, first on a socket."))
