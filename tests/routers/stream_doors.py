"""Both doors of the streams on a real listener, over a hub of which the test decides what happens in it."""

import json
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from typing import Any
from uuid import UUID, uuid4

import trio
import trio.testing
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from skygw.auth.networks import parse_networks
from skygw.auth.principals import NodePrincipal, Scope, ServicePrincipal
from skygw.errors import RoutingUnavailable, Unauthenticated
from skygw.ids import InstallId
from skygw.protocol.schemas import STREAM_SOCKET_PATH
from skygw.protocol.streams import StreamName
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from skygw.resources import Resource, ResourceKind
from skygw.routers.apps import internal_app
from skygw.routers.event_streams import EventStreamRouter
from skygw.routers.gates import InternalGate
from skygw.routers.streams import StreamRouter
from skygw.telemetry.hub import StreamHub
from tests.fakes.memory_log import MemoryLog, an_event
from tests.serving.served import PATIENCE_S, Peer, Served, serving

LOOPBACK = parse_networks(["127.0.0.0/8"])


class Tokens:
    """`TokenVerifier` for services: a token is what it was entered as."""

    def __init__(self) -> None:
        self.of: dict[str, ServicePrincipal] = {}
        self.enter("reader")
        self.enter("poor", scopes=(Scope.NODES_READ,))

    def enter(
        self,
        token: str,
        *,
        service: str = "dashboard",
        scopes: Sequence[Scope] = (Scope.STREAMS_READ,),
        lasts_s: float = 600.0,
    ) -> None:
        self.of[token] = ServicePrincipal(service, frozenset(scopes), time.time() + lasts_s)

    async def node(self, token: str) -> NodePrincipal:
        raise Unauthenticated(f"{token} is of no installation.")

    async def service(self, token: str) -> ServicePrincipal:
        if token not in self.of:
            raise Unauthenticated("The token does not hold.")
        return self.of[token]

    def asks_issuer(self, token: str) -> bool:
        return False

    async def issuer_reachable(self) -> bool:
        return True


class DoorCounts:
    """What the doors and the hub report."""

    def __init__(self) -> None:
        self.open: Counter[str] = Counter()
        self.told: Counter[str] = Counter()
        self.passed_over: Counter[str] = Counter()
        self.ended: Counter[str] = Counter()

    def subscriber_came(self, door: str) -> None:
        self.open[door] += 1

    def subscriber_left(self, door: str) -> None:
        self.open[door] -= 1

    def delivered(self, stream: str, count: int) -> None:
        self.told[stream] += count

    def conflated(self, stream: str, count: int) -> None:
        self.passed_over[stream] += count

    def subscription_ended(self, reason: str) -> None:
        self.ended[reason] += 1


class Log(MemoryLog):
    """With `away` set, nobody can replay it."""

    def __init__(self) -> None:
        super().__init__()
        self.away = False

    async def floor(self) -> int:
        if self.away:
            raise RoutingUnavailable("The database is away.", retry_after_s=0.05)
        return await super().floor()


class StreamSocket:
    """A subscriber's end of a stream socket."""

    def __init__(self, socket: WebSocketConnection) -> None:
        self._socket = socket

    @property
    def subprotocol(self) -> str | None:
        return self._socket.subprotocol

    async def say(self, *messages: Any) -> None:
        """Objects and arrays as JSON; bytes as a binary message."""
        with trio.fail_after(PATIENCE_S):
            for message in messages:
                await self._socket.send_message(message if isinstance(message, bytes) else json.dumps(message))

    async def hear(self) -> dict[str, Any]:
        with trio.fail_after(PATIENCE_S):
            heard = json.loads(await self._socket.get_message())
        assert isinstance(heard, dict)
        return heard

    async def hear_kinds(self, *kinds: str) -> list[dict[str, Any]]:
        """The next messages, which are of these kinds."""
        heard = [await self.hear() for _ in kinds]
        assert [message["kind"] for message in heard] == list(kinds)
        return heard

    async def subscribe(self, stream: StreamName, subscription_id: str = "s1", **asked: Any) -> None:
        await self.say(
            {"kind": "subscribe_stream", "subscription_id": subscription_id, "stream": stream.value, **asked}
        )

    async def closed(self) -> tuple[int, str]:
        with trio.fail_after(PATIENCE_S):
            while True:
                try:
                    await self._socket.get_message()
                except ConnectionClosed as closed:
                    if closed.reason is None:  # cut without a close frame
                        raise
                    return closed.reason.code, closed.reason.reason or ""


