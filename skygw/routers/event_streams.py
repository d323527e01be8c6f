"""`GET /internal/streams/{stream}`: one subscription as Server-Sent Events (WHATWG HTML, «Server-sent events»).

Plain ASGI, because the answer outlives a handler: one block owns the subscription from the request to the last byte,
and leaving it, however that happens, frees it. Who reads slowly is told less often; who does not read at all is cut by
the listener's send deadline.
"""

import re
from collections.abc import Iterator
from time import time
from typing import Any
from urllib.parse import parse_qsl

import trio
from pydantic.alias_generators import to_camel

from skygw.auth.principals import Scope
from skygw.errors import GatewayError, Invalid, NotFound
from skygw.observability.logs import bound_ids
from skygw.protocol.json_text import Opaque
from skygw.protocol.streams import StreamFilter, StreamName, StreamOptions, SubscribeStream
from skygw.routers.bare_asgi import Receive, Send, answer_method, refuse
from skygw.routers.gates import InternalGate, headers_of
from skygw.routers.gates import Scope as AsgiScope
from skygw.routers.schemas import as_spelled, invalid
from skygw.routers.service_sockets import SubscriberMetrics
from skygw.serving.handle import EXTENSION, ConnectionHandle
from skygw.telemetry.dialects import TextDialect
from skygw.telemetry.hub import StreamHub
from skygw.telemetry.logged_subscription import LoggedSubscription
from skygw.telemetry.outlet import SubscriberOutlet

EVENT_STREAM_ROUTE = "/internal/streams/<stream>"
PATH = re.compile(r"/internal/streams/(?P<stream>[^/]+)/?")

SUBSCRIPTION_ID = "sse"
"""There is one in each answer."""

RETRY_MS = 2_000
"""After what time a client comes back when the answer has ended."""

HEAD = (
    (b"content-type", b"text/event-stream"),
    (b"cache-control", b"no-store"),
    (b"x-accel-buffering", b"no"),
    (b"x-content-type-options", b"nosniff"),
)
"""The third keeps nginx, and who does as it does, from collecting what should go on at once."""

_FILTERS = {to_camel(name): name for name in StreamFilter.model_fields}
_OPTIONS = {to_camel(name): name for name in StreamOptions.model_fields}
_LISTS = {*_FILTERS, "fields"}
_LINE_END = re.compile(r"\r\n|\r|\n")


class SseDialect(TextDialect):
    """camelCase, `event:` the kind and `id:` the position, so that a client that comes back says where it was."""

    def _framed(self, kind: str, position: str | None, text: str) -> str:
        if "\n" in text or "\r" in text:
            # Between the members of an object a node may break lines; the client puts LF where a line ended.
            text = "\ndata: ".join(_LINE_END.split(text))
        place = "" if position is None else f"id: {position}\n"
        return f"event: {kind}\n{place}data: {text}\n\n"


SERVER_SENT = SseDialect(camel=True)
"""One for all answers: what is the same for everybody is then written once."""


class EventStreamRouter:
    """Wants a service token with `streams:read`."""

    route = EVENT_STREAM_ROUTE

    def __init__(self, *, gate: InternalGate, hub: StreamHub, metrics: SubscriberMetrics) -> None:
        self._gate = gate
        self._hub = hub
        self._metrics = metrics

    def matches(self, scope: AsgiScope) -> bool:
        return scope["type"] == "http" and PATH.fullmatch(scope["path"]) is not None

    async def __call__(self, scope: AsgiScope, receive: Receive, send: Send) -> None:  # noqa: ARG002 - a GET has no body
        """One answer. It is cancelled as soon as its caller has left."""
        handle: ConnectionHandle = scope["extensions"][EXTENSION]
        with trio.CancelScope() as handle.cancel_when_peer_leaves:
            await self._answer(scope, send)

    async def _answer(self, scope: AsgiScope, send: Send) -> None:
        if scope["method"] not in {"GET", "HEAD"}:
            await answer_method(send, scope["method"], allow="GET, HEAD, OPTIONS", sentence="A stream is read by GET.")
            return
        try:
            principal = await self._gate.service(scope)
            principal.require(Scope.STREAMS_READ)
            asked = asked_by(scope)
            outlet = SubscriberOutlet(SERVER_SENT, owner=principal.service, max_subscriptions=1)
            subscription = self._hub.subscribe(outlet, asked)
        except GatewayError as error:
            await refuse(send, error, None)
            return
        self._metrics.subscriber_came("sse")
        try:
            if fits_nothing(asked):
                await send({"type": "http.response.start", "status": 204, "headers": []})
            else:
                await send({"type": "http.response.start", "status": 200, "headers": list(HEAD)})
                if scope["method"] == "GET":
                    with bound_ids(service=principal.service):
                        async with trio.open_nursery() as nursery:
                            if isinstance(subscription, LoggedSubscription):
                                nursery.start_soon(subscription.run, self._hub.log, self._hub.feed.position)
                            await _tell(outlet, send, expires_at=principal.expires_at)
                            nursery.cancel_scope.cancel()
            await send({"type": "http.response.body", "body": b"", "more_body": False})
        finally:
            outlet.close()
            self._metrics.subscriber_left("sse")


