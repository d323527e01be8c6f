"""`GET /internal/assets/{id}/content` as plain ASGI: bytes as they are read, here or at the asset's node (contract §6).

Not a Quart view, for the reasons of `direct.py`: what fails midway never ends cleanly, and a caller who leaves cancels
what is done for it.
"""

import base64
import re
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import asynccontextmanager
from hashlib import sha256
from urllib.parse import quote

import trio

from skygw.auth.principals import Scope
from skygw.control.asset_calls import AssetCalls
from skygw.errors import BadResponse, GatewayError, Hop, Invalid, NotFound, Reached, StorageFailed
from skygw.observability.tracing import Trace
from skygw.observing.assets import Asset, AssetService
from skygw.observing.byte_store import ByteStore
from skygw.routers.asset_routes import CONTENT_ROUTE
from skygw.routers.bare_asgi import Receive, Send, answer_method, refuse
from skygw.routers.byte_ranges import ByteRange, NotSatisfiable, asked_range, names, names_strongly
from skygw.routers.direct import PASSED_TYPES
from skygw.routers.gates import InternalGate, headers_of
from skygw.routers.gates import Scope as AsgiScope
from skygw.routers.problems import JSON_TYPE, problem
from skygw.serving.handle import EXTENSION, ConnectionHandle

PATH = re.compile(r"/internal/assets/(?P<id>[^/]+)/content/?")

Headers = list[tuple[bytes, bytes]]


class AssetContentRouter:
    """Answers for assets whose bytes are here from `files`, for the others from their nodes."""

    route = CONTENT_ROUTE

    def __init__(self, *, gate: InternalGate, assets: AssetService, files: ByteStore, calls: AssetCalls) -> None:
        self._gate = gate
        self._assets = assets
        self._files = files
        self._calls = calls

    def matches(self, scope: AsgiScope) -> bool:
        return scope["type"] == "http" and PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - there is no body
        """One request. Cancelling it, as its caller's leaving does at any moment, ends what it reads. The last piece is
        held back until all are known to be right.
        """
        handle: ConnectionHandle = scope["extensions"][EXTENSION]
        with trio.CancelScope() as handle.cancel_when_peer_leaves:
            await self._answer(scope, send)

    async def _answer(self, scope: AsgiScope, send: Send) -> None:
        if scope["method"] not in ("GET", "HEAD"):
            await answer_method(
                send, scope["method"], allow="GET, HEAD, OPTIONS", sentence="An asset is read with GET."
            )
            return
        try:
            principal = await self._gate.service(scope)
            principal.require(Scope.ASSETS_READ)
            if scope["query_string"]:
                raise Invalid("No query parameters are known here.")
            match = PATH.fullmatch(scope["path"])
            asset = await self._assets.get("" if match is None else match["id"])
        except GatewayError as error:
            await refuse(send, error, None)
            return
        etag, size = f'"{asset.declared.sha256}"', asset.declared.size
        if (wanted := _field(scope, b"if-match")) is not None and not names_strongly(wanted, etag):
            await _say(send, 412, "The asset's bytes are others than those named in If-Match.", [])
            return
        headers = _headers(asset, etag)
        if (known := _field(scope, b"if-none-match")) is not None and names(known, etag):
            await send({"type": "http.response.start", "status": 304, "headers": headers})
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        try:
            part = asked_range(_field(scope, b"range"), if_range=_field(scope, b"if-range"), etag=etag, size=size)
        except NotSatisfiable:
            sentence = f"The asset has {size} bytes, and none where they were asked for."
            await _say(send, 416, sentence, [(b"content-range", b"bytes */%d" % size)])
            return
        whole = part is None
        part = part or ByteRange(0, size)
        headers += _about_body(asset, part, whole=whole)
        head = {"type": "http.response.start", "status": 200 if whole else 206, "headers": headers}
        if scope["method"] == "HEAD":
            await send(head)
            await send({"type": "http.response.body", "body": b"", "more_body": False})
            return
        await self._carry(asset, part, head, principal.service, scope, send)

    async def _carry(
        self, asset: Asset, part: ByteRange, head: Mapping[str, object], service: str, scope: AsgiScope, send: Send
    ) -> None:
        started = False
        found = sha256()
        left = part.length
        held = b""
        try:
            async with self._opened(asset, part, service, scope) as (pieces, digest):
                async for piece in pieces:
                    left -= len(piece)
                    if left < 0:
                        break
                    if digest is not None:
                        found.update(piece)
                    if held:
                        if not started:  # what fails before its first byte is still answered with the reason
                            started = True
                            await send(head)
                        await send({"type": "http.response.body", "body": held, "more_body": True})
                    held = piece
                if left != 0:
                    raise StorageFailed("The bytes of this asset are not as many as they were.")
                if digest not in (None, found.hexdigest()):
                    raise BadResponse(
                        "The node's bytes are not those it declared: their SHA-256 is another.",
                        hop=Hop.NODE,
                        reached=Reached.RUNNING,
                    )
                if not started:
                    started = True
                    await send(head)
                await send({"type": "http.response.body", "body": held, "more_body": False})
        except GatewayError as error:
            if started:
                scope["extensions"][EXTENSION].abort()
            else:
                await refuse(send, error, None)

    @asynccontextmanager
    async def _opened(
        self, asset: Asset, part: ByteRange, service: str, scope: AsgiScope
    ) -> AsyncIterator[tuple[AsyncIterator[bytes], str | None]]:
        """The bytes, and the digest they have to have, if that can be told of them here."""
        if asset.stored:
            try:
                async with self._files.read(asset.content, start=part.offset, length=part.length) as pieces:
                    yield pieces, None
            except NotFound as error:
                raise StorageFailed("The bytes of this asset cannot be read now.") from error
            return
        trace = Trace.parent(_field(scope, b"traceparent")).traceparent
        call = self._calls.read(asset, offset=part.offset, length=part.length, service=service, traceparent=trace)
        async with call as answer:
            if answer.start.total_size != part.length:
                raise BadResponse(
                    f"The node would send {answer.start.total_size} bytes, and not the {part.length} that it declared.",
                    hop=Hop.NODE,
                    reached=Reached.RUNNING,
                )
            yield answer, asset.declared.sha256 if part.length == asset.declared.size else None


