"""A whole gateway on free ports with real sockets, the site it serves, and nodes that do as the test says."""

import json
import ssl
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any, Protocol, TypeVar
from uuid import UUID, uuid4

import httpx
import trio
from trio_websocket import ConnectionClosed, ConnectionRejected, WebSocketConnection, wrap_client_stream

from skygw.app import Running, run
from skygw.auth.development import DevelopmentKey, load_or_make, mint
from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.ids import BootId, CallId, DeviceUid, InstallId, InstanceUid, OutboxUid, TelescopeUid
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.codec import BadFrame, encode, from_gateway
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import DirectRequest, GatewayFrame, Welcome
from skygw.protocol.node_frames import DirectResponseEnd, DirectResponseStart, Hello, NodeType, Ping, Pong
from skygw.protocol.schemas import NODE_SOCKET_PATH, SUBPROTOCOL
from skygw.settings import Settings
from tests.fakes.postgres import PostgresServer

PATIENCE_S = 20.0
"""The bound of every wait here: reached only when something is broken."""

NO_TLS = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
"""Not used, and quick to make: httpx would read every root certificate of the machine."""

ALL_SCOPES = ("nodes:read", "nodes:call", "nodes:command", "nodes:admin", "act_as")

FrameT = TypeVar("FrameT", bound=Frame)


@dataclass(frozen=True)
class Site:
    """An observatory with one telescope, its mount, and the installation that runs them."""

    install_id: InstallId = field(default_factory=lambda: InstallId(uuid4()))
    telescope_uid: TelescopeUid = field(default_factory=lambda: TelescopeUid(uuid4()))
    mount_uid: DeviceUid = field(default_factory=lambda: DeviceUid(uuid4()))

    async def provision(self, owner_url: str) -> None:
        mount = NewDevice(self.mount_uid, "mount", "Mount")
        telescope = NewTelescope(self.telescope_uid, "Dome A", devices=(mount,), install_id=self.install_id)
        await provision(owner_url, [NewObservatory(uuid4(), "Ridge", telescopes=(telescope,))])


class ScriptedNode:
    """One socket of a node. Pings are answered while it listens; everything else is the test's to say."""

    def __init__(self, socket: WebSocketConnection, hello: Hello) -> None:
        self.socket = socket
        self.hello = hello
        self.welcome: Welcome | None = None

    @property
    def epoch(self) -> int:
        assert self.welcome is not None
        return self.welcome.epoch

    async def say(self, *messages: Frame | str | bytes) -> None:
        for message in messages:
            with trio.fail_after(PATIENCE_S):
                await self.socket.send_message(encode(message) if isinstance(message, Frame) else message)

    async def hear(self, kind: type[FrameT]) -> FrameT:
        """The next frame of this type; others are passed over."""
        frame = await self.hear_one_of(kind)
        assert isinstance(frame, kind)
        return frame

    async def hear_one_of(self, *kinds: type[Frame]) -> GatewayFrame:
        """The next frame of one of these types; others are passed over."""
        with trio.fail_after(PATIENCE_S):
            while True:
                message = await self.socket.get_message()
                assert isinstance(message, str)
                [item] = from_gateway.decode(message)
                assert not isinstance(item, BadFrame), item
                if isinstance(item.frame, kinds):
                    return item.frame
                if isinstance(item.frame, Ping):
                    await self.socket.send_message(encode(Pong(id=item.frame.id)))

    async def greet(self) -> Welcome:
        await self.say(self.hello)
        self.welcome = await self.hear(Welcome)
        return self.welcome

    async def closed(self) -> tuple[int, str]:
        """Waits for the gateway's goodbye: its code and reason."""
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    await self.socket.get_message()
                except ConnectionClosed as closed:
                    if closed.reason is None:  # cut without a close frame
                        raise
                    return closed.reason.code, closed.reason.reason or ""

    async def answer(self, request: DirectRequest, payload: bytes, *, piece: int = 64 * 1024) -> None:
        """A whole good answer; the payload must fit into the credit."""
        pieces = [payload[at : at + piece] for at in range(0, len(payload), piece)]
        await self.say(start_of(request.id, len(payload)))
        for seq, data in enumerate(pieces):
            await self.say(pack_chunk(Chunk(request.id, seq, data)))
        await self.say(end_of(request.id, payload, chunks=len(pieces)))

    async def serve_echoes(self) -> None:
        """Answers every direct request with its parameters until cancelled."""
        while True:
            request = await self.hear(DirectRequest)
            await self.answer(request, request.params.text.encode())


