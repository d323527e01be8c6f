"""The gateway's HTTP door for nodes, over real sockets, as the contract has it; what goes wrong is up to the test."""

import base64
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from hashlib import sha256
from typing import Any
from uuid import uuid4

import h11
import trio

RECEIVE_BYTES = 64 * 1024


@dataclass(frozen=True)
class Asked:
    """One request. `path` begins behind `/v1/nodes/`."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes = b""

    def json(self) -> Any:
        return json.loads(self.body)


@dataclass(frozen=True)
class Answer:
    status: int
    body: dict[str, Any] | None = None
    headers: dict[str, str] = field(default_factory=dict)


class Cut(Exception):
    """Raised by a fault: the connection ends here, without an answer."""


Fault = Callable[[Asked], Answer | None]


def refusal(status: int, code: str | None, *, retry: str = "never", retry_after_s: int | None = None) -> Answer:
    """A problem as the gateway says it; without a code, as a proxy would."""
    body = None if code is None else {"detail": f"No: {code}.", "code": code, "outcome": "not_sent", "retry": retry}
    return Answer(status, body, {} if retry_after_s is None else {"retry-after": str(retry_after_s)})


@dataclass
class Bytes:
    """An upload."""

    asset_uid: str
    size: int
    sha256: str
    held: bytearray = field(default_factory=bytearray)


class FakeHub:
    """What it holds survives cut connections and `close`, as a database does."""

    def __init__(self) -> None:
        self.port = 0
        self.asked: list[Asked] = []
        """Every request whose body came whole, in order."""
        self.effects: list[tuple[str, str, dict[str, Any]]] = []
        """(task, kind, body) of each report, once."""
        self.assets: dict[str, dict[str, Any]] = {}
        """By uid: the declaration, and `transferState`."""
        self.uploads: dict[str, Bytes] = {}
        self.before: Fault | None = None
        """Asked first: it may answer in the hub's place, or raise `Cut`."""
        self.after: Fault | None = None
        """Asked when the effect is there: `Cut` loses the answer."""
        self.cut_bodies_at: list[int] = []
        """The next uploads end after so many bytes of their body."""
        self.directive = "continue"
        self.wanted: set[str] = set()
        """Remote assets whose bytes are wanted now."""
        self._answers: dict[str, tuple[bytes, Answer]] = {}
        self._declared: dict[bytes, str] = {}
        self._listening: trio.CancelScope | None = None

    @property
    def socket_url(self) -> str:
        return f"ws://127.0.0.1:{self.port}/v1/ws/node"

    def kinds(self, task: object) -> list[str]:
        return [kind for of, kind, _ in self.effects if of == str(task)]

    def asset(self, upload: Bytes) -> dict[str, Any]:
        return self.assets[upload.asset_uid]

    # HTTP.

    async def serve(self, stream: trio.SocketStream) -> None:
        connection = h11.Connection(h11.SERVER)
        try:
            while True:
                asked = await self._request(connection, stream)
                if asked is None:
                    return
                self.asked.append(asked)
                answer = (self.before and self.before(asked)) or self._answer(asked)
                answer = (self.after and self.after(asked)) or answer
                await self._send(connection, stream, answer, head=asked.method == "HEAD")
                connection.start_next_cycle()
        except (Cut, trio.BrokenResourceError, h11.RemoteProtocolError):
            return

    async def _request(self, connection: h11.Connection, stream: trio.SocketStream) -> Asked | None:
        head: h11.Request | None = None
        body = b""
        cut_at: int | None = None
        while True:
            event = connection.next_event()
            if event is h11.NEED_DATA:
                connection.receive_data(await stream.receive_some(RECEIVE_BYTES))
            elif isinstance(event, h11.Request):
                head = event
                cut_at = self.cut_bodies_at.pop(0) if event.method == b"PATCH" and self.cut_bodies_at else None
            elif isinstance(event, h11.Data):
                body += bytes(event.data)
                if cut_at is not None and len(body) >= cut_at:
                    raise Cut
            elif isinstance(event, h11.EndOfMessage):
                assert head is not None
                path = head.target.decode().removeprefix("/v1/nodes/")
                headers = {name.decode(): value.decode() for name, value in head.headers}
                return Asked(head.method.decode(), path, headers, body)
            else:
                return None

    async def _send(self, connection: h11.Connection, stream: trio.SocketStream, answer: Answer, *, head: bool) -> None:
        content = b"" if answer.body is None or head else json.dumps(answer.body).encode()
        headers = [*answer.headers.items(), ("content-type", "application/json")]
        if answer.status != 204:
            headers.append(("content-length", str(len(content))))
        out = connection.send(h11.Response(status_code=answer.status, headers=headers)) or b""
        out += (connection.send(h11.Data(data=content)) or b"") + (connection.send(h11.EndOfMessage()) or b"")
        await stream.send_all(out)

    # What it does.

    def _answer(self, asked: Asked) -> Answer:
        parts = asked.path.partition("?")[0].split("/")
        match [asked.method, *parts]:
            case ["GET", "me", "tasks"]:
                return Answer(200, {"items": [], "asked": asked.path})
            case ["POST", "me", "tasks", "claim"]:
                return Answer(200, {"tasks": [{"uid": str(uuid4()), "claimUid": asked.json()["claimUid"]}]})
            case ["POST", "me", "tasks", task, "release"]:
                return Answer(200, {"uid": task})
            case ["POST", "me", "tasks", task, kind]:
                return self._report(task, kind, asked)
            case ["POST", "me", "assets"]:
                return self._declare(asked)
            case ["GET", "me", "assets", uid] if uid in self.assets:
                return Answer(200, self.assets[uid])
            case ["HEAD" | "PATCH", "me", "uploads", uid] if uid in self.uploads:
                assert asked.headers["tus-resumable"] == "1.0.0"
                upload = self.uploads[uid]
                if asked.method == "PATCH":
                    return self._append(upload, asked)
                return Answer(200, None, {"upload-offset": str(len(upload.held))})
        return refusal(404, "not_found")

    def _report(self, task: str, kind: str, asked: Asked) -> Answer:
        uid = asked.json()["reportUid"]
        if uid in self._answers:
            body, answer = self._answers[uid]
            return answer if body == asked.body else refusal(409, "id_reused")
        self.effects.append((task, kind, asked.json()))
        answer = Answer(200, {"directive": self.directive, "reason": "because"} if kind == "progress" else {})
        self._answers[uid] = (asked.body, answer)
        return answer

    def _declare(self, asked: Asked) -> Answer:
        declaration = asked.json()
        uid = self._declared.setdefault(asked.body, str(uuid4()))
        asset = self.assets.setdefault(uid, {**declaration, "uid": uid, "transferState": "pending"})
        if (declaration.get("isRemote") and uid not in self.wanted) or asset["transferState"] == "completed":
            return Answer(200, {"asset": asset})
        self.uploads.setdefault(uid, Bytes(uid, declaration["size"], declaration["sha256"]))
        url = f"http://elsewhere.example:1/v1/nodes/me/uploads/{uid}"
        return Answer(201, {"asset": asset, "upload": {"url": url, "offset": len(self.uploads[uid].held)}})

    def _append(self, upload: Bytes, asked: Asked) -> Answer:
        if int(asked.headers["upload-offset"]) != len(upload.held):
            return refusal(409, None)
        algorithm, digest = asked.headers["upload-checksum"].split()
        assert algorithm == "sha256"
        if base64.b64decode(digest) != sha256(asked.body).digest():
            return refusal(460, None)
        upload.held += asked.body
        if len(upload.held) == upload.size:
            whole = sha256(upload.held).hexdigest() == upload.sha256
            self.asset(upload)["transferState"] = "completed" if whole else "failed"
            self.asset(upload)["transferError"] = None if whole else "The digest differs."
        return Answer(204, None, {"upload-offset": str(len(upload.held))})

    # Whether it is there.

    def close(self) -> None:
        """Nobody listens, and every connection is cut, as when the process is killed."""
        assert self._listening is not None
        self._listening.cancel()

    async def listen(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Until `close`; the second time on the same port."""
        with trio.CancelScope() as self._listening:
            listeners = await trio.open_tcp_listeners(self.port, host="127.0.0.1")
            self.port = listeners[0].socket.getsockname()[1]
            await trio.serve_listeners(self.serve, listeners, task_status=_Started(task_status))


class _Started:
    """Passes on that it has started, and not the listeners."""

    def __init__(self, task_status: trio.TaskStatus[None]) -> None:
        self._task_status = task_status

    def started(self, _: object = None) -> None:
        self._task_status.started()


@asynccontextmanager
async def fake_hub() -> AsyncIterator[FakeHub]:
    """Listens on a free port of the loopback until the block is left."""
    hub = FakeHub()
    async with trio.open_nursery() as nursery:
        await nursery.start(hub.listen)
        yield hub
        nursery.cancel_scope.cancel()