def _field(scope: AsgiScope, name: bytes) -> str | None:
    values = headers_of(scope, name)
    return ", ".join(values) if values else None


def _headers(asset: Asset, etag: str) -> Headers:
    """Of every answer about the bytes."""
    # What is verified stays as it is; what lies at a node, or has failed, may be another tomorrow.
    keep = b"private, max-age=31536000, immutable" if asset.verified_at is not None else b"no-store"
    return [
        (b"etag", etag.encode()),
        (b"accept-ranges", b"bytes"),
        (b"cache-control", keep),
        (b"x-skygw-source", b"hub" if asset.stored else b"node"),
    ]


def _about_body(asset: Asset, part: ByteRange, *, whole: bool) -> Headers:
    content_type = asset.declared.content_type
    digest = base64.b64encode(bytes.fromhex(asset.declared.sha256))
    return [
        (b"content-type", content_type.encode() if content_type in PASSED_TYPES else b"application/octet-stream"),
        (b"content-length", b"%d" % part.length),
        # Of the whole, also beside a part of it (RFC 9530 §3).
        (b"repr-digest", b"sha-256=:" + digest + b":"),
        (b"content-disposition", b"attachment; filename*=UTF-8''" + quote(asset.declared.file_name, safe="").encode()),
        (b"x-content-type-options", b"nosniff"),
        (b"content-security-policy", b"sandbox; default-src 'none'"),
        *([] if whole else [(b"content-range", part.content_range(asset.declared.size).encode())]),
    ]


async def _say(send: Send, status: int, sentence: str, headers: Sequence[tuple[bytes, bytes]]) -> None:
    _, _, body = problem(Invalid(sentence))
    told = [(b"content-type", JSON_TYPE.encode()), (b"content-length", b"%d" % len(body)), *headers]
    await send({"type": "http.response.start", "status": status, "headers": told})
    await send({"type": "http.response.body", "body": body, "more_body": False})
