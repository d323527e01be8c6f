"""A command this process has sent, and what is known of it so far (docs/adr/0007-stops-overtake.md)."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from skygw.control.ledger import ENDS, CommandRecord, CommandState, Transition, may_move
from skygw.errors import Hop
from skygw.ids import DeviceUid, TelescopeUid

if TYPE_CHECKING:
    from skygw.nodes.outbox import Parcel
    from skygw.protocol.node_frames import PublishCommandResult

KEEP_AFTER_DEADLINE_S = 3_600.0
"""How long a command without an end stays in memory after its deadline; the ledger keeps it for good."""

REMEMBER_SAFING_S = 600.0
"""How long a repeat of safing that has ended is known as one without the ledger."""


class LiveCommand:
    """A command this process has sent, and what is known of it so far."""

    def __init__(self, record: CommandRecord, *, safing: bool, command_type: str = "") -> None:
        self.record = record
        self.safing = safing
        self.command_type = command_type
        self.in_ledger = not safing
        self.results: list[PublishCommandResult] = []
        """What the node said before the ledger knew of this command."""
        self.parcel: Parcel | None = None
        left_s = max(0.0, (record.deadline_at - datetime.now(UTC)).total_seconds())
        self.forget_at = trio.current_time() + left_s + KEEP_AFTER_DEADLINE_S
        self._changed = trio.Event()

    @property
    def ended(self) -> bool:
        return self.record.state in ENDS

    @property
    def may_be_forgotten(self) -> bool:
        """Whether the ledger alone may answer for it from now on."""
        return self.in_ledger and self.forget_at <= trio.current_time()

    def move(self, state: CommandState, hop: Hop, detail: str | None = None) -> Transition | None:
        """Moves the state if the table lets it."""
        if not may_move(self.record.state, state):
            return None
        step = Transition(datetime.now(UTC), state, hop, detail)
        self.record.state = state
        self.record.transitions.append(step)
        if state in ENDS:
            self.record.ended_at = step.at
            # A repeat of safing does not wait for the ledger: memory has to know that it is one.
            self.forget_at = trio.current_time() + (REMEMBER_SAFING_S if self.safing else 0.0)
        self._changed.set()
        self._changed = trio.Event()
        return step

    async def settled(self) -> None:
        """Waits for an end, or for `unknown`: nothing more may ever come. Cancelling changes nothing."""
        while not self.ended and self.record.state is not CommandState.UNKNOWN:
            await self._changed.wait()


def overtakes(
    other: LiveCommand, command_type: str, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None
) -> bool:
    """Whether a stop of this type and target would be undone by `other`, written after it: `mount.stop`, `mount.point`.

    Where one is for a telescope and the other for a device nobody here knows whether they meet: then they do.
    """
    if other.safing or other.ended:
        return False
    record = other.record
    if device_uid is not None and record.device_uid is not None:
        meets = device_uid == record.device_uid
    elif telescope_uid is not None and record.telescope_uid is not None:
        meets = telescope_uid == record.telescope_uid
    else:
        meets = True
    family = command_type.rpartition(".")[0]
    return meets and (command_type == "telescope.safe_shutdown" or other.command_type.startswith(f"{family}."))
