"""What the frames of a node do: each message whole, in order, without waiting for anybody."""

import logging
from collections.abc import Callable, Sequence

from skygw.errors import GatewayError, Invalid, NotFound
from skygw.ids import Epoch
from skygw.nodes.calls import CallTable
from skygw.nodes.committer import Committer, TooManyUnacked
from skygw.nodes.heartbeat import Ends, Heartbeat
from skygw.nodes.ports import Binding, DurableReport, Following, SessionPorts
from skygw.nodes.rates import InboundRate
from skygw.nodes.refusals import SnapshotRefusals
from skygw.nodes.reports import durable_report, refused_report
from skygw.nodes.session_token import SessionToken
from skygw.protocol.chunks import BrokenChunk, unpack_chunk
from skygw.protocol.close_codes import CloseCode
from skygw.protocol.codec import BadFrame, ProtocolViolation, Read, from_node
from skygw.protocol.frame import Frame
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_BINARY_BYTES, REPORTS_PER_FRAME
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
from skygw.protocol.streams import SubscribeStream, UnsubscribeStream
from skygw.resources import Unwanted

log = logging.getLogger("skygw.nodes")


_CODES = {Invalid: ErrorCode.INVALID, NotFound: ErrorCode.NOT_FOUND}


class Intake:
    """One per session, called by its reader. Ends the session over broken framing and over too much of anything."""

    def __init__(
        self,
        *,
        binding: Binding,
        epoch: Epoch,
        calls: CallTable,
        committer: Committer,
        token: SessionToken,
        heartbeat: Heartbeat,
        rate: InboundRate,
        following: Following,
        ports: SessionPorts,
        say: Callable[[Frame], None],
        end: Ends,
        is_over: Callable[[], bool],
    ) -> None:
        self._binding = binding
        self._epoch = epoch
        self._calls = calls
        self._committer = committer
        self._token = token
        self._heartbeat = heartbeat
        self._rate = rate
        self._following = following
        self._snapshots = ports.snapshots
        self._results = ports.results
        self._metrics = ports.metrics
        self._say = say
        self._end = end
        self._is_over = is_over
        self._unweighed_frames = self._unweighed_bytes = self._part_reports = 0
        self._refusals = SnapshotRefusals(say=say, count=ports.metrics.snapshot_refused)

    def take(self, messages: Sequence[str | bytes]) -> None:
        """Does what these messages say, one by one. They came together, and are counted and weighed together."""
        self._metrics.message("in", sum(map(len, messages)))
        for message in messages:
            try:
                if isinstance(message, bytes):
                    self._take_chunk(message)
                else:
                    self._take_text(message)
            except (ProtocolViolation, BrokenChunk) as violation:
                self._end(CloseCode.PROTOCOL_VIOLATION, str(violation))
            except TooManyUnacked as flood:
                self._end(CloseCode.RATE_LIMITED, str(flood))
        if self._unweighed_bytes:
            self._weigh()

    def _take_chunk(self, message: bytes) -> None:
        if len(message) > MAX_BINARY_BYTES:
            raise ProtocolViolation(f"a binary message of {len(message)} bytes, and {MAX_BINARY_BYTES} is the limit")
        chunk = unpack_chunk(message)
        self._metrics.frame("in", "direct_response_chunk")
        self._calls.on_chunk(chunk)

    def _take_text(self, message: str) -> None:
        """The durable frames of one message are one unit."""
        items = from_node.decode(message)
        unit: list[DurableReport] = []
        frames, size = len(items), len(message) if message.isascii() else len(message.encode())
        for item in items:
            if self._is_over():
                return  # what comes behind the end moves nothing
            if isinstance(item, BadFrame):
                self._metrics.frame("in", "bad")
                self._answer_bad(item, unit)
            else:
                self._metrics.frame("in", item.frame.kind)
                if not self._take(item, unit):
                    frames -= 1
                    size -= len(item.text)
        if unit:
            self._committer.take(unit)
            whole, self._part_reports = divmod(self._part_reports + len(unit), REPORTS_PER_FRAME)
            frames += whole - len(unit)
        elif frames == 0:
            return  # nothing but what it was asked for
        self._unweighed_frames += frames
        self._unweighed_bytes += size

    def _weigh(self) -> None:
        """What was too much has been taken: so each socket that ends over it has moved the outbox on."""
        too_much = self._rate.charge(frames=self._unweighed_frames, size=self._unweighed_bytes)
        self._unweighed_frames = self._unweighed_bytes = 0
        if too_much is not None:
            log.warning("node sends too much", extra={"why": too_much})
            self._end(CloseCode.RATE_LIMITED, too_much)

    def _answer_bad(self, bad: BadFrame, unit: list[DurableReport]) -> None:
        report = refused_report(bad)
        if report is not None:
            unit.append(report)
        elif bad.kind == "publish_snapshot":
            self._refusals.tell(Unwanted("invalid", bad.message), stream=None, uid=None)
        else:
            self._say(
                Error(code=ErrorCode.INVALID, message=bad.message, id=bad.id, details=Opaque.of({"reason": "invalid"}))
            )

    def _take(self, item: Read[NodeFrame], unit: list[DurableReport]) -> bool:
        """Returns whether it counts as what the node sends by itself: what it was asked for does not."""
        frame = item.frame
        match frame:  # what comes most often first: each pydantic class that it is not costs half a microsecond
            case PublishSnapshot():
                unwanted = self._snapshots.offer(self._binding, self._epoch, frame)
                if unwanted is not None:
                    self._refusals.tell(unwanted, stream=frame.stream, uid=frame.data.value.get("uid"))
            case DirectResponseStart() | DirectResponseEnd() | DirectError():
                return not self._calls.on_reply(frame)
            case DirectResponseChunk():
                self._calls.on_reply(frame)
                return False
            case PublishLog() | PublishEvent() | PublishGap():
                unit.append(durable_report(self._binding, frame, item.text))
            case PublishCommandResult():
                self._results.result_arrived(self._binding.install_id, frame)
                unit.append(durable_report(self._binding, frame, item.text))
            case SubscribeStream():
                self._subscribe(frame)
            case UnsubscribeStream():
                if not self._following.unsubscribe(frame.subscription_id):
                    self._refuse(frame.subscription_id, NotFound("There is no such subscription on this socket."))
            case AuthRefresh():
                self._token.offer(frame.token)
            case Ping():
                self._say(Pong(id=frame.id))
            case Pong():
                self._heartbeat.take_pong(frame)
            case Error():
                log.warning("node says error", extra={"code": frame.code, "said": frame.message[:250]})
            case Hello():
                self._say(Error(code=ErrorCode.CONFLICT, message="`hello` comes once, first on a socket."))
        return True

    def _subscribe(self, asked: SubscribeStream) -> None:
        try:
            self._following.subscribe(asked)
        except GatewayError as error:
            self._refuse(asked.subscription_id, error)

    def _refuse(self, subscription_id: str, error: GatewayError) -> None:
        code = _CODES.get(type(error), ErrorCode.CONFLICT)
        details = Opaque.of({"reason": error.reason})
        self._say(Error(code=code, message=error.message, id=subscription_id, details=details))
