"""A gateway that does what a test tells it, over a real socket: for the node client and whatever embeds it."""

import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Any, TypeVar
from uuid import UUID, uuid4

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, WebSocketRequest, serve_websocket

from skygw.ids import CallId, CommandId, Epoch, RegistryUid, SessionUid, TelescopeUid
from skygw.protocol.chunks import Chunk, unpack_chunk
from skygw.protocol.codec import BadFrame, encode, from_node
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import DirectRequest, EventCommand, LinkLossPolicy, Welcome
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MAX_BINARY_BYTES, Limits
from skygw.protocol.node_frames import CommandStatus, Durable, Hello, NodeFrame, PublishCommandResult
from skygw.websocket.frames import TEXT, frame

PATIENCE_S = 5.0
"""A test that waits longer than this for one thing has failed."""

FrameT = TypeVar("FrameT", bound=Frame)


class Hangup(Exception):
    """The node's socket ended."""


@dataclass
class FakeSession:
    """One accepted socket, after its `hello`. Times are the gateway's own, in milliseconds since the session began."""

    connection: WebSocketConnection
    hello: Hello
    token: str
    epoch: Epoch
    began: float = field(default_factory=time.monotonic)
    heard: list[NodeFrame | Chunk] = field(default_factory=list)
    ended: trio.Event = field(default_factory=trio.Event)

    def t_ms(self) -> int:
        return int((time.monotonic() - self.began) * 1000)

    async def say(self, message: Frame | str | bytes) -> None:
        await self.connection.send_message(encode(message) if isinstance(message, Frame) else message)

    async def welcome(
        self,
        *,
        acked_seq: int = 0,
        heartbeat_s: float = 10.0,
        limits: Limits | None = None,
        epoch: int | None = None,
        policy: LinkLossPolicy = LinkLossPolicy.STOP,
        followed_by: Sequence[Frame] = (),
    ) -> None:
        """What it is `followed_by` comes in the same segment."""
        if epoch is not None:
            self.epoch = Epoch(epoch)
        welcome = Welcome(
            session_uid=SessionUid(uuid4()),
            epoch=self.epoch,
            registry_uid=RegistryUid(UUID(int=1)),
            heartbeat_s=heartbeat_s,
            limits=limits or Limits(),
            server_time=datetime.now(UTC),
            acked_seq=acked_seq,
            link_loss_policy=policy,
            t_ms=self.t_ms(),
        )
        if followed_by:
            frames = b"".join(frame(TEXT, encode(one).encode()) for one in (welcome, *followed_by))
            await self.connection._stream.send_all(frames)
        else:
            await self.say(welcome)

    async def next(self) -> NodeFrame | Chunk:
        """The next thing the node says. Raises `Hangup`."""
        with trio.fail_after(PATIENCE_S):
            try:
                message = await self.connection.get_message()
            except ConnectionClosed:
                raise Hangup from None
        if isinstance(message, bytes):
            self.heard.append(unpack_chunk(message))
        else:
            for read in from_node.decode(message):
                assert not isinstance(read, BadFrame), read
                self.heard.append(read.frame)
        return self.heard[-1]

    async def hear(self, model: type[FrameT]) -> FrameT:
        """The next frame of this kind; what comes before it is kept in `heard`."""
        while True:
            frame = await self.next()
            if isinstance(frame, model):
                return frame

    async def durable(self, count: int) -> list[Durable]:
        """The next `count` durable frames."""
        found: list[Durable] = []
        while len(found) < count:
            frame = await self.next()
            if isinstance(frame, Durable):
                found.append(frame)
        return found

    async def ended_command(self, command_id: CommandId) -> PublishCommandResult:
        """The report that ends this command."""
        while True:
            result = await self.hear(PublishCommandResult)
            if result.command_id == command_id and result.status not in (CommandStatus.ACCEPTED, CommandStatus.RUNNING):
                return result

    async def close(self, code: int, reason: str = "") -> None:
        with trio.move_on_after(1):
            await self.connection.aclose(code, reason)

    def command(self, body: dict[str, Any], *, command_id: CommandId | None = None, **changes: Any) -> EventCommand:
        values: dict[str, Any] = {
            "command_id": command_id or CommandId(uuid4()),
            "telescope_uid": TelescopeUid(UUID(int=7)),
            "command": Opaque.of(body),
            "deadline_ms": 10_000,
            "epoch": self.epoch,
            "t_ms": self.t_ms(),
            "issued_at": datetime.now(UTC),
        }
        return EventCommand(**{**values, **changes})

    def request(self, operation: str, params: dict[str, Any] | None = None, **changes: Any) -> DirectRequest:
        values: dict[str, Any] = {
            "id": CallId(uuid4()),
            "operation": operation,
            "params": Opaque.of(params or {}),
            "deadline_ms": 10_000,
            "credit": 1024 * 1024,
            "epoch": self.epoch,
            "t_ms": self.t_ms(),
        }
        return DirectRequest(**{**values, **changes})


class FakeGateway:
    """Accepts sockets and hands each over after its hello. `refusals` are answered to the next handshakes instead."""

    def __init__(self, port: int) -> None:
        self.url = f"ws://127.0.0.1:{port}/v1/ws/node"
        self.refusals: list[tuple[int, list[tuple[bytes, bytes]]]] = []
        self.tokens: list[str] = []
        self._accepted, self._sessions = trio.open_memory_channel[FakeSession](100)
        self._epoch = 0

    async def accept(self) -> FakeSession:
        """The next session, not welcomed yet."""
        with trio.fail_after(PATIENCE_S):
            return await self._sessions.receive()

    async def sessions(self) -> AsyncIterator[FakeSession]:
        """All sessions as they come, without end."""
        async for session in self._sessions:
            yield session

    async def _handle(self, request: WebSocketRequest) -> None:
        token = dict(request.headers).get(b"authorization", b"").decode()
        self.tokens.append(token)
        if self.refusals:
            status, headers = self.refusals.pop(0)
            await request.reject(status, extra_headers=headers, body=b"no")
            return
        connection = await request.accept(subprotocol=request.proposed_subprotocols[0])
        try:
            message = await connection.get_message()
        except ConnectionClosed:
            return
        (read,) = from_node.decode(str(message))
        assert not isinstance(read, BadFrame), read
        assert isinstance(read.frame, Hello), read
        self._epoch = max(self._epoch, read.frame.last_epoch) + 1
        session = FakeSession(connection, read.frame, token, Epoch(self._epoch))
        await self._accepted.send(session)
        await session.ended.wait()


@asynccontextmanager
async def fake_gateway() -> AsyncIterator[FakeGateway]:
    """Listens on a free port of the loopback until the block is left."""
    gateway: FakeGateway | None = None

    async def handle(request: WebSocketRequest) -> None:
        assert gateway is not None
        await gateway._handle(request)

    async with trio.open_nursery() as nursery:
        server = await nursery.start(
            lambda task_status: serve_websocket(
                handle,
                "127.0.0.1",
                0,
                None,
                max_message_size=MAX_BINARY_BYTES,
                message_queue_size=100,
                disconnect_timeout=0.2,
                task_status=task_status,
            )
        )
        gateway = FakeGateway(server.port)
        yield gateway
        nursery.cancel_scope.cancel()
