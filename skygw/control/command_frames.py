"""What a node is sent of a command: the command itself, and its cancel."""

from skygw.control.lease_guard import Fence
from skygw.control.ledger import CommandRecord
from skygw.control.order import CommandOrder
from skygw.control.trace_context import carried_traceparent
from skygw.ids import CommandId
from skygw.nodes.outbox import Lane
from skygw.nodes.session import NodeSession
from skygw.protocol.gateway_frames import CancelCommand, CancelMode, EventCommand
from skygw.protocol.json_text import Opaque


def event_of(
    order: CommandOrder, record: CommandRecord, session: NodeSession, *, left_s: float | None, fence: Fence | None
) -> EventCommand:
    """`left_s` is what is left of the caller's time, or `None` for what is never late."""
    return EventCommand(
        command_id=record.command_id,
        telescope_uid=record.telescope_uid,
        device_uid=record.device_uid,
        command=order.command,
        origin=order.origin,
        actor=None if record.actor is None else Opaque.of(record.actor),
        deadline_ms=None if left_s is None else int(left_s * 1000),
        epoch=session.epoch,
        t_ms=session.t_ms(),
        fence=fence and fence.fence,
        fence_uid=fence and fence.uid,
        graph_revision=order.graph_revision,
        issued_at=record.created_at,
        traceparent=carried_traceparent(order.traceparent),
    )


def send_cancel(session: NodeSession, command_id: CommandId, mode: CancelMode, grace_s: float | None) -> None:
    """Raises `LinkLost` when the session is ending."""
    session.put(
        Lane.SAFING,
        CancelCommand(
            command_id=command_id,
            mode=mode,
            grace_ms=None if grace_s is None else int(grace_s * 1000),
            epoch=session.epoch,
            t_ms=session.t_ms(),
        ),
    )
