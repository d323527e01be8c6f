"""A straightforward FastAPI gateway, to be measured beside ours: nodes on WebSockets, direct requests, snapshots.

Written as a good FastAPI developer would write it from its documentation: pydantic reads the JSON, a future waits for
each answer, a log line is inserted by asyncpg, and subscribers are written to in a loop (`fastapi_streams.py`). Two
amounts of work, by the first argument:

- `plain`: one shared secret, and a node answers a request in one frame;
- `same-duties`: what our contract asks for with every request: an ES256 token is verified, the answer comes as start,
  binary chunk and end, and its size and SHA-256 are checked.

In both, what ours does beyond it is missing: deadlines in transit, credit, stops before data, bounded queues, records
of calls, epochs and durable reports in PostgreSQL.
"""

import asyncio
import hashlib
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import jwt
from fastapi import Depends, FastAPI, HTTPException, Response, WebSocket, WebSocketDisconnect
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import BaseModel, Field, JsonValue, TypeAdapter

from skygw.auth import development
from tests.benchmarks.echo_figures import FASTEST_WS
from tests.benchmarks.fastapi_streams import LogAck, PublishLog, PublishSnapshot, Streams, SubscribeStream
from tests.benchmarks.servers.fastapi_echo import fastest
from tests.benchmarks.servers.listening import listening, say_ready

SECRET = "benchmark"
PLAIN, SAME_DUTIES = "plain", "same-duties"


class Hello(BaseModel):
    kind: Literal["hello"]
    install_id: UUID
    instance_uid: UUID
    boot_id: UUID
    outbox_uid: UUID
    node_type: Literal["telescope", "observatory"]
    software_version: str


class Welcome(BaseModel):
    kind: Literal["welcome"] = "welcome"
    session_uid: UUID
    epoch: int
    heartbeat_s: float
    server_time: datetime


class Ping(BaseModel):
    kind: Literal["ping"]
    id: str


class Pong(BaseModel):
    kind: Literal["pong"] = "pong"
    id: str


class DirectRequest(BaseModel):
    kind: Literal["direct_request"] = "direct_request"
    id: UUID
    operation: str
    params: dict[str, JsonValue]
    deadline_ms: int


class DirectResponse(BaseModel):
    kind: Literal["direct_response"]
    id: UUID
    content_type: str
    data: str


class DirectResponseStart(BaseModel):
    kind: Literal["direct_response_start"]
    id: UUID
    content_type: str
    total_size: int | None = None


class DirectResponseEnd(BaseModel):
    kind: Literal["direct_response_end"]
    id: UUID
    chunks: int
    total_size: int
    sha256: str


NodeFrame = Annotated[
    Ping | Pong | PublishSnapshot | PublishLog | DirectResponse | DirectResponseStart | DirectResponseEnd,
    Field(discriminator="kind"),
]
from_node: TypeAdapter[NodeFrame] = TypeAdapter(NodeFrame)
many_from_node: TypeAdapter[list[NodeFrame]] = TypeAdapter(list[NodeFrame])
from_subscriber: TypeAdapter[Ping | SubscribeStream] = TypeAdapter(
    Annotated[Ping | SubscribeStream, Field(discriminator="kind")]
)


class DirectBody(BaseModel):
    operation: str
    params: dict[str, JsonValue] = {}
    timeout_s: Annotated[float, Field(alias="timeoutS", gt=0)] = 30.0


class Call:
    """One request under way."""

    def __init__(self) -> None:
        self.answer: asyncio.Future[bytes] = asyncio.get_running_loop().create_future()
        self.content_type = ""
        self.chunks: list[bytes] = []

    def end(self, frame: DirectResponseEnd) -> None:
        body = b"".join(self.chunks)
        if len(body) != frame.total_size or hashlib.sha256(body).hexdigest() != frame.sha256:
            self.answer.set_exception(HTTPException(502, "The answer does not hold together."))
        else:
            self.answer.set_result(body)


class Node:
    """One connected node."""

    def __init__(self, socket: WebSocket, hello: Hello) -> None:
        self.socket = socket
        self.hello = hello
        self.calls: dict[UUID, Call] = {}
        self.latest: dict[str, PublishSnapshot] = {}


class Gateway:
    """Who is connected, and who listens."""

    def __init__(self) -> None:
        self.nodes: dict[UUID, Node] = {}
        self.streams = Streams()
        self.epoch = 0

    async def take(self, node: Node, frame: NodeFrame) -> None:
        match frame:
            case PublishSnapshot():
                uid = str(frame.data["uid"])
                before = node.latest.get(uid)
                if before is None or before.live_seq < frame.live_seq:
                    node.latest[uid] = frame
                    await self.streams.publish(node.hello.install_id, frame)
            case PublishLog():
                await self.streams.report(node.hello.install_id, node.hello.outbox_uid, frame)
                await node.socket.send_text(LogAck(seq=frame.seq).model_dump_json())
            case DirectResponse():
                call = node.calls.get(frame.id)
                if call is not None:
                    call.content_type = frame.content_type
                    call.answer.set_result(frame.data.encode())
            case DirectResponseStart():
                call = node.calls.get(frame.id)
                if call is not None:
                    call.content_type = frame.content_type
            case DirectResponseEnd():
                call = node.calls.get(frame.id)
                if call is not None:
                    call.end(frame)
            case Ping():
                await node.socket.send_text(Pong(id=frame.id).model_dump_json())
            case Pong():
                pass

    def take_chunk(self, node: Node, chunk: bytes) -> None:
        call = node.calls.get(UUID(bytes=chunk[:16]))
        if call is not None:
            call.chunks.append(chunk[20:])


