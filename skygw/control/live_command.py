"""A command this process has sent, and what is known of it so far (docs/adr/0007-stops-overtake.md)."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from skygw.control.ledger import ENDS, Caller, CommandRecord, CommandState, Transition, may_move
from skygw.errors import Hop

if TYPE_CHECKING:
    from collections.abc import Callable

    from skygw.control.admissions import Admission
    from skygw.control.order import CommandOrder
    from skygw.nodes.outbox import Parcel
    from skygw.protocol.node_frames import PublishCommandResult

KEEP_AFTER_DEADLINE_S = 3_600.0
"""How long a command without an end stays in memory after its deadline; the ledger keeps it for good."""

REMEMBER_SAFING_S = 600.0
"""How long a repeat of safing that has ended is known as one without the ledger."""


class LiveCommand:
    """A command this process has sent, and what is known of it so far."""

    def __init__(
        self, record: CommandRecord, *, command_type: str, safing: bool, in_ledger: bool, deadline: float
    ) -> None:
        """`deadline`: on trio's clock, as everything here that is waited for."""
        self.record = record
        self.safing = safing
        self.command_type = command_type
        self.in_ledger = in_ledger
        self.began = trio.current_time()
        self.results: list[PublishCommandResult] = []
        """What the node said before the ledger knew of this command."""
        self.parcel: Parcel | None = None
        self.deadline = deadline
        self.forget_at = max(deadline, self.began) + KEEP_AFTER_DEADLINE_S
        self._changed = trio.Event()
        self.watchers: set[Callable[[], None]] = set()
        """Told of each change; they do not wait. While there are any, one without an end is not forgotten."""

    @property
    def ended(self) -> bool:
        return self.record.state in ENDS

    @property
    def may_be_forgotten(self) -> bool:
        """Whether the ledger alone may answer for it from now on."""
        is_awaited = bool(self.watchers) and not self.ended
        return self.in_ledger and not is_awaited and self.forget_at <= trio.current_time()

    def move(
        self, state: CommandState, hop: Hop, detail: str | None = None, by: Caller | None = None
    ) -> Transition | None:
        """Moves the state if the table lets it."""
        if not may_move(self.record.state, state):
            return None
        step = Transition(datetime.now(UTC), state, hop, detail, by)
        self.record.state = state
        self.record.transitions.append(step)
        if state in ENDS:
            self.record.ended_at = step.at
            # A repeat of safing does not wait for the ledger: memory has to know that it is one.
            self.forget_at = trio.current_time() + (REMEMBER_SAFING_S if self.safing else 0.0)
        self.changed()
        return step

    def changed(self) -> None:
        """Whoever waits or watches is told that more is known."""
        self._changed.set()
        self._changed = trio.Event()
        for watcher in list(self.watchers):
            watcher()

    async def settled(self) -> None:
        """Waits for an end, or for `unknown`: nothing more may ever come. Cancelling changes nothing."""
        while not self.ended and self.record.state is not CommandState.UNKNOWN:
            await self._changed.wait()


def overtakes(stop: "CommandOrder", other: "LiveCommand | Admission") -> bool:
    """Whether this stop would be undone by `other`, written after it: `mount.stop` by `mount.point`.

    Where one is for a telescope and the other for a device nobody here knows whether they meet: then they do.
    """
    if isinstance(other, LiveCommand):
        if other.safing or other.ended:
            return False
        telescope_uid, device_uid = other.record.telescope_uid, other.record.device_uid
    else:
        telescope_uid, device_uid = other.order.telescope_uid, other.order.device_uid
    if stop.device_uid is not None and device_uid is not None:
        meets = stop.device_uid == device_uid
    elif stop.telescope_uid is not None and telescope_uid is not None:
        meets = stop.telescope_uid == telescope_uid
    else:
        meets = True
    family = stop.command_type.rpartition(".")[0]
    return meets and (stop.command_type == "telescope.safe_shutdown" or other.command_type.startswith(f"{family}."))
