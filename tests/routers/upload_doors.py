"""The door of uploads on a real listener: two installations, a directory, and a store that remembers."""

import json
from collections.abc import AsyncIterator, Callable, Collection, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from hashlib import sha256
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import trio

from skygw.auth.principals import NodePrincipal, ServicePrincipal
from skygw.errors import Unauthenticated
from skygw.ids import InstallId, TelescopeUid, UploadUid
from skygw.nodes.ports import Binding
from skygw.observing.byte_store import MIB
from skygw.observing.upload_store import Quota, Upload
from skygw.observing.uploads import UploadRules, Uploads, content_of
from skygw.protocol.node_frames import NodeType
from skygw.routers.apps import node_app
from skygw.routers.gates import NodeGate
from skygw.routers.upload_dialects import UPLOADS_PATH
from skygw.routers.uploads import UploadRouter
from skygw.storage.local import LocalStore
from tests.fakes.memory_uploads import MemoryUploads
from tests.serving.served import PATIENCE_S, Peer, Served, serving
from tests.storage.contract import all_of

SITE = InstallId(UUID("00000000-0000-4000-8000-000000000001"))
OTHER = InstallId(UUID("00000000-0000-4000-8000-000000000002"))
MINE = "site"
TOKENS = {MINE: SITE, "other": OTHER}

RULES = UploadRules(
    max_bytes=256 * MIB,
    unsized_max_bytes=4 * MIB,
    quota=Quota(bytes=512 * MIB, uploads=50),
    keep_s=3_600.0,
    spare_bytes=0,
)


@dataclass
class Record:
    """`InstallationRecord` of one that may connect, until the test says otherwise."""

    binding: Binding
    id: int = 1
    telescope_uid: TelescopeUid | None = None
    refusal: str | None = None


class Hub:
    """The hub's word on two installations, and their tokens."""

    def __init__(self) -> None:
        self.records = {
            install_id: Record(
                Binding(install_id, "Ridge", NodeType.TELESCOPE, uuid4(), telescopes=frozenset(), devices=frozenset())
            )
            for install_id in TOKENS.values()
        }

    async def node(self, token: str) -> NodePrincipal:
        if token not in TOKENS:
            raise Unauthenticated("The token does not hold.")
        return NodePrincipal(TOKENS[token], 4e9, None)

    async def service(self, token: str) -> ServicePrincipal:
        raise Unauthenticated("This is no service's token.")

    def asks_issuer(self, token: str) -> bool:
        return False

    async def issuer_reachable(self) -> bool:
        return True

    async def find(self, install_id: InstallId) -> Record | None:
        return self.records.get(install_id)

    async def find_by_any(self, id_or_uid: str) -> Record | None:
        return self.records.get(InstallId(UUID(id_or_uid)))

    async def list_page(self, *, page: int, size: int) -> tuple[Sequence[Record], int]:
        return list(self.records.values()), len(self.records)

    async def refused_among(self, install_ids: Collection[InstallId]) -> Collection[InstallId]:
        return []


@dataclass(frozen=True)
class Answer:
    """Header names are in lower case; of a header that was sent twice both values are there."""

    status: int
    headers: dict[str, str]
    body: bytes

    def problem(self) -> dict[str, Any]:
        """What a refusal says, which is always said in this way."""
        assert self.headers["content-type"] == "application/problem+json"
        found: dict[str, Any] = json.loads(self.body)
        assert found["status"] == self.status
        assert {"type", "title", "detail", "code", "outcome", "retry", "hop", "reached", "requestId"} <= set(found)
        assert isinstance(found["detail"], str)
        return found

    def kind(self) -> str:
        """The registered name of the problem."""
        return str(self.problem()["type"]).rpartition("#")[2]


