"""`EventLog` in memory, for who reads the log; one suite holds it to what the one in PostgreSQL does."""

from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any, NamedTuple
from uuid import UUID

import trio

from skygw.errors import RoutingUnavailable
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.telemetry.log import PAGE, PAGE_BYTES, LogEvent, LogKind


class Place(NamedTuple):
    """Where a device is by the hub's records; without a telescope it is shared."""

    observatory_uid: UUID | None
    telescope_uid: UUID | None


def an_event(stream: StreamName | None, data: str = "{}", **columns: Any) -> LogEvent:
    """One to be appended, which gives it its position. Without a stream it is a gap."""
    kind = LogKind.GAP if stream is None else LogKind.EVENT
    nothing = LogEvent(0, kind, stream, None, None, None, None, None, datetime.now(UTC), data)
    return nothing._replace(**columns)


class MemoryLog:
    """Rows in order; `devices` are the hub's records of where each is."""

    def __init__(self) -> None:
        self.rows: list[LogEvent] = []
        self.dropped_through = 0
        self.last = 0
        self.devices: dict[UUID, Place] = {}
        self.away = False
        """A database that does not answer."""

    def append(self, *events: LogEvent) -> None:
        """One commit: each gets the next position."""
        for event in events:
            self.last += 1
            self.rows.append(event._replace(position=self.last))

    def drop(self, through: int) -> None:
        """What retention does."""
        self.rows = [row for row in self.rows if row.position > through]
        self.dropped_through = max(self.dropped_through, through)

    def go_back(self, to: int) -> None:
        """What restoring a backup does."""
        self.rows = [row for row in self.rows if row.position <= to]
        self.last = to

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise RoutingUnavailable("the database does not answer", retry_after_s=1.0)

    async def head(self) -> int:
        await self._answer()
        return self.last

    async def lift(self, position: int) -> None:
        await self._answer()
        if self.last < position:
            self.last = position
            self.rows.append(an_event(None)._replace(position=position))

    async def floor(self) -> int:
        await self._answer()
        return self.dropped_through

    async def tail(self, after: int, *, limit: int = PAGE, max_bytes: int = PAGE_BYTES) -> Sequence[LogEvent]:
        await self._answer()
        return _within([row for row in self.rows if row.position > after], limit, max_bytes)

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
        await self._answer()
        found = [
            row
            for row in self.rows
            if after < row.position <= upto and (row.stream is stream or row.stream is None) and self._fits(row, wanted)
        ]
        return _within(found, limit, max_bytes)

    def _fits(self, row: LogEvent, wanted: StreamFilter) -> bool:
        if row.kind is LogKind.GAP and row.install_id is None:
            return True
        return (
            (wanted.telescope_uid is None or row.telescope_uid in wanted.telescope_uid)
            and (wanted.observatory_uid is None or row.observatory_uid in wanted.observatory_uid)
            and (wanted.install_id is None or row.install_id in wanted.install_id)
            and self._device_fits(row, wanted)
        )

    def _device_fits(self, row: LogEvent, wanted: StreamFilter) -> bool:
        if wanted.device_uid is None:
            return True
        if row.device_uid is not None:
            return row.device_uid in wanted.device_uid
        asked = [self.devices[uid] for uid in wanted.device_uid if uid in self.devices]
        return row.kind is LogKind.GAP and Place(row.observatory_uid, row.telescope_uid) in asked


def _within(rows: Sequence[LogEvent], limit: int, max_bytes: int) -> list[LogEvent]:
    taken: list[LogEvent] = []
    size = 0
    for row in rows[:limit]:
        if size >= max_bytes and taken:
            break
        taken.append(row)
        size += len(row.data.encode())
    return taken
