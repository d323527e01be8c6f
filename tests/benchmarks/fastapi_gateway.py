"""A straightforward FastAPI gateway, to be measured beside ours: nodes on WebSockets, direct requests, snapshots.

Written as a good FastAPI developer would write it from its documentation: pydantic reads the JSON, a future waits for
each answer, and subscribers are written to in a loop. Two amounts of work, by the first argument:

- `plain`: one shared secret, and a node answers a request in one frame;
- `same-duties`: what our contract asks for with every request: an ES256 token is verified, the answer comes as start,
  binary chunk and end, and its size and SHA-256 are checked.

In both, what ours does beyond it is missing: deadlines in transit, credit, stops before data, bounded queues, records
of calls, epochs and durable reports in PostgreSQL.
"""

import asyncio
import hashlib
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any, Literal
from uuid import UUID, uuid4

import jwt
from fastapi import Depends, FastAPI, HTTPException, Response, WebSocket, WebSocketDisconnect
from fastapi.security import HTTPAuthorizationCredentials, HTTPBearer
from pydantic import AwareDatetime, BaseModel, Field, JsonValue, TypeAdapter

from skygw.auth import development
from tests.benchmarks.echo_figures import FASTEST_WS
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


class PublishSnapshot(BaseModel):
    kind: Literal["publish_snapshot"]
    stream: Literal["device_snapshot", "telescope_snapshot", "instrument_snapshot"]
    data: dict[str, JsonValue]
    observed_at: AwareDatetime
    max_silence_s: float | None = None
    live_seq: Annotated[int, Field(ge=0)]


class EventSnapshot(BaseModel):
    kind: Literal["event_device_snapshot"] = "event_device_snapshot"
    observed_at: AwareDatetime
    data: dict[str, JsonValue]


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
    Ping | Pong | PublishSnapshot | DirectResponse | DirectResponseStart | DirectResponseEnd,
    Field(discriminator="kind"),
]
from_node: TypeAdapter[NodeFrame] = TypeAdapter(NodeFrame)


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

    def __init__(self, socket: WebSocket) -> None:
        self.socket = socket
        self.calls: dict[UUID, Call] = {}
        self.latest: dict[str, PublishSnapshot] = {}


class Gateway:
    """Who is connected, and who listens."""

    def __init__(self) -> None:
        self.nodes: dict[UUID, Node] = {}
        self.subscribers: list[WebSocket] = []
        self.epoch = 0

    async def take(self, node: Node, frame: NodeFrame) -> None:
        match frame:
            case PublishSnapshot():
                uid = str(frame.data["uid"])
                before = node.latest.get(uid)
                if before is None or before.live_seq < frame.live_seq:
                    node.latest[uid] = frame
                    await self.broadcast(frame)
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

    async def broadcast(self, frame: PublishSnapshot) -> None:
        if not self.subscribers:
            return
        text = EventSnapshot(observed_at=frame.observed_at, data=frame.data).model_dump_json()
        for subscriber in self.subscribers:
            await subscriber.send_text(text)


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


def make_app(tokens: Tokens) -> FastAPI:
    app = FastAPI()
    gateway = Gateway()
    bearer = HTTPBearer()

    async def service(credentials: Annotated[HTTPAuthorizationCredentials, Depends(bearer)]) -> None:
        tokens.check(credentials.credentials, "sky-node-gateway-internal")

    @app.websocket("/v1/ws/node")
    async def node_socket(socket: WebSocket) -> None:
        tokens.check(socket.headers.get("authorization", "").removeprefix("Bearer "), "sky-node-gateway")
        await socket.accept(subprotocol="skynet.node.v1")
        hello = Hello.model_validate_json(await socket.receive_text())
        node = gateway.nodes[hello.install_id] = Node(socket)
        gateway.epoch += 1
        welcome = Welcome(session_uid=uuid4(), epoch=gateway.epoch, heartbeat_s=10, server_time=datetime.now(UTC))
        await socket.send_text(welcome.model_dump_json())
        try:
            while True:
                message = await socket.receive()
                if message["type"] == "websocket.disconnect":
                    return
                if (text := message.get("text")) is not None:
                    await gateway.take(node, from_node.validate_json(text))
                else:
                    gateway.take_chunk(node, message["bytes"])
        except WebSocketDisconnect:
            return
        finally:
            if gateway.nodes.get(hello.install_id) is node:
                del gateway.nodes[hello.install_id]

    @app.websocket("/internal/ws/stream")
    async def stream(socket: WebSocket) -> None:
        await socket.accept()
        gateway.subscribers.append(socket)
        try:
            while True:
                frame = Ping.model_validate_json(await socket.receive_text())
                await socket.send_text(Pong(id=frame.id).model_dump_json())
        except WebSocketDisconnect:
            return
        finally:
            gateway.subscribers.remove(socket)

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
    """Arguments: the amount of work, and for `same-duties` the folder of the development key."""
    tokens = Tokens(Path(sys.argv[2]) if sys.argv[1] == SAME_DUTIES else None)
    sock = listening()
    say_ready(sock.getsockname()[1])
    fastest(make_app(tokens), ws=FASTEST_WS).run(sockets=[sock])


if __name__ == "__main__":
    main()
