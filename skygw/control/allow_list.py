"""Which telescopes a service may act on, where the operator says so: commands, leases and direct requests alike.

Safing is never asked (contract §0.1), and neither is who only reads what the hub knows.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from skygw.control.order import CommandOrder
from skygw.errors import Forbidden
from skygw.ids import InstallId
from skygw.nodes.ports import Binding
from skygw.protocol.node_frames import NodeType
from skygw.resources import ResourceKind

SETTING = "SKYGW_SERVICE_TELESCOPES"


@dataclass(frozen=True, slots=True)
class Surroundings:
    """Where something stands, and the telescope it belongs to; of what telescopes share all of that observatory."""

    observatory_uid: UUID
    telescopes: frozenset[UUID]


class Surveyor(Protocol):
    """The hub's records of what stands where. Raises `RoutingUnavailable` when they cannot be asked."""

    async def around(self, kind: ResourceKind, uid: UUID) -> Surroundings | None:
        """Of a telescope, a device or an installation; nothing for what is not in the records."""
        ...


class AllowList:
    """A guard of commands, asked at the other doors too. Who is not named in it may act on everything."""

    def __init__(self, allowed: Mapping[str, Collection[UUID]], surveyor: Surveyor) -> None:
        """`allowed`: by service, the uids of telescopes, or of observatories for all that is there."""
        self._allowed = {service: frozenset(uids) for service, uids in allowed.items()}
        self._surveyor = surveyor

    def names(self, service: str) -> bool:
        """Whether there is something to ask about this service."""
        return service in self._allowed

    async def admit(self, order: CommandOrder, install_id: InstallId) -> None:  # noqa: ARG002 - whoever runs it
        """Raises `Forbidden`, `RoutingUnavailable`."""
        if order.device_uid is not None:
            await self.require(order.service, ResourceKind.DEVICE, order.device_uid)
        elif order.telescope_uid is not None:
            await self.require(order.service, ResourceKind.TELESCOPE, order.telescope_uid)

    async def require(self, service: str, kind: ResourceKind, uid: UUID) -> None:
        """Raises `Forbidden` if the service may not act on this, `RoutingUnavailable`. What is not in the records is
        for others to refuse.
        """
        if service in self._allowed:
            around = await self._surveyor.around(kind, uid)
            if around is not None:
                self._check(service, around)

    async def require_installation(self, service: str, install_id: InstallId, binding: Binding | None) -> None:
        """As `require`. With the `binding` of a telescope's installation the records are not asked."""
        if binding is not None and binding.node_type is NodeType.TELESCOPE:
            if service in self._allowed:
                self._check(service, Surroundings(binding.observatory_uid, frozenset(binding.telescopes)))
        else:
            await self.require(service, ResourceKind.INSTALLATION, install_id)

    def _check(self, service: str, around: Surroundings) -> None:
        allowed = self._allowed[service]
        if around.observatory_uid in allowed or not allowed.isdisjoint(around.telescopes):
            return
        details = {"service": service, "observatoryUid": str(around.observatory_uid)}
        what = f"what the telescopes of the observatory {around.observatory_uid} share"
        if len(around.telescopes) == 1:
            (telescope_uid,) = around.telescopes
            what = f"the telescope {telescope_uid}"
            details["telescopeUid"] = str(telescope_uid)
        raise Forbidden(f"The service {service} may not act on {what}: {SETTING} does not allow it.", details=details)
