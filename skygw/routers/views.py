"""How records of the services look on the wire."""

from collections.abc import Sequence
from datetime import UTC, datetime

import trio

from skygw.control.direct_rpc import CallRecord
from skygw.control.ledger import Caller, CommandRecord
from skygw.control.receipts import Receipt
from skygw.errors import GatewayError
from skygw.ids import CommandId
from skygw.nodes.connection_registry import Memory
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import Binding
from skygw.nodes.session import NodeSession
from skygw.protocol.json_text import Opaque, read_value
from skygw.routers.problems import problem_body
from skygw.routers.schemas import (
    CallerView,
    CallView,
    CancelView,
    CloseView,
    CommandView,
    FenceView,
    NodeView,
    RefusalView,
    StreamView,
    TransitionView,
    ValidationView,
)
from skygw.routers.schemas import Receipt as ReceiptView
from skygw.telemetry.retained import PUBLISHED_BY_NODES, RetainedValues


def node_view(
    binding: Binding,
    *,
    key: int | None,
    session: NodeSession | None,
    memory: Memory,
    snapshots: RetainedValues,
) -> NodeView:
    """An installation, and what is known of its connection to this process."""
    close, refusal = memory.last_close, memory.last_refusal
    return NodeView(
        id=key,
        uid=binding.install_id,
        name=binding.name,
        node_type=binding.node_type,
        observatory_uid=binding.observatory_uid,
        connected=session is not None,
        replica=None if session is None else "local",
        epoch=session and session.epoch,
        since=session and session.since,
        last_seen=session and _wall_clock(session.last_received_at),
        address=session and session.address,
        round_trip_s=session and session.round_trip_s,
        calls_in_flight=0 if session is None else len(session.calls),
        queue_bytes={} if session is None else {lane.label: session.queued_bytes(lane) for lane in Lane},
        unacked_reports=0 if session is None else session.unacked,
        token_expires_at=session and datetime.fromtimestamp(session.token.expires_at, UTC),
        token_in_grace=session is not None and session.token.in_grace,
        instance_uid=session and session.hello.instance_uid,
        boot_id=session and session.hello.boot_id,
        software_version=session and session.hello.software_version,
        features=[] if session is None else list(session.hello.features),
        telescopes=sorted(binding.telescopes),
        devices=sorted(binding.devices),
        streams=[
            StreamView(
                stream=held.stream,
                uid=held.uid,
                observed_at=held.observed_at,
                age_s=trio.current_time() - held.heard_at,
                max_silence_s=held.max_silence_s,
                stale=held.stale,
            )
            for held in snapshots.of(binding.install_id)
            if held.stream in PUBLISHED_BY_NODES
        ],
        last_close=close and CloseView(at=close.at, code=close.code, reason=close.reason, by_node=close.by_node),
        last_refusal=refusal
        and RefusalView(at=refusal.at, code=refusal.code, reason=refusal.reason, address=refusal.address),
    )


def _wall_clock(at: float) -> datetime:
    """A moment on trio's clock as a date."""
    return datetime.fromtimestamp(datetime.now(UTC).timestamp() - (trio.current_time() - at), UTC)


def command_view(record: CommandRecord, *, duplicate: bool = False) -> CommandView:
    """A command as known now; the opaque members keep their bytes."""
    return CommandView(
        command_id=record.command_id,
        install_id=record.install_id,
        telescope_uid=record.telescope_uid,
        device_uid=record.device_uid,
        command=_opaque(record.command) or Opaque.of({}),
        origin=_opaque(record.origin),
        service=record.service,
        actor=record.actor,
        state=record.state,
        outcome=record.outcome,
        progress=record.progress,
        result=_opaque(record.result),
        error=_opaque(record.error),
        proof=_opaque(record.proof),
        canceled=record.canceled,
        epoch=record.epoch,
        fence=None
        if record.fence is None or record.fence_uid is None
        else FenceView(uid=record.fence_uid, fence=record.fence),
        trace_id=record.trace_id,
        created_at=record.created_at,
        deadline_at=record.deadline_at,
        deadline_max_at=record.deadline_max_at,
        ended_at=record.ended_at,
        recorded_late=record.recorded_late,
        duplicate=duplicate,
        transitions=[
            TransitionView(
                at=step.at,
                state=step.state,
                hop=step.hop,
                detail=step.detail,
                by=None if step.by is None else _caller_view(step.by),
            )
            for step in record.transitions
        ],
        cancels=[
            CancelView(at=request.at, mode=request.mode, grace_s=request.grace_s, by=_caller_view(request.by))
            for request in record.cancels
        ],
    )


def _caller_view(by: Caller) -> CallerView:
    return CallerView(service=by.service, actor=by.actor)


def validation_view(command_id: CommandId, refusals: Sequence[GatewayError], *, duplicate: bool) -> ValidationView:
    """A dry run's answer."""
    problems = [problem_body(refusal, None) for refusal in refusals]
    return ValidationView.model_validate(
        {
            "command_id": command_id,
            "valid": not refusals,
            "duplicate": duplicate,
            "refusals": [{**problem, "details": problem.get("details", {})} for problem in problems],
        }
    )


def _opaque(text: str | None) -> Opaque | None:
    return None if text is None else Opaque(text, read_value(text))


def receipt_view(command_id: CommandId, receipt: Receipt) -> ReceiptView:
    """What became of a cancel."""
    return ReceiptView(command_id=command_id, receipt=receipt.word, state=receipt.state, proof=_opaque(receipt.proof))


def call_view(record: CallRecord) -> CallView:
    return CallView(
        request_id=record.request_id,
        install_id=record.install_id,
        operation=record.operation,
        outcome=record.outcome,
        reached=record.reached,
        reason=record.reason,
        epoch=record.epoch,
        started_at=record.started_at,
        ended_at=record.ended_at,
    )
