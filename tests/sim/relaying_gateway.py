"""A scripted gateway that hands the weather of one installation to another: enough of a hub for a roof to depend on."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, suppress
from typing import Any
from uuid import UUID

import trio
from trio_websocket import ConnectionClosed

from skygw.protocol.chunks import Chunk
from skygw.protocol.gateway_frames import Ack, EventDeviceSnapshot
from skygw.protocol.node_frames import Durable, NodeFrame, PublishEvent, PublishSnapshot, SnapshotStream
from skygw.protocol.streams import EventLive, StaleReason, SubscribeStream
from tests.fakes.gateway import FakeGateway, FakeSession, Hangup, fake_gateway


class RelayingGateway:
    """Serves every session until `stop`; what was published is kept as a gateway keeps it, by when it came."""

    def __init__(self, fake: FakeGateway) -> None:
        self.url = fake.url
        self.snapshots: dict[tuple[SnapshotStream, str], list[dict[str, Any]]] = {}
        self.events: list[dict[str, Any]] = []
        self._fake = fake
        self._sessions: dict[UUID, FakeSession] = {}
        self._wanted: dict[UUID, SubscribeStream] = {}
        self._retained: dict[UUID, tuple[PublishSnapshot, float]] = {}
        self._acked: dict[UUID, int] = {}
        self._runs = trio.Event()
        self._restarted_at = trio.current_time()

    async def run(self) -> None:
        async with trio.open_nursery() as nursery:
            async for session in self._fake.sessions():
                nursery.start_soon(self._serve, session)

    def start(self) -> None:
        self._restarted_at = trio.current_time()
        self._runs.set()

    async def stop(self) -> None:
        """Every socket ends, and new ones are not welcomed until `start`."""
        self._runs = trio.Event()
        for session in self._sessions.values():
            await session.close(1012)

    async def _serve(self, session: FakeSession) -> None:
        install_id = session.hello.install_id
        await self._runs.wait()
        try:
            await session.welcome(acked_seq=self._acked.get(session.hello.outbox_uid, 0))
            self._sessions[install_id] = session
            self._wanted.pop(install_id, None)
            while True:
                await self._take(session, await session.next())
        except (Hangup, ConnectionClosed):
            session.ended.set()

    async def _take(self, session: FakeSession, frame: NodeFrame | Chunk) -> None:
        if isinstance(frame, SubscribeStream):
            self._wanted[session.hello.install_id] = frame
            for uid in self._retained:
                await self._tell(session, frame, uid)
            await session.say(EventLive(subscription_id=frame.subscription_id, position="s1"))
        elif isinstance(frame, PublishSnapshot):
            value = frame.data.value
            self.snapshots.setdefault((frame.stream, value["uid"]), []).append(value)
            if frame.stream is SnapshotStream.DEVICE_SNAPSHOT:
                await self._relay(UUID(value["uid"]), frame)
        elif isinstance(frame, Durable):
            if isinstance(frame, PublishEvent):
                self.events.append(frame.data.value)
            self._acked[session.hello.outbox_uid] = frame.seq
            await session.say(Ack(seq=frame.seq, outbox_uid=session.hello.outbox_uid))

    async def _relay(self, uid: UUID, frame: PublishSnapshot) -> None:
        self._retained[uid] = (frame, trio.current_time())
        for install_id, wanted in list(self._wanted.items()):
            with suppress(ConnectionClosed):
                await self._tell(self._sessions[install_id], wanted, uid)

    async def _tell(self, session: FakeSession, wanted: SubscribeStream, uid: UUID) -> None:
        published, came_at = self._retained[uid]
        if uid not in (wanted.asked_filter().device_uid or ()):
            return
        await session.say(
            EventDeviceSnapshot(
                subscription_id=wanted.subscription_id,
                uid=uid,
                data=published.data,
                observed_at=published.observed_at,
                age_ms=int((trio.current_time() - came_at) * 1000),
                t_ms=session.t_ms(),
                stale=StaleReason.GATEWAY_RESTARTED if came_at < self._restarted_at else None,
            )
        )


@asynccontextmanager
async def relaying_gateway() -> AsyncIterator[RelayingGateway]:
    """On a free port until the block is left; it runs."""
    async with fake_gateway() as fake, trio.open_nursery() as nursery:
        gateway = RelayingGateway(fake)
        nursery.start_soon(gateway.run)
        gateway.start()
        yield gateway
        nursery.cancel_scope.cancel()