def start_of(call: CallId, size: int | None) -> DirectResponseStart:
    return DirectResponseStart(id=call, content_type="application/octet-stream", total_size=size)


def end_of(call: CallId, payload: bytes, *, chunks: int) -> DirectResponseEnd:
    return DirectResponseEnd(id=call, chunks=chunks, total_size=len(payload), sha256=sha256(payload).hexdigest())


@dataclass(frozen=True)
class Rejected:
    """How a handshake was refused."""

    status: int
    headers: dict[str, str]
    problem: dict[str, Any]


def bearer(token: str) -> list[tuple[bytes, bytes]]:
    return [(b"authorization", f"Bearer {token}".encode())]


class Addresses(Protocol):
    """Where a gateway listens, in this process or in one of its own."""

    @property
    def node_url(self) -> str: ...

    @property
    def internal_url(self) -> str: ...


@dataclass
class AnyWorld:
    """A running gateway, a site it knows, and a caller of it with every scope."""

    running: Addresses
    key: DevelopmentKey
    site: Site
    owner_url: str
    http: httpx.AsyncClient

    @property
    def node_port(self) -> int:
        return httpx.URL(self.running.node_url).port or 0

    @property
    def internal_port(self) -> int:
        return httpx.URL(self.running.internal_url).port or 0

    @property
    def direct_path(self) -> str:
        return f"/internal/nodes/{self.site.install_id}/direct"

    def node_token(self, install_id: UUID | None = None, *, lifetime_s: float = 600, scope: str = "node") -> str:
        return mint(
            self.key,
            subject=str(install_id or self.site.install_id),
            audience="sky-node-gateway",
            scopes=[scope],
            lifetime_s=lifetime_s,
            now=time.time(),
        )

    def service_token(self, *scopes: str, service: str = "tests") -> str:
        return mint(
            self.key,
            subject=service,
            audience="sky-node-gateway-internal",
            scopes=scopes or ALL_SCOPES,
            lifetime_s=600,
            now=time.time(),
        )

    async def ask(self, method: str, path: str, body: Any = None, **kwargs: Any) -> httpx.Response:
        with trio.fail_after(PATIENCE_S):
            return await self.http.request(method, path, json=body, **kwargs)

    async def direct(self, operation: str = "echo", params: Any = None, **members: Any) -> httpx.Response:
        return await self.ask("POST", self.direct_path, {"operation": operation, "params": params or {}, **members})

    async def control(self) -> str:
        """Takes control of the telescope for longer than a test lasts; the secret that every moving command shows."""
        body = {"telescopeUid": str(self.site.telescope_uid), "durationS": 3_600}
        answer = await self.ask("POST", "/internal/leases", body)
        assert answer.status_code == 201, answer.text
        return str(answer.json()["leaseUid"])

    async def node_view(self) -> dict[str, Any]:
        answer = await self.ask("GET", f"/internal/nodes/{self.site.install_id}")
        assert answer.status_code == 200
        return dict(answer.json())

    def a_hello(self, install_id: UUID | None = None, **members: Any) -> Hello:
        return Hello.model_validate(
            {
                "install_id": install_id or self.site.install_id,
                "instance_uid": INSTANCE,
                "node_type": NodeType.TELESCOPE,
                "software_version": "scripted 1",
                "boot_id": BootId(uuid4()),
                "outbox_uid": OutboxUid(uuid4()),
                **members,
            }
        )

    @asynccontextmanager
    async def socket(self, *, token: str | None = None, hello: Hello | None = None) -> AsyncIterator[ScriptedNode]:
        """A node's socket that has said nothing yet. Whatever state it is in, it is cut at the end."""
        async with self._stream(self.node_port) as stream, trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE_S):
                socket = await wrap_client_stream(
                    nursery,
                    stream,
                    "127.0.0.1",
                    NODE_SOCKET_PATH,
                    subprotocols=[SUBPROTOCOL],
                    extra_headers=bearer(token or self.node_token()),
                    message_queue_size=16,
                )
            yield ScriptedNode(socket, hello or self.a_hello())
            nursery.cancel_scope.cancel()

    async def rejection(
        self,
        *,
        headers: list[tuple[bytes, bytes]] | None = None,
        path: str = NODE_SOCKET_PATH,
        port: int | None = None,
        subprotocols: Sequence[str] = (SUBPROTOCOL,),
    ) -> Rejected:
        """The HTTP answer to a handshake that is refused."""
        found: list[Rejected] = []
        try:
            async with self._stream(port or self.node_port) as stream, trio.open_nursery() as nursery:
                with trio.fail_after(PATIENCE_S):
                    await wrap_client_stream(
                        nursery,
                        stream,
                        "127.0.0.1",
                        path,
                        subprotocols=list(subprotocols),
                        extra_headers=bearer(self.node_token()) if headers is None else headers,
                    )
                nursery.cancel_scope.cancel()
        except* ConnectionRejected as errors:
            [error] = errors.exceptions
            assert isinstance(error, ConnectionRejected)
            answered = {name.decode().lower(): value.decode() for name, value in error.headers or ()}
            found.append(Rejected(error.status_code, answered, json.loads(error.body or b"{}")))
        [rejected] = found  # empty if the handshake was accepted
        return rejected

    @asynccontextmanager
    async def caller(
        self, operation: str, *, receive_buffer: int | None = None, **members: Any
    ) -> AsyncIterator[trio.SocketStream]:
        """A connection on which a direct request was sent; whether and when to read is the test's to say."""
        body = json.dumps({"operation": operation, "params": {}, **members}).encode()
        async with self._stream(self.internal_port) as stream:
            if receive_buffer is not None:
                stream.setsockopt(trio.socket.SOL_SOCKET, trio.socket.SO_RCVBUF, receive_buffer)
            await stream.send_all(
                f"POST {self.direct_path} HTTP/1.1\r\nHost: a\r\nAuthorization: Bearer {self.service_token()}\r\n"
                f"Content-Length: {len(body)}\r\n\r\n".encode()
                + body
            )
            yield stream

    @asynccontextmanager
    async def _stream(self, port: int) -> AsyncIterator[trio.SocketStream]:
        stream = await trio.open_tcp_stream("127.0.0.1", port)
        try:
            yield stream
        finally:
            stream.socket.close()

    @asynccontextmanager
    async def node(self, **hello: Any) -> AsyncIterator[ScriptedNode]:
        """A node that has been welcomed."""
        async with self.socket(hello=self.a_hello(**hello)) as node:
            await node.greet()
            yield node

    @asynccontextmanager
    async def bystander(self) -> AsyncIterator["Bystander"]:
        """Another installation that answers direct requests, to show that it still is served."""
        other = Site()
        await other.provision(self.owner_url)
        hello = self.a_hello(other.install_id)
        async with self.socket(token=self.node_token(other.install_id), hello=hello) as node:
            await node.greet()
            async with trio.open_nursery() as nursery:
                nursery.start_soon(node.serve_echoes)
                yield Bystander(self, other.install_id)
                nursery.cancel_scope.cancel()