class Tokens:
    """Who may come in: a shared secret, or ES256 tokens of the development key."""

    def __init__(self, key_dir: Path | None) -> None:
        key = None if key_dir is None else development.load_or_make(key_dir)
        self._key = None if key is None else key.private.public_key()

    def check(self, token: str, audience: str) -> None:
        if self._key is None:
            if token != SECRET:
                raise HTTPException(401, "Not a valid token.")
            return
        try:
            jwt.decode(token, self._key, algorithms=["ES256"], audience=audience, issuer=development.ISSUER)
        except jwt.InvalidTokenError as error:
            raise HTTPException(401, "Not a valid token.") from error


def make_app(tokens: Tokens, database_url: str | None) -> FastAPI:
    gateway = Gateway()

    @asynccontextmanager
    async def lifespan(_: FastAPI) -> AsyncIterator[None]:
        if database_url is not None:
            await gateway.streams.open_log(database_url)
        yield

    app = FastAPI(lifespan=lifespan)
    bearer = HTTPBearer()

    async def service(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
        tokens.check(credentials.credentials, "sky-node-gateway-internal")

    @app.websocket("/v1/ws/node")
    async def node_socket(socket: WebSocket) -> None:
        tokens.check(socket.headers.get("authorization", "").removeprefix("Bearer "), "sky-node-gateway")
        await socket.accept(subprotocol="skynet.node.v1")
        hello = Hello.model_validate_json(await socket.receive_text())
        node = gateway.nodes[hello.install_id] = Node(socket, hello)
        gateway.epoch += 1
        welcome = Welcome(session_uid=uuid4(), epoch=gateway.epoch, heartbeat_s=10, server_time=datetime.now(UTC))
        await socket.send_text(welcome.model_dump_json())
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if (text := message.get("text")) is not None:
                    frames = many_from_node.validate_json(text) if text[0] == "[" else [from_node.validate_json(text)]
                    for frame in frames:
                        await gateway.take(node, frame)
                else:
                    gateway.take_chunk(node, message["bytes"])
        except WebSocketDisconnect:
            return
        finally:
            if gateway.nodes.get(hello.install_id) is node:
                del gateway.nodes[hello.install_id]

    @app.websocket("/internal/ws/stream")
    async def stream(socket: WebSocket) -> None:
        tokens.check(socket.headers.get("authorization", "").removeprefix("Bearer "), "sky-node-gateway-internal")
        await socket.accept(subprotocol="skynet.internal.v1")
        try:
            while True:
                frame = from_subscriber.validate_json(await socket.receive_text())
                if isinstance(frame, SubscribeStream):
                    await gateway.streams.subscribe(socket, frame)
                else:
                    await socket.send_text(Pong(id=frame.id).model_dump_json())
        except WebSocketDisconnect:
            return
        finally:
            gateway.streams.leave(socket)

    @app.post("/internal/nodes/{install_id}/direct", dependencies=[Depends(service)])
    async def direct(install_id: UUID, body: DirectBody) -> Response:
        node = gateway.nodes.get(install_id)
        if node is None:
            raise HTTPException(503, "This installation is not connected.")
        request = DirectRequest(
            id=uuid4(), operation=body.operation, params=body.params, deadline_ms=int(body.timeout_s * 1_000)
        )
        call = node.calls[request.id] = Call()
        try:
            async with asyncio.timeout(body.timeout_s):
                await node.socket.send_text(request.model_dump_json())
                content = await call.answer
        except TimeoutError:
            raise HTTPException(504, "The node did not answer in time.") from None
        finally:
            del node.calls[request.id]
        return Response(content, media_type=call.content_type)

    @app.get("/internal/nodes/{install_id}", dependencies=[Depends(service)])
    async def node_view(install_id: UUID) -> dict[str, Any]:
        latest = gateway.nodes[install_id].latest
        return {"streams": [{"uid": uid, "observedAt": kept.observed_at} for uid, kept in latest.items()]}

    return app


def main() -> None:
    """Arguments: the amount of work; and for `same-duties` the folder of the development key, else the database, where
    log lines are reported.
    """
    _, work, where = sys.argv
    tokens = Tokens(Path(where) if work == SAME_DUTIES else None)
    sock = listening()
    say_ready(sock.getsockname()[1])
    fastest(make_app(tokens, where if where.startswith("postgresql:") else None), ws=FASTEST_WS).run(sockets=[sock])


if __name__ == "__main__":
    main()
