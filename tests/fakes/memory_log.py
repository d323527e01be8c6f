"""An event log in memory, for everything that reads one."""

from collections.abc import Sequence
from datetime import UTC, datetime
from uuid import UUID

import trio

from skygw.errors import RoutingUnavailable
from skygw.ids import InstallId
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.telemetry.audience import Want
from skygw.telemetry.log import PAGE, PAGE_BYTES, EventLog, LogEvent, LogKind


class MemoryLog(EventLog):
    """`append` commits at once; `away` makes it a database that does not answer."""

    def __init__(self) -> None:
        self.events: list[LogEvent] = []
        self.dropped_through = 0
        self.away = False

    def append(
        self,
        stream: StreamName | None,
        data: str = "{}",
        *,
        kind: LogKind = LogKind.EVENT,
        install_id: InstallId | None = None,
        observatory_uid: UUID | None = None,
        telescope_uid: UUID | None = None,
        device_uid: UUID | None = None,
        missing: int | None = None,
    ) -> LogEvent:
        event = LogEvent(
            position=len(self.events) + 1,
            kind=kind,
            stream=stream,
            install_id=install_id,
            observatory_uid=observatory_uid,
            telescope_uid=telescope_uid,
            device_uid=device_uid,
            observed_at=None,
            received_at=datetime.now(UTC),
            data=data,
            missing=missing,
        )
        self.events.append(event)
        return event

    async def _answer(self) -> None:
        await trio.lowlevel.checkpoint()
        if self.away:
            raise RoutingUnavailable("the database does not answer", retry_after_s=1.0)

    async def head(self) -> int:
        await self._answer()
        return len(self.events)

    async def floor(self) -> int:
        await self._answer()
        return self.dropped_through

    async def tail(self, after: int, *, limit: int = PAGE, max_bytes: int = PAGE_BYTES) -> Sequence[LogEvent]:
        await self._answer()
        return _bounded(self.events[after:], limit, max_bytes)

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
        want = Want(wanted)
        fitting = [
            event
            for event in self.events[after:upto]
            if event.position > self.dropped_through
            and (
                (event.kind is LogKind.EVENT and event.stream is stream and want.fits(event))
                or (event.kind is LogKind.GAP and event.stream in (None, stream) and want.might_have_fitted(event))
            )
        ]
        return _bounded(fitting, limit, max_bytes)


def _bounded(events: Sequence[LogEvent], limit: int, max_bytes: int) -> list[LogEvent]:
    found: list[LogEvent] = []
    size = 0
    for event in events[:limit]:
        size += len(event.data)
        if found and size > max_bytes:
            break
        found.append(event)
    return found
