"""The log of events as subscribers need it: rows in commit order, and the port to where they are kept."""

from collections.abc import Sequence
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple, Protocol
from uuid import UUID

from skygw.ids import InstallId
from skygw.protocol.streams import StreamFilter, StreamName

PAGE = 500
"""Rows read at once: 500 × about 1 KiB. The largest row is 64 KiB, so that a page is bounded by bytes too."""
PAGE_BYTES = 2 * 1024 * 1024


class LogKind(StrEnum):
    EVENT = "event"
    GAP = "gap"
    """Its node says that something is missing here, or the hub could never take it: told to the subscribers of every
    stream the lost might have been in. Without an installation the log itself has lost something: told to everybody."""


class LogEvent(NamedTuple):
    """One row. `data` is text as it came; `missing` of a gap is how many there are, where that is known.

    `stream` is null for a gap in all of a node's streams. `nacked` is why the hub never took what was there, if that is
    what the gap is. `observed_at` is the node's clock, `received_at` the
    database's.
    """

    position: int
    kind: LogKind
    stream: StreamName | None
    install_id: InstallId | None
    observatory_uid: UUID | None
    telescope_uid: UUID | None
    device_uid: UUID | None
    observed_at: datetime | None
    received_at: datetime
    data: str
    missing: int | None = None
    nacked: str | None = None

    @property
    def device_type(self) -> None:
        """Events are about devices by uid alone."""
        return None

    @property
    def parts(self) -> tuple[UUID, ...]:
        return ()


class EventLog(Protocol):
    """Where events are kept. Everything raises `RoutingUnavailable` when it cannot be asked."""

    async def head(self) -> int:
        """The position of the last committed event, 0 before the first."""
        ...

    async def lift(self, position: int) -> None:
        """Lets the next event have a position above this one, unless it has, and appends a gap of nobody's at it: what
        a log had given before it was restored from a backup is not given again, and something of it is missing.
        """
        ...

    async def floor(self) -> int:
        """Everything up to this position is no longer kept (0: all is)."""
        ...

    async def tail(self, after: int, *, limit: int = PAGE, max_bytes: int = PAGE_BYTES) -> Sequence[LogEvent]:
        """The next committed events of all streams, in order, at most `limit` and about `max_bytes` (at least one)."""
        ...

    async def page(
        self,
        stream: StreamName,
        after: int,
        *,
        upto: int,
        wanted: StreamFilter,
        limit: int = PAGE,
        max_bytes: int = PAGE_BYTES,
    ) -> Sequence[LogEvent]:
        """The next events of one stream that fit the filter, and the gaps of the nodes it speaks of, `after` <
        position ≤ `upto`, in order, at most `limit` and about `max_bytes` (at least one). Empty: there are no more.
        The filter's `device_type` is not looked at.
        """
        ...
