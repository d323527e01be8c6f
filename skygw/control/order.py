"""What a caller wants done, before anything knows whether it will be."""

from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

from skygw.control.ledger import Caller, CommandRecord, CommandState, Transition, command_identity
from skygw.control.trace_context import trace_id_of
from skygw.errors import Hop, Invalid
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, LeaseUid, TelescopeUid
from skygw.protocol.json_text import Opaque
from skygw.protocol.order_members import CommandMembers


@dataclass(frozen=True, slots=True)
class CommandOrder:
    """What a caller wants done. `timeout_s` is the whole budget; the node gets what remains of it."""

    command_id: CommandId
    telescope_uid: TelescopeUid | None
    device_uid: DeviceUid | None
    command: Opaque
    origin: Opaque | None
    service: str
    actor: dict[str, str] | None
    timeout_s: float
    max_timeout_s: float | None = None
    """What the node may make of `timeout_s` if it asks for more time; less than that is nothing more."""
    graph_revision: int | None = None
    traceparent: str | None = None
    lease_uid: LeaseUid | None = None

    @property
    def command_type(self) -> str:
        """The discriminator; the rest of a command is the node's business. Raises `Invalid`."""
        found = self.command.value.get("command_type") if isinstance(self.command.value, dict) else None
        if not isinstance(found, str) or not 1 <= len(found) <= 100:
            raise Invalid("command.command_type must be a text of 1 to 100 characters.")
        return found

    @property
    def moves_enclosure(self) -> bool:
        """Sent to a telescope it moves what is over it."""
        return self.command_type.startswith("enclosure.")

    @property
    def identity(self) -> bytes:
        """What makes a repeat a repeat."""
        return command_identity(self.telescope_uid, self.device_uid, self.command.text)

    def record(self, install_id: InstallId, epoch: Epoch | None, *, left_s: float) -> CommandRecord:
        """The first line of a life in the ledger, with what is left of its budget."""
        now = datetime.now(UTC)
        deadline_at = now + timedelta(seconds=left_s)
        more_s = 0.0 if self.max_timeout_s is None else self.max_timeout_s - self.timeout_s
        return CommandRecord(
            command_id=self.command_id,
            install_id=install_id,
            telescope_uid=self.telescope_uid,
            device_uid=self.device_uid,
            command=self.command.text,
            origin=None if self.origin is None else self.origin.text,
            service=self.service,
            actor=self.actor,
            created_at=now,
            deadline_at=deadline_at,
            deadline_first_at=deadline_at if more_s > 0 else None,
            deadline_max_at=deadline_at + timedelta(seconds=more_s) if more_s > 0 else None,
            trace_id=trace_id_of(self.traceparent),
            epoch=epoch,
            transitions=[Transition(now, CommandState.RECEIVED, Hop.GATEWAY, by=Caller(self.service, self.actor))],
        )


@dataclass(frozen=True, slots=True)
class Budget:
    """Seconds a command may have: without a word of its caller's, and at most."""

    default_s: float
    max_s: float

    def of(self, said_s: float | None) -> float:
        return min(said_s or self.default_s, self.max_s)


def order_of(said: CommandMembers, caller: Caller, *, budget: Budget, traceparent: str | None) -> CommandOrder:
    """What a caller has said, whichever door it came by."""
    return CommandOrder(
        command_id=said.command_id,
        telescope_uid=said.telescope_uid,
        device_uid=said.device_uid,
        command=said.command,
        origin=said.origin,
        service=caller.service,
        actor=caller.actor,
        timeout_s=budget.of(said.timeout_s),
        max_timeout_s=None if said.max_timeout_s is None else budget.of(said.max_timeout_s),
        graph_revision=said.graph_revision,
        lease_uid=said.lease_uid,
        traceparent=traceparent,
    )
