"""The streams of the straightforward FastAPI gateway: each subscriber is told of what its filter lets through, in a
model and a text of its own, one after the other.

Written as its documentation and that of asyncpg suggest. What ours does beyond it is missing: a slow subscriber slows
everybody, positions are a sequence's and not in commit order, what is committed while a subscriber resumes may come
twice, and silence is not noticed.
"""

import json
from datetime import UTC, datetime
from typing import Annotated, Any, Literal
from uuid import UUID

import asyncpg
from fastapi import WebSocket
from pydantic import AwareDatetime, BaseModel, Field, JsonValue

CREATE_LOG = """
    CREATE TABLE IF NOT EXISTS benchmark_log (
        position bigserial PRIMARY KEY,
        install_id uuid NOT NULL,
        outbox_uid uuid NOT NULL,
        seq bigint NOT NULL,
        observed_at timestamptz NOT NULL,
        received_at timestamptz NOT NULL DEFAULT now(),
        data jsonb NOT NULL,
        UNIQUE (outbox_uid, seq)
    )
"""
APPEND = """
    INSERT INTO benchmark_log (install_id, outbox_uid, seq, observed_at, data) VALUES ($1, $2, $3, $4, $5)
    ON CONFLICT DO NOTHING RETURNING position, received_at
"""
HEAD = "SELECT coalesce(max(position), 0) FROM benchmark_log"
MISSED = "SELECT * FROM benchmark_log WHERE position > $1 ORDER BY position"


class PublishSnapshot(BaseModel):
    kind: Literal["publish_snapshot"]
    stream: Literal["device_snapshot", "telescope_snapshot", "instrument_snapshot"]
    data: dict[str, JsonValue]
    observed_at: AwareDatetime
    max_silence_s: float | None = None
    live_seq: Annotated[int, Field(ge=0)]


class PublishLog(BaseModel):
    kind: Literal["publish_log"]
    seq: Annotated[int, Field(ge=1)]
    data: dict[str, JsonValue]
    observed_at: AwareDatetime


class StreamFilter(BaseModel):
    device_uid: list[str] | None = None
    telescope_uid: list[str] | None = None
    device_type: list[str] | None = None

    def fits(self, data: dict[str, Any]) -> bool:
        return (
            (self.device_uid is None or data["uid"] in self.device_uid)
            and (self.telescope_uid is None or data["telescope_uid"] in self.telescope_uid)
            and (self.device_type is None or data["device_type"] in self.device_type)
        )


class StreamOptions(BaseModel):
    include_existing: bool = True
    after: int | None = None


class SubscribeStream(BaseModel):
    kind: Literal["subscribe_stream"]
    subscription_id: str
    stream: Literal["device_snapshot", "telescope_log"]
    filter: StreamFilter = StreamFilter()
    options: StreamOptions = StreamOptions()


class Ack(BaseModel):
    kind: Literal["ack"] = "ack"
    subscription_id: str


class LogAck(BaseModel):
    kind: Literal["ack"] = "ack"
    seq: int


class EventLive(BaseModel):
    kind: Literal["event_live"] = "event_live"
    subscription_id: str
    position: str
    prev: str | None


class StreamEvent(BaseModel):
    kind: Literal["event_device_snapshot", "event_telescope_log"]
    subscription_id: str
    position: str
    prev: str | None
    install_id: UUID
    observed_at: datetime
    received_at: datetime
    data: dict[str, JsonValue]


class Snapshot:
    """The latest of one device."""

    def __init__(self, install_id: UUID, position: int, frame: PublishSnapshot) -> None:
        self.install_id = install_id
        self.position = position
        self.frame = frame
        self.received_at = datetime.now(UTC)


class Subscription:
    """What one subscriber asked for."""

    def __init__(self, socket: WebSocket, asked: SubscribeStream) -> None:
        self.socket = socket
        self.asked = asked
        self.prev: str | None = None

    async def tell_snapshot(self, snapshot: Snapshot) -> None:
        frame = snapshot.frame
        if self.asked.filter.fits(frame.data):
            observed = frame.observed_at, snapshot.received_at
            await self._tell("event_device_snapshot", snapshot.position, snapshot.install_id, *observed, frame.data)

    async def tell_log(
        self, position: int, install_id: UUID, observed_at: datetime, received_at: datetime, data: dict[str, Any]
    ) -> None:
        await self._tell("event_telescope_log", position, install_id, observed_at, received_at, data)

    async def _tell(
        self,
        kind: Literal["event_device_snapshot", "event_telescope_log"],
        position: int,
        install_id: UUID,
        observed_at: datetime,
        received_at: datetime,
        data: dict[str, Any],
    ) -> None:
        event = StreamEvent(
            kind=kind,
            subscription_id=self.asked.subscription_id,
            position=str(position),
            prev=self.prev,
            install_id=install_id,
            observed_at=observed_at,
            received_at=received_at,
            data=data,
        )
        self.prev = event.position
        await self.socket.send_text(event.model_dump_json())

    async def live(self, position: int) -> None:
        live = EventLive(subscription_id=self.asked.subscription_id, position=str(position), prev=self.prev)
        await self.socket.send_text(live.model_dump_json())


class Streams:
    """Who listens to what, the latest of every device, and the log."""

    def __init__(self) -> None:
        self.log: asyncpg.Pool | None = None
        self.subscriptions: dict[str, list[Subscription]] = {"device_snapshot": [], "telescope_log": []}
        self.latest: dict[str, Snapshot] = {}
        self.position = 0

    async def open_log(self, database_url: str) -> None:
        self.log = await asyncpg.create_pool(database_url)
        await self.log.execute(CREATE_LOG)

    async def publish(self, install_id: UUID, frame: PublishSnapshot) -> None:
        self.position += 1
        snapshot = self.latest[str(frame.data["uid"])] = Snapshot(install_id, self.position, frame)
        for subscription in list(self.subscriptions["device_snapshot"]):
            await subscription.tell_snapshot(snapshot)

    async def report(self, install_id: UUID, outbox_uid: UUID, frame: PublishLog) -> None:
        """Returns when the line is committed."""
        assert self.log is not None
        row = await self.log.fetchrow(
            APPEND, install_id, outbox_uid, frame.seq, frame.observed_at, json.dumps(frame.data)
        )
        if row is not None:
            for subscription in list(self.subscriptions["telescope_log"]):
                await subscription.tell_log(
                    row["position"], install_id, frame.observed_at, row["received_at"], frame.data
                )

    async def subscribe(self, socket: WebSocket, asked: SubscribeStream) -> None:
        """Existing first, then `event_live`, then changes."""
        subscription = Subscription(socket, asked)
        await socket.send_text(Ack(subscription_id=asked.subscription_id).model_dump_json())
        self.subscriptions[asked.stream].append(subscription)
        if asked.stream == "device_snapshot":
            if asked.options.include_existing:
                for snapshot in list(self.latest.values()):
                    await subscription.tell_snapshot(snapshot)
            await subscription.live(self.position)
            return
        assert self.log is not None
        position = await self.log.fetchval(HEAD)
        if asked.options.after is not None:
            for row in await self.log.fetch(MISSED, asked.options.after):
                about = row["install_id"], row["observed_at"], row["received_at"]
                await subscription.tell_log(row["position"], *about, json.loads(row["data"]))
        await subscription.live(position)

    def leave(self, socket: WebSocket) -> None:
        for subscriptions in self.subscriptions.values():
            subscriptions[:] = [one for one in subscriptions if one.socket is not socket]
