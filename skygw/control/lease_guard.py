"""Whether a command may go by who has control: by whose lease, and under which fence."""

from dataclasses import dataclass
from uuid import UUID

from skygw.control.lease import Holder, LeaseLedger, digest
from skygw.control.lease_rules import fence_for
from skygw.control.order import CommandOrder
from skygw.errors import NotFound
from skygw.ids import InstallId


@dataclass(frozen=True, slots=True)
class Fence:
    """What a command goes under: the node refuses it once it has heard of a higher one for the same resource."""

    uid: UUID
    fence: int


class LeaseGuard:
    """Every command but safing needs the lease of what it moves."""

    def __init__(self, ledger: LeaseLedger) -> None:
        self._ledger = ledger

    async def admit(self, order: CommandOrder, install_id: InstallId) -> Fence:  # noqa: ARG002 - whoever runs it
        """Not for safing, which is never asked. What is true here may be over before the node has the command: then
        its fence is too low there. Raises `LeaseRequired`, `LeaseHeld`, `LeaseExpired`, `StaleFence`, `NotFound`,
        `RoutingUnavailable`.
        """
        standing = await self._ledger.standing(
            telescope_uid=order.telescope_uid,
            device_uid=order.device_uid,
            moves_enclosure=order.moves_enclosure,
            secret=None if order.lease_uid is None else digest(order.lease_uid),
        )
        if standing is None:
            raise NotFound("The hub's records have no such telescope or device.")
        actor = order.actor or {}
        caller = Holder(order.service, actor.get("uid"), actor.get("kind"))
        return Fence(*fence_for(caller, standing, shows_lease=order.lease_uid is not None))
