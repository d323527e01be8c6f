"""What a node is sent of a command: the command itself, and its cancel."""

from skygw.control.ledger import CancelRequest, CommandRecord
from skygw.control.order import CommandOrder
from skygw.control.trace_context import carried_traceparent
from skygw.nodes.outbox import Lane
from skygw.nodes.session import NodeSession
from skygw.protocol.gateway_frames import CancelCommand, EventCommand
from skygw.protocol.json_text import Opaque


def event_of(order: CommandOrder, record: CommandRecord, session: NodeSession, *, left_s: float | None) -> EventCommand:
    """`left_s` is what is left of the caller's time, or `None` for what is never late."""
    most_s: float | None = None
    if left_s is not None and record.deadline_max_at is not None:
        most_s = left_s + (record.deadline_max_at - record.deadline_at).total_seconds()
    return EventCommand(
        command_id=record.command_id,
        telescope_uid=record.telescope_uid,
        device_uid=record.device_uid,
        command=order.command,
        origin=order.origin,
        actor=None if record.actor is None else Opaque.of(record.actor),
        deadline_ms=None if left_s is None else int(left_s * 1000),
        deadline_max_ms=None if most_s is None else int(most_s * 1000),
        epoch=session.epoch,
        t_ms=session.t_ms(),
        fence=record.fence,
        fence_uid=record.fence_uid,
        graph_revision=order.graph_revision,
        issued_at=record.created_at,
        traceparent=carried_traceparent(order.traceparent),
    )


def send_cancel(session: NodeSession, asked: CancelRequest) -> None:
    """Raises `LinkLost` when the session is ending."""
    session.put(
        Lane.SAFING,
        CancelCommand(
            command_id=asked.command_id,
            mode=asked.mode,
            grace_ms=None if asked.grace_s is None else int(asked.grace_s * 1000),
            epoch=session.epoch,
            t_ms=session.t_ms(),
        ),
    )