async def read_answer(peer: Peer, *, method: str = "GET") -> Answer:
    """The next answer that is not interim. Status 0: the connection ended instead."""
    while True:
        lines = (await peer.read_until(b"\r\n\r\n")).decode("latin-1").split("\r\n")
        if lines == [""]:
            return Answer(0, {}, b"")
        status = int(lines[0].split(" ")[1])
        if status >= 200:
            break
    headers: dict[str, str] = {}
    for line in filter(None, lines[1:]):
        name, _, value = line.partition(":")
        name = name.lower()
        headers[name] = f"{headers[name]}, {value.strip()}" if name in headers else value.strip()
    has_body = method != "HEAD" and status != 204
    return Answer(status, headers, await peer.read_exactly(int(headers["content-length"])) if has_body else b"")


Field = tuple[str, str]


def request(method: str, path: str, *fields: Field, length: int | str | None = 0, token: str | None = MINE) -> bytes:
    """A request's head. `length` "chunked" says so, and `None` says nothing."""
    lines = [f"{method} {path} HTTP/1.1", "Host: here"]
    if token is not None:
        lines.append(f"Authorization: Bearer {token}")
    if length == "chunked":
        lines.append("Transfer-Encoding: chunked")
    elif length is not None:
        lines.append(f"Content-Length: {length}")
    lines += [f"{name}: {value}" for name, value in fields]
    return "\r\n".join([*lines, "", ""]).encode("latin-1")


def chunk(data: bytes) -> bytes:
    return b"%x\r\n%s\r\n" % (len(data), data)


@dataclass
class Doors:
    """`now` is the gateway's clock on the wall; `completed` are the uploads whose verifier was told."""

    served: Served
    uploads: Uploads
    store: MemoryUploads
    files: LocalStore
    hub: Hub
    folder: Path
    late: timedelta = timedelta(0)
    completed: list[Upload] = field(default_factory=list)

    async def ask(
        self,
        method: str,
        path: str = UPLOADS_PATH,
        *fields: Field,
        body: bytes = b"",
        chunked: bool = False,
        token: str | None = MINE,
    ) -> Answer:
        """On a connection of its own."""
        async with self.served.peer() as peer:
            head = request(method, path, *fields, length="chunked" if chunked else len(body), token=token)
            sent = (chunk(body) if body else b"") + b"0\r\n\r\n" if chunked else body
            await send_on(peer, head + sent)
            return await read_answer(peer, method=method)

    def upload(self, path: str) -> Upload:
        return self.store.rows[UploadUid(UUID(path.rpartition("/")[2]))]

    def on_disk(self, path: str) -> bytes:
        return (self.folder / "parts" / path.rpartition("/")[2]).read_bytes()

    async def content(self, path: str) -> bytes:
        key = content_of(self.upload(path))
        found = await all_of(self.files.read(key, start=0, length=key.size))
        assert sha256(found).hexdigest() == key.sha256
        return found

    async def until(self, is_so: Callable[[], bool]) -> None:
        with trio.fail_after(PATIENCE_S):
            while not is_so():  # noqa: ASYNC110 - the store is not asked to tell anybody
                await trio.sleep(0.005)


async def send_on(peer: Peer, data: bytes) -> None:
    """As far as it is taken: who is refused may be refused before all is sent."""
    with trio.fail_after(PATIENCE_S):
        try:
            await peer.stream.send_all(data)
        except trio.BrokenResourceError:
            return


@asynccontextmanager
async def upload_doors(folder: Path, *, rules: UploadRules = RULES, **listener: Any) -> AsyncIterator[Doors]:
    hub, store, files = Hub(), MemoryUploads(), LocalStore(folder)
    gate = NodeGate(verifier=hub, directory=hub, trusted_proxies=())
    found: list[Doors] = []

    def now() -> datetime:
        return datetime.now(UTC) + (found[0].late if found else timedelta(0))

    uploads = Uploads(
        store=store, files=files, rules=rules, now=now, completed=lambda upload: found[0].completed.append(upload)
    )
    app = node_app([], [UploadRouter(gate=gate, uploads=uploads)], count=lambda *_: None, surprised=lambda: None)
    async with serving(app, **listener) as served:
        found.append(Doors(served, uploads, store, files, hub, folder))
        yield found[0]
