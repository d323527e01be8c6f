"""A command this process has sent, and what is known of it so far (docs/adr/0007-stops-overtake.md)."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING

import trio

from skygw.control.ledger import (
    ENDS,
    Caller,
    CommandRecord,
    CommandState,
    Transition,
    deadline_with,
    may_move,
)
from skygw.errors import Hop
from skygw.protocol.node_frames import CanceledHow

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
        self.service = record.service
        """Whose share it counts in, also when the ledger's record takes the place of this one."""
        self.safing = safing
        self.command_type = command_type
        self.in_ledger = in_ledger
        self.began = trio.current_time()
        self.results: list[PublishCommandResult] = []
        """What the node said before the ledger knew of this command."""
        self.is_released = False
        """Its devices may be free: the node has said that it ended, or a stop or a cancel is on its way to it."""
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
    def holds_devices(self) -> bool:
        """Whether it moves something now, as far as is known. After its deadline the node alone knows."""
        is_under_way = not self.ended and self.record.state is not CommandState.UNKNOWN
        return is_under_way and not self.is_released and trio.current_time() < self.deadline

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

    def told(self, result: "PublishCommandResult") -> None:
        """Takes what the node says beside the state; nothing of it after the end."""
        if self.ended:
            return
        record = self.record
        record.progress = result.progress if result.progress is not None else record.progress
        record.result = result.result.text if result.result is not None else record.result
        record.error = result.error.text if result.error is not None else record.error
        record.proof = result.proof.text if result.proof is not None else record.proof
        deadline_at = deadline_with(record, result.deadline_ms)
        self.deadline += (deadline_at - record.deadline_at).total_seconds()
        self.forget_at = max(self.forget_at, self.deadline + KEEP_AFTER_DEADLINE_S)
        record.deadline_at = deadline_at
        record.canceled = result.canceled or record.canceled
        self.changed()

    async def settled(self, *, or_not_cancelable: bool = False) -> None:
        """Waits for an end, or for `unknown`: nothing more may ever come. Whoever cancels need not wait any longer when
        the node says that this cannot be canceled. Cancelling changes nothing.
        """
        while not self.ended and self.record.state is not CommandState.UNKNOWN:
            if or_not_cancelable and self.record.canceled == CanceledHow.NOT_CANCELABLE:
                return
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
