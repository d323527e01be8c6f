"""`/v1/nodes/me/uploads` as plain ASGI: bodies of any size go to the disk as they come, in either dialect.

Not a Quart view, because Quart gathers a body faster than a disk takes it. Here the next piece is asked for when the
last one is written; the listener holds 256 KiB, and the kernel and the sender wait.
"""

import logging
import re
from uuid import UUID

from skygw.errors import GatewayError, Invalid, NotFound
from skygw.ids import InstallId, UploadUid
from skygw.observing.upload_errors import BodyCut, Superseded
from skygw.observing.upload_store import Upload
from skygw.observing.uploads import NO_SUCH_UPLOAD, Check, Uploads
from skygw.routers import ietf_uploads, tus
from skygw.routers.bare_asgi import Receive, Send
from skygw.routers.gates import NodeGate, Scope, headers_of
from skygw.routers.ietf_uploads import IetfUploads
from skygw.routers.tus import Tus
from skygw.routers.upload_dialects import UPLOADS_PATH, Asked, Dialect, Headers, upload_url
from skygw.routers.upload_problems import upload_problem, upload_status
from skygw.serving.handle import EXTENSION

log = logging.getLogger("skygw.routers")

_PATH = re.compile(rf"{UPLOADS_PATH}(?:/(?P<uid>[^/]+))?/?")
_UID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}")

_ALLOW_ALL = "OPTIONS, POST"
_ALLOW_ONE = "DELETE, HEAD, OPTIONS, PATCH"


class WrongMethod(Invalid):
    """This path does not take this method, but those in `allow`."""

    def __init__(self, message: str, *, allow: str) -> None:
        super().__init__(message)
        self.allow = allow


class UploadRouter:
    """Answers about uploads, to the installation whose they are and to nobody else."""

    route = UPLOADS_PATH

    def __init__(self, *, gate: NodeGate, uploads: Uploads) -> None:
        self._gate = gate
        self._uploads = uploads
        self._tus = Tus()
        self._ietf = IetfUploads(now=uploads.now)

    def matches(self, scope: Scope) -> bool:
        return scope["type"] == "http" and _PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """One request. Whom a newer one about the same upload overtakes is cut without an answer: its sender has given
        it up, or will ask how far it came.
        """
        asked = Asked(scope)
        dialect: Dialect = self._tus if headers_of(scope, b"tus-resumable") else self._ietf
        if scope["method"] == "OPTIONS":
            await self._tell_what_is_possible(scope, send)
            return
        try:
            await self._answer(asked, dialect, _Body(receive), send)
        except Superseded:
            log.info("an upload's request was overtaken by a newer one", extra={"path": scope["path"]})
            scope["extensions"][EXTENSION].abort()
        except BodyCut:
            pass  # there is nobody to answer

    async def _answer(self, asked: Asked, dialect: Dialect, body: "_Body", send: Send) -> None:
        made: Upload | None = None
        try:
            if asked.scope["query_string"]:
                raise Invalid("No query parameters are known here.")
            dialect.check(asked)
            method = dialect.method(asked, asked.scope["method"])
            principal = await self._gate.verified(asked.scope)
            await self._gate.admitted(principal)

            async def still_allowed() -> None:
                await self._gate.admitted(principal)

            match = _PATH.fullmatch(asked.scope["path"])
            text = None if match is None else match["uid"]
            if text is None:
                if method != "POST":
                    raise WrongMethod("An upload is asked for with POST.", allow=_ALLOW_ALL)
                creation = dialect.creation(asked)
                made = upload = await self._uploads.create(principal.install_id, creation.wanted)
                if creation.first is not None:
                    upload = await self._uploads.append(
                        principal.install_id, upload.uid, creation.first, body, still_allowed=still_allowed
                    )
                status, headers = dialect.created(upload, self._uploads.rules, first=creation.first)
            else:
                status, headers = await self._about_one(
                    asked, dialect, method, principal.install_id, _uid_of(text), body, still_allowed
                )
        except GatewayError as error:
            headers, text = self._refusal(error, dialect, made)
            if not body.is_read and asked.body_length != 0:
                headers.append(("connection", "close"))  # the rest of the body is not wanted
            await _send(send, _status(error, dialect), headers, text)
            return
        await _send(send, status, [*headers, *dialect.always()])

    async def _about_one(
        self,
        asked: Asked,
        dialect: Dialect,
        method: str,
        install_id: InstallId,
        uid: UploadUid,
        body: "_Body",
        still_allowed: Check,
    ) -> tuple[int, Headers]:
        match method:
            case "HEAD":
                return dialect.seen(await self._uploads.look(install_id, uid), self._uploads.rules)
            case "PATCH":
                append = dialect.append(asked)
                upload = await self._uploads.append(install_id, uid, append, body, still_allowed=still_allowed)
                return dialect.appended(upload, self._uploads.rules)
            case "DELETE":
                await self._uploads.end(install_id, uid)
                return 204, []
        raise WrongMethod("An upload takes HEAD, PATCH and DELETE.", allow=_ALLOW_ONE)

    def _refusal(self, error: GatewayError, dialect: Dialect, made: Upload | None) -> tuple[Headers, bytes]:
        """Its headers and body. `made` is an upload that was created before this went wrong: it can be gone on with."""
        headers, text = upload_problem(error, _status(error, dialect))
        headers += [*dialect.refused(error, self._uploads.rules), *dialect.always()]
        if made is not None:
            headers.append(("location", upload_url(made)))
        if isinstance(error, WrongMethod):
            headers.append(("allow", error.allow))
        return headers, text

    async def _tell_what_is_possible(self, scope: Scope, send: Send) -> None:
        rules = self._uploads.rules
        match = _PATH.fullmatch(scope["path"])
        is_one = match is not None and match["uid"] is not None
        headers = [("allow", _ALLOW_ONE if is_one else _ALLOW_ALL)]
        headers += tus.capabilities(rules) + self._tus.always() + ietf_uploads.capabilities(rules)
        await _send(send, 204, headers)


class _Body:
    """`Body` of one request."""

    def __init__(self, receive: Receive) -> None:
        self._receive = receive
        self.is_read = False

    async def next(self) -> bytes:
        while not self.is_read:
            event = await self._receive()
            if event["type"] == "http.disconnect":
                raise BodyCut
            self.is_read = not event.get("more_body", False)
            if piece := event.get("body", b""):
                return bytes(piece)
        return b""


def _uid_of(text: str) -> UploadUid:
    if _UID.fullmatch(text) is None:
        raise NotFound(NO_SUCH_UPLOAD)
    return UploadUid(UUID(text))


def _status(error: GatewayError, dialect: Dialect) -> int:
    return 405 if isinstance(error, WrongMethod) else dialect.status_of(error) or upload_status(error)


async def _send(send: Send, status: int, headers: Headers, body: bytes = b"") -> None:
    if status != 204:
        headers = [*headers, ("content-length", str(len(body)))]
    encoded = [(name.encode(), value.encode("latin-1")) for name, value in headers]
    await send({"type": "http.response.start", "status": status, "headers": encoded})
    await send({"type": "http.response.body", "body": body, "more_body": False})
