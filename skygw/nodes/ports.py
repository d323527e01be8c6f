"""What a session needs of the rooms around it, as the session sees them."""

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime
from typing import Literal, Protocol
from uuid import UUID

from skygw.ids import DeviceUid, Epoch, InstallId, InstanceUid, OutboxUid, RegistryUid, TelescopeUid
from skygw.protocol.node_frames import NodeType, PublishCommandResult, PublishSnapshot
from skygw.protocol.streams import StreamName, SubscribeStream
from skygw.resources import Resource, Unwanted

Direction = Literal["in", "out"]


@dataclass(frozen=True, slots=True)
class Binding:
    """An installation as the hub's record says, and what it controls."""

    install_id: InstallId
    name: str
    node_type: NodeType
    observatory_uid: UUID
    telescopes: frozenset[TelescopeUid]
    devices: frozenset[DeviceUid]
    resources: Mapping[UUID, Resource] = field(default_factory=dict)
    """Everything it may publish the state of, by uid: its telescopes and devices, the instruments and constraints of
    these, and its observatory."""

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
class Standing:
    """How far an installation's last session here had come: enough to admit its next one without the database."""

    claim: Claim
    instance_uid: InstanceUid
    outbox_uid: OutboxUid
    acked_seq: int


@dataclass(frozen=True, slots=True)
class Ending:
    """Why a session ended. `by_node` when the node's side closed or the connection broke."""

    code: int | None
    reason: str
    by_node: bool
    at: datetime


@dataclass(frozen=True, slots=True)
class DurableReport:
    """One durable frame to be committed. `nacked` is set when it will never be taken; the cursor passes it too, and it
    is a gap in its stream, if that is known.

    `text` is the frame as it came, for its size; `data` is what subscribers of `stream` are told, byte for byte. A gap
    has no stream: it is one in all of them. `telescope_uid` and `device_uid` are the node's own or null.
    """

    seq: int
    kind: str
    text: str
    nacked: str | None = None
    result: PublishCommandResult | None = None
    stream: StreamName | None = None
    data: str = "{}"
    observed_at: datetime | None = None
    telescope_uid: UUID | None = None
    device_uid: UUID | None = None
    missing: int | None = None
    """Of a gap: how many are missing, where the node says so."""


NOT_HELD = "The hub's database cannot hold what is in this report."
NOT_ITS = "This command is another installation's: what became of it is not this one's to say."

NOT_KNOWN = "This node's memory does not reach back to this command: that it never came cannot be known from it."


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

    async def transfer(self, install_id: InstallId, instance_uid: InstanceUid) -> None:
        """Records that the installation belongs to another machine from now on."""
        ...


class ReportStore(Protocol):
    """Where durable frames are committed. Raises `RoutingUnavailable` when it cannot be asked."""

    async def acked_seq(self, install_id: InstallId, outbox_uid: OutboxUid) -> int: ...

    async def commit(self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]) -> int:
        """Commits a contiguous run in one transaction; what is there already is passed over. Returns the cursor.
        Raises `StoreFailed` about the data if one of these cannot be held, is a result of another installation's
        command, or says that a command never came, which this memory of the node is too young to know: then none is
        committed.
        """
        ...

    async def refuses(
        self, install_id: InstallId, outbox_uid: OutboxUid, reports: Sequence[DurableReport]
    ) -> str | None:
        """Why one of these will never be taken, as a sentence for its node; `None` if all may be. Commits nothing."""
        ...


class TokenRenewer(Protocol):
    """Checks a newer token for the same installation."""

    async def renew(self, install_id: InstallId, token: str) -> float:
        """When it expires, seconds of the epoch. Raises `Unauthenticated`, `Forbidden` or `RoutingUnavailable`."""
        ...

    async def issuer_reachable(self) -> bool: ...


class SnapshotSink(Protocol):
    """Where snapshots go. Never waits."""

    def offer(self, binding: Binding, epoch: Epoch, frame: PublishSnapshot) -> Unwanted | None:
        """Takes it, or passes over one that is older than what came since, or says why it takes none like it."""
        ...


class Following(Protocol):
    """What one session follows of other installations. Only `next` waits."""

    def subscribe(self, asked: SubscribeStream) -> None:
        """Raises `Invalid` for what no node can follow, `Busy` when it follows enough."""
        ...

    def unsubscribe(self, subscription_id: str) -> bool:
        """Whether there was one."""
        ...

    async def next(self) -> list[str]:
        """The messages to write now, at least one. Cancelling loses nothing."""
        ...

    def close(self) -> None:
        """The session is over."""
        ...


class StreamSource(Protocol):
    """Where nodes are shown what others publish."""

    def follow(self, binding: Binding, *, t_ms: Callable[[], int]) -> Following:
        """`t_ms` is the session's clock, by which the node tells how long a message was on its way."""
        ...


class ResultSink(Protocol):
    """Told of every command result, first when it arrives and again when it is committed. Never waits."""

    def result_arrived(self, install_id: InstallId, result: PublishCommandResult) -> None: ...

    def result_committed(self, install_id: InstallId, result: PublishCommandResult) -> None: ...


class SessionMetrics(Protocol):
    """What sessions count. Cheap; never raises."""

    def session_started(self) -> None: ...

    def session_ended(self, code: int | None) -> None: ...

    def node_refused(self, reason: str) -> None: ...

    def frame(self, direction: Direction, kind: str) -> None: ...

    def message(self, direction: Direction, size: int) -> None: ...

    def late_reply(self) -> None: ...

    def snapshot_refused(self, reason: str) -> None: ...

    def report_nacked(self, kind: str) -> None: ...


class GraphRevisions(Protocol):
    """Who knows which revision of the hardware graph is current. Never waits."""

    def revision_of(self, observatory_uid: UUID) -> int | None:
        """Nothing if it is not known."""
        ...


@dataclass(frozen=True, slots=True)
class SessionPorts:
    """The rooms a session talks to."""

    reports: ReportStore
    tokens: TokenRenewer
    snapshots: SnapshotSink
    streams: StreamSource
    results: ResultSink
    graph: GraphRevisions
    metrics: SessionMetrics


class InstallationRecord(Protocol):
    """The hub's record of an installation, as far as the gateway needs it. `id` is the hub's integer key."""

    @property
    def id(self) -> int: ...

    @property
    def binding(self) -> Binding: ...

    @property
    def telescope_uid(self) -> TelescopeUid | None: ...

    @property
    def refusal(self) -> str | None:
        """Why it may not connect whatever its token says, as a sentence."""
        ...


class InstallationDirectory(Protocol):
    """The hub's records of installations. Raises `RoutingUnavailable` when they cannot be asked."""

    async def find(self, install_id: InstallId) -> InstallationRecord | None: ...

    async def find_by_any(self, id_or_uid: str) -> InstallationRecord | None:
        """By integer key or uid; `None` for anything else."""
        ...

    async def list_page(self, *, page: int, size: int) -> tuple[Sequence[InstallationRecord], int]:
        """Ordered by key, without deleted ones, `page` from 1; and how many there are in all."""
        ...

    async def refused_among(self, install_ids: Collection[InstallId]) -> Collection[InstallId]:
        """Those that may not be connected any more."""
        ...
