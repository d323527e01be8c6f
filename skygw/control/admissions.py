"""Orders on their way into the ledger: a stop or a cancel that comes meanwhile reaches them too (docs/adr/0007)."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

import trio

from skygw.control.ledger import Caller, CancelRequest
from skygw.control.order import CommandOrder
from skygw.ids import CommandId


@dataclass(frozen=True, slots=True)
class Revocation:
    """Why a command is not written to its node any more, and who saw to that: by a stop, or by this cancel."""

    why: str
    by: Caller
    cancel: CancelRequest | None = None


class Admission:
    """One order that is being looked up and admitted. `deadline`: on trio's clock."""

    def __init__(self, order: CommandOrder, earlier: "list[Admission]") -> None:
        self.order = order
        self.command_type = order.command_type
        self.deadline = trio.current_time() + order.timeout_s
        self.revoked: Revocation | None = None
        self.cancels: list[CancelRequest] = []
        """Those that met a new command here; of one that is known already they are kept elsewhere."""
        self.looked_up = trio.Event()
        """Set when it is known whether the ledger has it, or when that is not going to be known."""
        self.is_new = False
        self._earlier = earlier
        self.over = trio.Event()

    @property
    def holds_devices(self) -> bool:
        """Once it is let in, until it is over: then the command does."""
        return self.revoked is None and not self.over.is_set()

    def revoke(self, revocation: Revocation) -> None:
        """It will not be written to the node. The first reason wins."""
        if revocation.cancel is not None:
            self.cancels.append(revocation.cancel)
        if self.revoked is None:
            self.revoked = revocation

    def found(self, *, is_new: bool) -> None:
        self.is_new = is_new
        self.looked_up.set()

    async def turn(self) -> None:
        """Waits until those of the same id that came before are over: what they store is not taken for remains."""
        while self._earlier:
            await self._earlier.pop().over.wait()

    def end(self) -> None:
        self.looked_up.set()
        self.over.set()


class Admissions:
    """All orders that are being admitted, in the order they came."""

    def __init__(self) -> None:
        self._under_way: dict[Admission, None] = {}

    def __iter__(self) -> Iterator[Admission]:
        return iter(list(self._under_way))

    def __len__(self) -> int:
        return len(self._under_way)

    def command_ids(self) -> set[CommandId]:
        return {admission.order.command_id for admission in self._under_way}

    def of(self, command_id: CommandId) -> list[Admission]:
        return [admission for admission in self._under_way if admission.order.command_id == command_id]

    def expect(self, order: CommandOrder) -> Admission:
        """Lists an order that is about to `enter`, and must. Raises `Invalid` for one without a type."""
        admission = Admission(order, self.of(order.command_id))
        self._under_way[admission] = None
        return admission

    @contextmanager
    def enter(self, order: CommandOrder, expected: Admission | None = None) -> Iterator[Admission]:
        """Lists the order while it is admitted. Raises `Invalid` for one without a type."""
        admission = self.expect(order) if expected is None else expected
        try:
            yield admission
        finally:
            del self._under_way[admission]
            admission.end()