@dataclass
class World(AnyWorld):
    """…the gateway in this process, with all that belongs to it."""

    running: Running


INSTANCE = InstanceUid(UUID("0d3a1c2e-57a1-4f0b-8a53-3a4b8a2f9a10"))


@dataclass
class Bystander:
    world: AnyWorld
    install_id: InstallId

    async def is_served(self) -> bool:
        nonce = {"nonce": uuid4().hex}
        answer = await self.world.ask(
            "POST", f"/internal/nodes/{self.install_id}/direct", {"operation": "echo", "params": nonce}
        )
        return bool(answer.status_code == 200 and answer.json() == nonce)


@asynccontextmanager
async def gateway(postgres: PostgresServer | None, data_dir: Path, **settings: Any) -> AsyncIterator[World]:
    """A gateway on the tests' database, or on an embedded one of its own; ended without a drain."""
    chosen = Settings(
        node_port=0,
        internal_port=0,
        data_dir=data_dir,
        database_url=None if postgres is None else postgres.gateway_url,
        **settings,
    )
    key = await trio.to_thread.run_sync(load_or_make, data_dir)
    async with trio.open_nursery() as nursery:
        running: Running = await nursery.start(partial(run, chosen, handle_signals=False))
        owner_url = running.cluster.owner_url if postgres is None and running.cluster else ""
        async with world_of(World, running, key, postgres.owner_url if postgres else owner_url) as world:
            yield world
        nursery.cancel_scope.cancel()


WorldT = TypeVar("WorldT", bound=AnyWorld)


@asynccontextmanager
async def world_of(
    kind: type[WorldT], running: Addresses, key: DevelopmentKey, owner_url: str
) -> AsyncIterator[WorldT]:
    """A site that a running gateway knows, and a caller of it."""
    site = Site()
    async with httpx.AsyncClient(base_url=running.internal_url, timeout=PATIENCE_S, verify=NO_TLS) as http:
        world = kind(running, key, site, owner_url, http)
        await site.provision(world.owner_url)
        http.headers["authorization"] = f"Bearer {world.service_token()}"
        yield world