class EventSource:
    """A reader of one answer in Server-Sent Events, which knows the format by itself."""

    def __init__(self, peer: Peer) -> None:
        self._peer = peer
        self.status = 0
        self.headers: dict[str, str] = {}
        self.last_event_id = ""
        self.retry_ms: int | None = None
        self.comments: list[str] = []
        self._unread = b""
        self.ended_cleanly = False

    async def ask(self, path: str, *, method: str = "GET", token: str = "reader", **headers: str) -> None:  # noqa: S107
        lines = "".join(f"{name.replace('_', '-')}: {value}\r\n" for name, value in headers.items())
        await self._peer.send(
            f"{method} {path} HTTP/1.1\r\nHost: here\r\nAuthorization: Bearer {token}\r\n{lines}\r\n".encode()
        )
        head = (await self._peer.read_until(b"\r\n\r\n")).decode()
        first, *rest = head.split("\r\n")
        self.status = int(first.split()[1])
        pairs = (line.split(":", 1) for line in rest if line)
        self.headers = {name.strip().lower(): value.strip() for name, value in pairs}

    async def body(self) -> Any:
        """Of an answer that is no stream."""
        text = await self._peer.read_exactly(int(self.headers["content-length"]))
        return json.loads(text) if text else None

    async def hear(self) -> tuple[str, dict[str, Any]]:
        """The next event: its type and data. Raises `EOFError` at the end of the answer."""
        kind, data = "message", list[str]()
        while True:
            line = await self._line()
            if not line:
                if data:
                    return kind, json.loads("\n".join(data))
                continue
            field, _, value = line.partition(":")
            value = value.removeprefix(" ")
            if field == "":
                self.comments.append(value)
            elif field == "event":
                kind = value
            elif field == "data":
                data.append(value)
            elif field == "id":
                self.last_event_id = value
            elif field == "retry":
                self.retry_ms = int(value)

    async def hear_kinds(self, *kinds: str) -> list[dict[str, Any]]:
        """The next events, which are of these kinds, in `event:` and in their data."""
        heard = [await self.hear() for _ in kinds]
        assert [kind for kind, _ in heard] == list(kinds)
        assert [data["kind"] for _, data in heard] == list(kinds)
        return [data for _, data in heard]

    async def hear_the_end(self) -> list[str]:
        """The types of the events until the answer ends."""
        kinds = []
        while True:
            try:
                kinds.append((await self.hear())[0])
            except EOFError:
                return kinds

    async def _line(self) -> str:
        while b"\n" not in self._unread:
            size = await self._peer.read_until(b"\r\n")
            if not size.strip():
                raise EOFError("the connection was cut")
            piece = await self._peer.read_exactly(int(size, 16) + 2)
            if int(size, 16) == 0:
                self.ended_cleanly = True
                raise EOFError("the answer has ended")
            self._unread += piece[:-2]
        line, _, self._unread = self._unread.partition(b"\n")
        return line.decode()