async def _tell(outlet: SubscriberOutlet, send: Send, *, expires_at: float) -> None:
    """Until the subscription has ended, or the token (`expires_at` in seconds of the epoch).

    The next messages are made when those before have been handed to the kernel. Only the wait for them ends at a
    deadline: half an event must not be left behind.
    """
    await _write(send, f"retry: {RETRY_MS}\n\n")
    while len(outlet):
        batch: list[str] = []
        with trio.move_on_after(max(0.0, expires_at - time())):
            batch = await outlet.next_texts()
        if not batch:
            await _write(send, ": the token has expired; come back with a newer one\n\n")
            return
        await _write(send, "".join(batch))


async def _write(send: Send, text: str) -> None:
    await send({"type": "http.response.body", "body": text.encode(), "more_body": True})


# What is asked for.


def asked_by(scope: AsgiScope) -> SubscribeStream:
    """What the path, the query and `Last-Event-ID` ask for. Raises `NotFound` and `Invalid`."""
    match = PATH.fullmatch(scope["path"])
    name = "" if match is None else match["stream"]
    if name not in set(StreamName):
        raise NotFound(f"There is no stream {name[:64]!r}; known: {', '.join(StreamName)}.")
    filters: dict[str, list[str]] = {}
    options: dict[str, Any] = {}
    for key, value in _parameters(scope["query_string"]):
        if key in _FILTERS:
            filters.setdefault(_FILTERS[key], []).extend(_listed(value))
        elif key in _LISTS:
            options.setdefault(_OPTIONS[key], []).extend(_listed(value))
        elif key not in _OPTIONS:
            named = ", ".join(sorted({*_FILTERS, *_OPTIONS}))
            raise invalid(f"The query parameter {key[:64]!r} is not known here; known: {named}.", "query", key[:64])
        elif _OPTIONS[key] in options:
            raise invalid(f"The query parameter {key} stands twice.", "query", key)
        else:
            options[_OPTIONS[key]] = value
    places = [place for place in headers_of(scope, b"last-event-id") if place]
    if len(places) > 1:
        raise Invalid("More than one Last-Event-ID header was sent.")
    if places:
        options["after"] = places[0]
    asked = SubscribeStream(
        subscription_id=SUBSCRIPTION_ID,
        stream=StreamName(name),
        filter=Opaque.of(filters),
        options=Opaque.of(options),
    )
    try:
        asked.asked_filter()
        asked.asked_options()
    except Invalid as error:
        fields = [{**field, "loc": ["query", *as_spelled(field["loc"])]} for field in error.fields]
        raise Invalid(error.message, fields=fields) from None
    return asked


def fits_nothing(asked: SubscribeStream) -> bool:
    """Whether a filter key has no values, so that nothing will ever come."""
    return any(value == () for value in dict(asked.asked_filter()).values())


def _parameters(query: bytes) -> Iterator[tuple[str, str]]:
    try:
        pairs = parse_qsl(query.decode("ascii"), keep_blank_values=True, errors="strict")
        for key, value in pairs:
            Opaque.of([key, value])  # U+0000, which JSON here may not carry
            yield key, value
    except ValueError:
        raise Invalid("The query string holds what is no text.") from None


def _listed(value: str) -> list[str]:
    return [item for item in value.split(",") if item]
