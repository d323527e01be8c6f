"""What every node of a fleet said, as it left the node: the judge of what subscribers were told."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple
from uuid import UUID

from skygw.ids import DeviceUid, InstallId, TelescopeUid


class Line(NamedTuple):
    """A durable report. `n` is the node's running number, in `data`; `is_dropped`: its disk was full."""

    stream: str
    n: int
    device_uid: UUID | None
    is_dropped: bool


class Sent(NamedTuple):
    """A snapshot that was handed to a link."""

    stream: str
    uid: UUID
    n: int


@dataclass
class NodeJournal:
    """One node's. Numbers run over everything it says, so that one of them names one payload."""

    install_id: InstallId
    telescope_uid: TelescopeUid
    observatory_uid: UUID
    devices: dict[DeviceUid, str]
    """With their types."""
    texts: dict[int, str] = field(default_factory=dict)
    """The `data` that was sent, byte for byte, by its number."""
    lines: list[Line] = field(default_factory=list)
    links: list[list[Sent]] = field(default_factory=list)
    latest: dict[tuple[str, UUID], int] = field(default_factory=dict)
    """The newest number of each resource in each stream."""
    epochs: list[int] = field(default_factory=list)
    """Of its welcomes."""
    last_seq: int = 0
    acked_seq: int = 0
    refusals: list[str] = field(default_factory=list)
    """What the gateway said it did not take."""
    _last: int = 0

    def next(self) -> int:
        self._last += 1
        return self._last

    def expected(self, stream: str, wanted: "Wanted") -> list[int]:
        """The numbers of what a subscriber is to be told, in order."""
        return [
            line.n
            for line in self.lines
            if line.stream == stream and not line.is_dropped and wanted.fits(self, line.device_uid)
        ]

    def dropped(self) -> list[int]:
        return [line.n for line in self.lines if line.is_dropped]


@dataclass(frozen=True)
class Wanted:
    """A filter as the judge understands it: all keys must fit."""

    telescope_uid: frozenset[UUID] | None = None
    device_uid: frozenset[UUID] | None = None
    device_type: frozenset[str] | None = None
    install_id: frozenset[UUID] | None = None

    def asked(self) -> dict[str, list[str]]:
        """As it is written in a subscription."""
        return {key: sorted(map(str, values)) for key, values in vars(self).items() if values is not None}

    def fits(self, node: NodeJournal, uid: UUID | None) -> bool:
        device_type = None if uid is None else node.devices.get(DeviceUid(uid))
        return (
            (self.telescope_uid is None or node.telescope_uid in self.telescope_uid)
            and (self.device_uid is None or uid in self.device_uid)
            and (self.device_type is None or device_type in self.device_type)
            and (self.install_id is None or node.install_id in self.install_id)
        )


@dataclass
class FleetJournal:
    """All of them."""

    nodes: dict[InstallId, NodeJournal] = field(default_factory=dict)

    def __iter__(self) -> Iterator[NodeJournal]:
        return iter(self.nodes.values())

    def latest(self, stream: str, wanted: Wanted) -> dict[UUID, tuple[NodeJournal, int]]:
        """The newest of every resource that a subscriber is to hold."""
        return {
            uid: (node, n)
            for node in self
            for (of_stream, uid), n in node.latest.items()
            if of_stream == stream and wanted.fits(node, uid)
        }
