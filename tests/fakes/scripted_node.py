"""A node light enough to run hundreds of, that does what a test tells it and keeps a journal of what it received."""

import hashlib
import socket
import struct
from collections import Counter
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from urllib.parse import urlsplit
from uuid import uuid4

import trio
from trio_websocket import ConnectionClosed, WebSocketConnection, wrap_client_stream

from skygw.ids import BootId, InstallId, InstanceUid, OutboxUid
from skygw.protocol.chunks import Chunk, pack_chunk
from skygw.protocol.codec import BadFrame, encode, from_gateway
from skygw.protocol.frame import Frame
from skygw.protocol.gateway_frames import DirectRequest, Goaway, Welcome
from skygw.protocol.node_frames import DirectError, DirectResponseEnd, DirectResponseStart, Hello, NodeType, Ping, Pong

SUBPROTOCOL = "skynet.node.v1"
CHUNK_BYTES = 32 * 1024
RESET_ON_CLOSE = struct.pack("ii", 1, 0)
"""SO_LINGER with zero seconds: closing sends a reset, as a link does that was cut in the middle."""


@dataclass
class Journal:
    """What one node saw and did, by the caller's nonce. The judge of what callers were told."""

    received: Counter[str] = field(default_factory=Counter)
    answered: Counter[str] = field(default_factory=Counter)
    """…whose `end` was handed to the socket."""


OnRequest = Callable[["ScriptedNode", DirectRequest], Awaitable[None]]


@dataclass
class ScriptedNode:
    """One installation. What it remembers outlives its links: run it again and it comes back. It refuses requests of an
    epoch below the highest it has seen.

    `on_request` is called in order with each direct request, by the task that reads: while it waits, nothing is read.
    """

    install_id: InstallId
    on_request: OnRequest
    instance_uid: InstanceUid = field(default_factory=lambda: InstanceUid(uuid4()))
    outbox_uid: OutboxUid = field(default_factory=lambda: OutboxUid(uuid4()))
    journal: Journal = field(default_factory=Journal)
    epochs: list[int] = field(default_factory=list)
    goodbyes: list[int | None] = field(default_factory=list)
    """The close code of each link that ended; `None` where it just broke or was refused."""
    goaways: int = 0
    is_deaf: bool = False
    """Reads nothing after its welcome, and its receive buffer is small."""
    _connection: WebSocketConnection | None = None
    _socket: trio.socket.SocketType | None = None
    _link: trio.CancelScope = field(default_factory=trio.CancelScope)

    async def run(self, url: str, token: str, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """One link, from the connect to its end; started once welcomed. Raises what trio-websocket raises when it is
        refused. Cancelled or killed, the connection is reset.
        """
        code: int | None = None
        with trio.CancelScope() as self._link:
            try:
                async with trio.open_nursery() as nursery:
                    try:
                        self._connection = await self._connect(url, token, nursery)
                        await self.say(self._hello())
                        await self._converse(self._connection, task_status)
                    except ConnectionClosed as closed:
                        code = None if closed.reason is None else closed.reason.code
                    finally:
                        self._drop()
                        nursery.cancel_scope.cancel()
            finally:
                self.goodbyes.append(code)

    def kill(self) -> None:
        """Resets the connection now, in the middle of whatever it does."""
        self._drop()
        self._link.cancel()

    async def say(self, message: Frame | bytes) -> None:
        assert self._connection is not None
        await self._connection.send_message(message if isinstance(message, bytes) else encode(message))

    async def _connect(self, url: str, token: str, nursery: trio.Nursery) -> WebSocketConnection:
        parts = urlsplit(url)
        self._socket = trio.socket.socket(socket.AF_INET, socket.SOCK_STREAM)
        self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET_ON_CLOSE)
        if self.is_deaf:
            self._socket.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4_096)
        await self._socket.connect((parts.hostname, parts.port))
        return await wrap_client_stream(
            nursery,
            trio.SocketStream(self._socket),
            parts.netloc,
            parts.path,
            subprotocols=[SUBPROTOCOL],
            extra_headers=[(b"authorization", b"Bearer " + token.encode())],
        )

    def _drop(self) -> None:
        if self._socket is not None:
            self._socket.close()

    def _hello(self) -> Hello:
        return Hello(
            install_id=self.install_id,
            instance_uid=self.instance_uid,
            node_type=NodeType.TELESCOPE,
            software_version="scripted",
            boot_id=BootId(uuid4()),
            outbox_uid=self.outbox_uid,
            last_epoch=max(self.epochs, default=0),
            last_fences={},
        )

    async def _converse(self, connection: WebSocketConnection, task_status: trio.TaskStatus[None]) -> None:
        while True:
            message = await connection.get_message()
            assert isinstance(message, str)
            for read in from_gateway.decode(message):
                assert not isinstance(read, BadFrame), read
                match read.frame:
                    case Welcome(epoch=epoch):
                        self.epochs.append(epoch)
                        task_status.started()
                        if self.is_deaf:
                            await trio.sleep_forever()
                    case Ping(id=beat):
                        await self.say(Pong(id=beat))
                    case DirectRequest(epoch=epoch) as request if epoch < max(self.epochs):
                        await self.say(
                            DirectError(id=request.id, code="conflict", message=f"The epoch {epoch} is an old one.")
                        )
                    case DirectRequest() as request:
                        self.journal.received[request.params.value["nonce"]] += 1
                        await self.on_request(self, request)
                    case Goaway():
                        self.goaways += 1
                    case _:
                        pass


def body_of(request: DirectRequest) -> bytes:
    """What a request is answered with: `size` bytes that no other nonce has."""
    return expected_body(request.params.value["nonce"], request.params.value["size"])


def expected_body(nonce: str, size: int) -> bytes:
    return hashlib.shake_256(nonce.encode()).digest(size)


async def answer(node: ScriptedNode, request: DirectRequest) -> None:
    """The whole answer at once."""
    await answer_together(node, [request])


async def answer_together(node: ScriptedNode, requests: list[DirectRequest]) -> None:
    """Answers all of them at the same time, a chunk of each in turn, as a node with many tasks does."""
    bodies = [body_of(request) for request in requests]
    for request, body in zip(requests, bodies, strict=True):
        await node.say(
            DirectResponseStart(id=request.id, content_type="application/octet-stream", total_size=len(body))
        )
    for seq in range(max(_chunks(body) for body in bodies)):
        for request, body in zip(requests, bodies, strict=True):
            if seq < _chunks(body):
                await node.say(pack_chunk(Chunk(request.id, seq, body[seq * CHUNK_BYTES : (seq + 1) * CHUNK_BYTES])))
    for request, body in zip(requests, bodies, strict=True):
        await node.say(
            DirectResponseEnd(
                id=request.id,
                chunks=_chunks(body),
                total_size=len(body),
                sha256=hashlib.sha256(body).hexdigest(),
            )
        )
        node.journal.answered[request.params.value["nonce"]] += 1


def _chunks(body: bytes) -> int:
    return -(-len(body) // CHUNK_BYTES)
