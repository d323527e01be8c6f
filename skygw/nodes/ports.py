"""What a session needs of the rooms around it, as the session sees them."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from typing import Protocol
from uuid import UUID

from skygw.ids import DeviceUid, Epoch, InstallId, InstanceUid, OutboxUid, RegistryUid, TelescopeUid
from skygw.protocol.node_frames import NodeType, PublishCommandResult, PublishSnapshot


@dataclass(frozen=True, slots=True)
class Binding:
    """An installation as the hub's record says, and what it controls."""

    install_id: InstallId
    name: str
    node_type: NodeType
    telescopes: frozenset[TelescopeUid]
    devices: frozenset[DeviceUid]

    @property
    def controls(self) -> frozenset[UUID]:
        """Everything a command can be for here."""
        return self.telescopes | self.devices


@dataclass(frozen=True, slots=True)
class Claim:
    """A socket's place in the order of all sockets of its installation."""

    epoch: Epoch
    registry_uid: RegistryUid


@dataclass(frozen=True, slots=True)
class DurableReport:
    """One durable frame to be committed. `nacked` is set when it will never be taken; the cursor passes it too."""

    seq: int
    kind: str
    text: str
    nacked: str | None = None
    result: PublishCommandResult | None = None


class EpochLedger(Protocol):
    """Where epochs and fences are kept. Raises `RoutingUnavailable` when it cannot be asked."""

    async def claim(
        self,
        *,
        install_id: InstallId,
        instance_uid: InstanceUid,
        last_epoch: int,
        last_fences: Mapping[UUID, int],
    ) -> Claim: ...


class ReportStore(Protocol):
    """Where durable frames are committed. Raises `RoutingUnavailable` when it cannot be asked."""

    async def acked_seq(self, install_id: InstallId, outbox_uid: OutboxUid) -> int: ...

    async def commit(self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]) -> int:
        """Commits a contiguous run in one transaction; what is there already is passed over. Returns the cursor."""
        ...


class TokenRenewer(Protocol):
    """Checks a newer token for the same installation."""

    async def renew(self, install_id: InstallId, token: str) -> float:
        """When it expires, seconds of the epoch. Raises `Unauthenticated`, `Forbidden` or `RoutingUnavailable`."""
        ...

    async def issuer_reachable(self) -> bool: ...


class SnapshotSink(Protocol):
    def offer(self, install_id: InstallId, epoch: Epoch, frame: PublishSnapshot) -> None: ...


class ResultSink(Protocol):
    """Told of every command result, first when it arrives and again when it is committed. Never waits."""

    def result_arrived(self, install_id: InstallId, result: PublishCommandResult) -> None: ...

    def result_committed(self, install_id: InstallId, result: PublishCommandResult) -> None: ...

    def session_ended(self, install_id: InstallId, epoch: Epoch) -> None: ...


class SessionMetrics(Protocol):
    def frame(self, direction: str, kind: str, size: int) -> None: ...

    def late_reply(self) -> None: ...

    def session_ended(self, code: int) -> None: ...

    def refused(self, reason: str) -> None: ...


@dataclass(frozen=True, slots=True)
class Installation:
    """The hub's record of an installation, as far as the gateway needs it."""

    id: int
    binding: Binding
    telescope_uid: TelescopeUid | None
    observatory_uid: UUID
    is_active: bool
    is_deleted: bool
    is_revoked: bool

    @property
    def refusal(self) -> str | None:
        """Why it may not connect, whatever its token says."""
        if self.is_deleted:
            return "This installation is deleted."
        if self.is_revoked:
            return "This installation's access is revoked."
        if not self.is_active:
            return "This installation is inactive."
        return None


class InstallationDirectory(Protocol):
    """The hub's records of installations. Raises `RoutingUnavailable` when they cannot be asked."""

    async def find(self, install_id: InstallId) -> Installation | None: ...

    async def find_by_key(self, key: int) -> Installation | None: ...

    async def page(self, *, page: int, size: int) -> tuple[list[Installation], int]:
        """Ordered by key, without deleted ones; and how many there are in all."""
        ...

    async def refused_among(self, install_ids: Collection[InstallId]) -> Collection[InstallId]:
        """Those that may not be connected any more."""
        ...

    async def transfer(self, install_id: InstallId, instance_uid: InstanceUid) -> None:
        """Records that the installation now belongs to another machine."""
        ...
