"""`POST /internal/nodes/{id}/direct` as plain ASGI: the node's answer is streamed as it comes (contract §6).

Not a Quart view, because the answer outlives the handler there: here one block owns the call from the request to the
last byte, and leaving it, however that happens, frees the slot and cancels at the node. An answer that fails midway
never ends cleanly: the connection is reset.
"""

import json
import re
from typing import Any
from uuid import uuid4

import trio

from skygw.auth.principals import Actor, Scope, actor_for
from skygw.control.direct_rpc import DirectAnswer, DirectOrder, DirectRpc
from skygw.control.order import Budget
from skygw.errors import GatewayError, NotFound, TooLarge
from skygw.ids import InstallId, RequestId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.ports import InstallationDirectory
from skygw.observability.tracing import Trace
from skygw.routers.bare_asgi import Receive, Send, answer_method, refuse
from skygw.routers.gates import InternalGate, headers_of
from skygw.routers.gates import Scope as AsgiScope
from skygw.routers.lookup import find_install_id
from skygw.routers.schemas import MAX_BODY_BYTES, DirectBody, read_body
from skygw.serving.handle import EXTENSION, ConnectionHandle

DIRECT_ROUTE = "/internal/nodes/<id>/direct"
PATH = re.compile(r"/internal/nodes/(?P<id>[^/]+)/direct/?")

PASSED_TYPES = frozenset(
    {
        "application/json",
        "application/octet-stream",
        "application/fits",
        "image/fits",
        "image/jpeg",
        "image/png",
        "text/plain",
        "text/plain; charset=utf-8",
    }
)
"""What a node may call its answer; anything else, and anything a browser would run, is `application/octet-stream`."""

ALWAYS_SAID = (
    (b"x-content-type-options", b"nosniff"),
    (b"content-security-policy", b"sandbox; default-src 'none'"),
    (b"cache-control", b"no-store"),
)

MAX_METADATA_CHARS = 4_096


class CallerGone(Exception):
    """The caller closed its connection."""


class DirectRouter:
    """Answers direct requests. `budget` bounds what callers may ask for."""

    route = DIRECT_ROUTE

    def __init__(
        self,
        *,
        gate: InternalGate,
        rpc: DirectRpc,
        registry: ConnectionRegistry,
        directory: InstallationDirectory,
        budget: Budget,
    ) -> None:
        self._gate = gate
        self._rpc = rpc
        self._registry = registry
        self._directory = directory
        self._budget = budget

    def matches(self, scope: AsgiScope) -> bool:
        """Whether this path is ours, whatever the method: Quart knows nothing of it."""
        return scope["type"] == "http" and PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        """One request. Cancelling it, as its caller's leaving does at any moment, cancels the call at the node."""
        handle: ConnectionHandle = scope["extensions"][EXTENSION]
        with trio.CancelScope() as handle.cancel_when_peer_leaves:
            await self._answer(scope, receive, send)

    async def _answer(self, scope: AsgiScope, receive: Receive, send: Send) -> None:
        if scope["method"] != "POST":
            await answer_method(send, scope["method"], allow="OPTIONS, POST", sentence="A direct request is a POST.")
            return
        request_id: str | None = None
        try:
            principal = await self._gate.service(scope)
            principal.require(Scope.NODES_CALL)
            body = read_body(DirectBody, await _body(receive))
            request_id = body.request_id or str(uuid4())
            actor_for(principal, None if body.actor is None else Actor(body.actor.uid, body.actor.kind))
            install_id = await self._install_id(scope)
        except GatewayError as error:
            await refuse(send, error, request_id)
            return
        except CallerGone:
            return
        order = DirectOrder(
            install_id=install_id,
            operation=body.operation,
            params=body.params,
            timeout_s=self._budget.of(body.timeout_s),
            connect_wait_s=body.connect_wait_s,
            offset=body.offset,
            length=body.length,
            if_digest=body.if_digest,
            service=principal.service,
            request_id=RequestId(request_id),
            traceparent=Trace.parent(next(iter(headers_of(scope, b"traceparent")), None)).traceparent,
        )
        await self._carry(order, scope, send)

    async def _install_id(self, scope: AsgiScope) -> InstallId:
        match = PATH.fullmatch(scope["path"])
        if match is None:
            raise NotFound("No such path.")
        return await find_install_id(match["id"], registry=self._registry, directory=self._directory)

    async def _carry(self, order: DirectOrder, scope: AsgiScope, send: Send) -> None:
        started = False
        try:
            async with self._rpc.call(order) as answer:
                async for piece in answer:
                    if not started:  # what fails before its first byte is still answered with the reason
                        started = True
                        await send(_head(order, answer))
                    await send({"type": "http.response.body", "body": piece, "more_body": not answer.is_through})
                if not started:
                    started = True
                    await send(_head(order, answer))
                    await send({"type": "http.response.body", "body": b"", "more_body": False})
        except GatewayError as error:
            if started:
                scope["extensions"][EXTENSION].abort()
            else:
                await refuse(send, error, order.request_id)


def _head(order: DirectOrder, answer: DirectAnswer) -> dict[str, Any]:
    content_type = answer.start.content_type.strip().lower()
    headers = [
        (b"content-type", content_type.encode() if content_type in PASSED_TYPES else b"application/octet-stream"),
        *ALWAYS_SAID,
        (b"x-skygw-request-id", order.request_id.encode()),
        (b"x-skygw-epoch", b"%d" % answer.epoch),
    ]
    if answer.start.total_size is not None:
        headers.append((b"content-length", b"%d" % answer.start.total_size))
    if answer.start.metadata is not None:
        # ASCII, because a header is; JSON escapes carry the rest.
        headers.append((b"x-skygw-metadata", ascii_json(answer.start.metadata.value).encode()))
    return {"type": "http.response.start", "status": 200, "headers": headers}


def ascii_json(value: Any) -> str:
    """JSON in one header line; longer than a header may be, it is left out rather than cut."""
    text = json.dumps(value, separators=(",", ":"))
    return text if len(text) <= MAX_METADATA_CHARS else "null"


async def _body(receive: Receive) -> bytes:
    """The whole request body. Raises `TooLarge`, `CallerGone`."""
    body = bytearray()
    while True:
        event = await receive()
        if event["type"] == "http.disconnect":
            raise CallerGone
        body += event.get("body", b"")
        if len(body) > MAX_BODY_BYTES:
            raise TooLarge(f"The body is over {MAX_BODY_BYTES} bytes.")
        if not event.get("more_body", False):
            return bytes(body)
