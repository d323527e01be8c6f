"""One retained value: the latest of one resource in one stream, and who is told when it changes."""

from datetime import UTC, datetime
from typing import TYPE_CHECKING, Protocol
from uuid import UUID

import trio

from skygw.ids import InstallId
from skygw.protocol.streams import StaleReason, StreamName
from skygw.resources import Resource

if TYPE_CHECKING:
    from collections.abc import Collection


class Value:
    """The latest of one resource in one stream; the same object for as long as the resource is known.

    `heard_at` is on trio's clock, `received_at` on this host's, `observed_at` on the node's. `version` grows with each
    change a subscriber is told of; `data_version` is the one that brought this data.
    """

    __slots__ = (
        "data",
        "data_version",
        "generation",
        "heard_at",
        "is_gone",
        "listeners",
        "looked_at_by",
        "max_silence_s",
        "observed_at",
        "order",
        "received_at",
        "resource",
        "stale",
        "stream",
        "tails",
        "version",
    )

    def __init__(self, stream: StreamName, resource: Resource) -> None:
        self.stream = stream
        self.resource = resource
        self.data = ""
        self.observed_at = self.received_at = datetime.now(UTC)
        self.heard_at = trio.current_time()
        self.max_silence_s: float | None = None
        self.order: tuple[int, int] = (-1, -1)
        self.version = self.data_version = 0
        self.stale: StaleReason | None = None
        self.is_gone = False
        """It is held no more: its resource is another installation's, or its installation was silent for very long."""
        self.looked_at_by: float | None = None
        """When freshness looks at it next, on trio's clock; nobody does while it is null."""
        self.generation = -1
        self.listeners: Collection[Listener] = ()
        """Whom it is for, as of that generation of the stream's audience."""
        self.tails: dict[object, str] = {}
        """How it is told, by spelling; made when first told and thrown away when it changes."""

    @property
    def uid(self) -> UUID:
        return self.resource.uid

    @property
    def install_id(self) -> InstallId:
        return self.resource.install_id

    @property
    def observatory_uid(self) -> UUID:
        return self.resource.observatory_uid

    @property
    def telescope_uid(self) -> UUID | None:
        return self.resource.telescope_uid

    @property
    def device_uid(self) -> UUID | None:
        return self.resource.device_uid

    @property
    def device_type(self) -> str | None:
        return self.resource.device_type

    @property
    def parts(self) -> tuple[UUID, ...]:
        return self.resource.parts


class Listener(Protocol):
    """Is told that a value is another than before. Never waits; what it is told, it reads from the value later."""

    def changed(self, value: Value) -> None: ...

    def unchanged(self, value: Value) -> None:
        """The same bytes were said again."""
        ...


def utc(moment: datetime) -> str:
    """RFC 3339 with `Z`."""
    in_utc = moment if moment.tzinfo is UTC else moment.astimezone(UTC)
    return in_utc.isoformat()[:-6] + "Z"
