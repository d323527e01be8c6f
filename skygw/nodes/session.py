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
from skygw.nodes.committer import Committer
from skygw.nodes.heartbeat import Heartbeat
from skygw.nodes.intake import Intake
from skygw.nodes.link import LAST_WORDS_S, NodeLink, say_goodbye
from skygw.nodes.outbox import Lane, Outbox, OutboxClosed, OutboxFull, Parcel
from skygw.nodes.ports import Binding, Claim, Ending, SessionPorts, Standing
from skygw.nodes.rates import InboundRate
from skygw.nodes.relay import relay
from skygw.nodes.session_token import SessionToken
from skygw.nodes.writer import Writer
from skygw.protocol.close_codes import CloseCode, fitted_reason
from skygw.protocol.codec import encode
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import Goaway, LinkLossPolicy, Welcome
from skygw.protocol.limits import BYTES_PER_S, DIRECT_CREDIT_BYTES, FRAMES_PER_S, REPORTS_PER_FRAME, Limits
from skygw.protocol.node_frames import Hello
from skygw.websocket import Fault, LinkClosed

log = logging.getLogger("skygw.nodes")

_CODE_OF_FAULT = {Fault.DOES_NOT_READ: CloseCode.SLOW_CONSUMER, Fault.GONE: CloseCode.SILENT}
"""What a link that was given up is said to have ended with; broken framing has its code already."""


@dataclass(frozen=True, slots=True)
class SessionRules:
    """The times and limits a session keeps. Seconds; `frames_per_s` and `bytes_per_s` are an installation's."""

    heartbeat_s: float = 10.0
    dead_after_s: float = 25.0
    hello_timeout_s: float = 10.0
    issuer_grace_s: float = 900.0
    max_calls: int = 64
    call_credit: int = DIRECT_CREDIT_BYTES
    frames_per_s: int = FRAMES_PER_S
    bytes_per_s: int = BYTES_PER_S
    link_loss_policy: LinkLossPolicy = LinkLossPolicy.SAFE_SHUTDOWN


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
        rate: InboundRate,
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
            count_nack=ports.metrics.report_nacked,
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
        self._writer = Writer(link=link, outbox=self._outbox, metrics=ports.metrics, lost=self._lost)
        self._following = ports.streams.follow(binding, t_ms=self.t_ms)
        self._intake = Intake(
            binding=binding,
            epoch=claim.epoch,
            calls=self.calls,
            committer=self._committer,
            token=self.token,
            heartbeat=self._heartbeat,
            rate=rate,
            following=self._following,
            ports=ports,
            say=self.say,
            end=self.end,
            is_over=lambda: self.ending is not None,
        )

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

    def require_room(self, size: int, caller: str) -> None:
        """Raises what `put` would raise for a message of `size` bytes in the data lane."""
        try:
            self._outbox.check_room(Lane.DATA, size, caller)
        except OutboxClosed:
            raise _ending() from None
        except OutboxFull as full:
            raise _does_not_take(full) from None

    def require_more_than_safing(self) -> None:
        """Raises `Forbidden` in the grace time of an expired token."""
        if self.token.in_grace:
            raise Forbidden("This node's token has expired and its issuer cannot be reached: only safing passes now.")

    def put(self, lane: Lane, frame: Frame, caller: str = "") -> Parcel:
        """Queues a frame. Raises `Busy` when the data lane, or the caller's share of it, is full, `LinkLost` when the
        session is ending; in both cases nothing was or will be sent. Safing is taken even in the grace time of an
        expired token.
        """
        if lane is Lane.DATA:
            self.require_more_than_safing()
        parcel = self._queue(lane, encode(frame), caller)
        self._ports.metrics.frame("out", frame.kind)
        return parcel

    def _queue(self, lane: Lane, text: str, caller: str = "") -> Parcel:
        try:
            return self._outbox.put(lane, text, caller)
        except OutboxClosed:
            raise _ending() from None
        except OutboxFull as full:
            if lane is Lane.DATA:
                raise _does_not_take(full) from None
            self.end(CloseCode.SLOW_CONSUMER, f"the node does not take what it is sent: {full}")
            raise LinkLost("The node's socket is ending: it does not take what it is sent.") from None

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
                nursery.start_soon(self._writer.run)
                try:
                    await self._work_until_the_end()
                    with trio.move_on_after(LAST_WORDS_S):
                        await self._writer.done.wait()
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
                    work.start_soon(relay, self._following, self._queue)
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
            limits=Limits(
                frames_per_s=self._rules.frames_per_s,
                reports_per_frame=REPORTS_PER_FRAME,
                bytes_per_s=self._rules.bytes_per_s,
            ),
            graph_revision=self._ports.graph.revision_of(self.binding.observatory_uid),
            server_time=datetime.now(UTC),
            acked_seq=self._committer.acked_seq,
            link_loss_policy=self._rules.link_loss_policy,
            t_ms=self.t_ms(),
        )
        with suppress(LinkLost):  # superseded already
            self.put(Lane.SAFING, welcome)

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
            self._intake.take(messages)


def _ending() -> LinkLost:
    return LinkLost("The node's socket is ending.")


def _does_not_take(full: OutboxFull) -> Busy:
    return Busy(
        f"This node does not take what it is sent: {full}.",
        retry_after_s=1.0,
        details={"usedUp": "bytes"} if full.caller is None else {"usedUp": "bytes", "service": full.caller},
    )