class StreamDoors:
    """A listener with both doors; `hub` and `log` are what it tells of."""

    def __init__(self, served: Served, hub: StreamHub, log: Log, tokens: Tokens, counts: DoorCounts) -> None:
        self.served = served
        self.hub = hub
        self.log = log
        self.tokens = tokens
        self.counts = counts
        self.statuses: list[tuple[str, int]] = []
        self.telescope_uid = uuid4()
        self.install_id = InstallId(uuid4())
        self._observatory_uid = uuid4()
        self._seq = 0

    def device(self, *, telescope_uid: UUID | None = None, device_type: str = "mount") -> Resource:
        return Resource(
            kind=ResourceKind.DEVICE,
            uid=uuid4(),
            install_id=self.install_id,
            observatory_uid=self._observatory_uid,
            telescope_uid=telescope_uid or self.telescope_uid,
            device_type=device_type,
        )

    def publish(self, device: Resource, **members: Any) -> str:
        """A snapshot of it; its text."""
        self._seq += 1
        data = json.dumps({"uid": str(device.uid), **members})
        self.hub.retained.say(StreamName.DEVICE_SNAPSHOT, device, data, order=(1, self._seq))
        return data

    def happen(self, data: str = '{"message":"cooling"}', *, times: int = 1) -> None:
        """Log lines are committed, all in one transaction."""
        event = an_event(StreamName.TELESCOPE_LOG, data, telescope_uid=self.telescope_uid, install_id=self.install_id)
        self.log.append(*[event] * times)
        self.hub.feed.poke()

    def subscribers_of(self, stream: StreamName) -> int:
        return self.hub.subscriptions()[stream]

    async def until_nobody_listens(self) -> None:
        """Until all that subscribers cost is given back."""
        with trio.fail_after(PATIENCE_S):
            while any(self.hub.subscriptions().values()) or self.counts.open.total():
                await trio.testing.wait_all_tasks_blocked(0.005)

    async def until_fed(self) -> None:
        """Until the feed has told of everything that was committed."""
        with trio.fail_after(PATIENCE_S):
            while self.hub.feed.head < len(self.log.rows):
                await trio.testing.wait_all_tasks_blocked(0.005)

    @asynccontextmanager
    async def socket(
        self,
        *,
        token: str = "reader",  # noqa: S107 - a name
        extensions: bool = True,
    ) -> AsyncIterator[StreamSocket]:
        async with self.served.peer() as peer, trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE_S):
                socket = await wrap_client_stream(
                    nursery,
                    peer.transport,
                    "here",
                    STREAM_SOCKET_PATH,
                    subprotocols=[SUBSCRIBER_SUBPROTOCOL] if extensions else None,
                    extra_headers=[(b"authorization", f"Bearer {token}".encode())],
                    message_queue_size=64,
                )
            yield StreamSocket(socket)
            nursery.cancel_scope.cancel()

    @asynccontextmanager
    async def source(self, *, receive_buffer: int | None = None) -> AsyncIterator[EventSource]:
        async with self.served.peer(receive_buffer=receive_buffer) as peer:
            yield EventSource(peer)


@asynccontextmanager
async def stream_doors(**settings: Any) -> AsyncIterator[StreamDoors]:
    """`settings` are the listener's."""
    tokens, counts, log = Tokens(), DoorCounts(), Log()
    hub = StreamHub(era=1, log=log, metrics=counts)
    gate = InternalGate(verifier=tokens, networks=LOOPBACK, trusted_proxies=())
    statuses: list[tuple[str, int]] = []

    def surprised() -> None:
        raise AssertionError("an error nobody expected")

    app = internal_app(
        [StreamRouter(gate=gate, hub=hub, metrics=counts)],
        [EventStreamRouter(gate=gate, hub=hub, metrics=counts)],
        gate=gate,
        count=lambda route, status: statuses.append((route, status)),
        surprised=surprised,
    )
    async with trio.open_nursery() as nursery, serving(app, name="internal", **settings) as served:
        await nursery.start(hub.feed.run)
        doors = StreamDoors(served, hub, log, tokens, counts)
        doors.statuses = statuses
        yield doors
        nursery.cancel_scope.cancel()
