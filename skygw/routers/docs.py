"""The API documents, made from the models the gateway itself reads and writes by; nothing is fetched from elsewhere."""

import html
import json
from collections.abc import Mapping
from dataclasses import dataclass
from functools import cache, partial
from typing import Any

import trio
from quart import Response
from quart_trio import QuartTrio

from skygw.errors import NotFound
from skygw.protocol.codec import from_commander, from_gateway, from_node, from_subscriber, to_commander, to_subscriber
from skygw.protocol.schemas import command_asyncapi, frame_schemas, node_asyncapi, stream_asyncapi
from skygw.routers.openapi import openapi, wire_path
from skygw.routers.problems import JSON_TYPE
from skygw.routers.route_table import INTERNAL_ROUTES, NODE_ROUTES

SCHEMA_TYPE = "application/schema+json"
NO_SCRIPTS = "default-src 'none'"


@dataclass(frozen=True)
class Library:
    """Every document as it is sent, by name; frames by direction."""

    index: str
    documents: Mapping[str, str]
    frames: Mapping[str, Mapping[str, str]]


@cache
def library(version: str, node_url: str | None, internal_url: str | None) -> Library:
    """Made once: it takes a tenth of a second. The URLs are the public ones, if any are set."""
    documents = {
        "openapi-node.json": openapi(
            NODE_ROUTES, title="SkyNode gateway: node HTTP", version=version, server_url=node_url
        ),
        "openapi-internal.json": openapi(
            INTERNAL_ROUTES, title="SkyNode gateway: internal HTTP", version=version, server_url=internal_url
        ),
        "asyncapi-node.json": node_asyncapi(server_url=node_url, version=version),
        "asyncapi-streams.json": stream_asyncapi(server_url=internal_url, version=version),
        "asyncapi-commands.json": command_asyncapi(server_url=internal_url, version=version),
    }
    written = _written(documents)
    frames = {
        direction: _written({f"{kind}.json": schema for kind, schema in frame_schemas(models).items()})
        for direction, models in (
            ("from_node", from_node.models),
            ("from_gateway", from_gateway.models),
            ("from_subscriber", from_subscriber.models),
            ("to_subscriber", to_subscriber.models),
            ("from_commander", from_commander.models),
            ("to_commander", to_commander.models),
        )
    }
    return Library(_index(written, frames), written, frames)


class DocsRouter:
    """`/docs/`: for the allowed networks, without a token, so that a browser can read them. They hold no secret."""

    def __init__(self, *, version: str, node_url: str | None, internal_url: str | None) -> None:
        self._library = partial(library, version, node_url, internal_url)

    def add_to(self, app: QuartTrio) -> None:
        app.add_url_rule("/docs/", "docs", self.index)
        app.add_url_rule("/docs/<document>", "docs_document", self.document)
        app.add_url_rule("/docs/frames/<direction>/<document>", "docs_frame", self.frame)

    async def index(self) -> Response:
        """`GET /docs/`."""
        headers = {"content-type": "text/html; charset=utf-8", "content-security-policy": NO_SCRIPTS}
        return Response((await self._made()).index, 200, headers)

    async def document(self, document: str) -> Response:
        """`GET /docs/{document}`."""
        return _found((await self._made()).documents, document, JSON_TYPE)

    async def frame(self, direction: str, document: str) -> Response:
        """`GET /docs/frames/{direction}/{kind}.json`."""
        return _found((await self._made()).frames.get(direction, {}), document, SCHEMA_TYPE)

    async def _made(self) -> Library:
        # In a thread, because the first time takes longer than a socket should wait.
        return await trio.to_thread.run_sync(self._library)


def _written(documents: Mapping[str, Any]) -> dict[str, str]:
    return {name: json.dumps(document, indent=1, ensure_ascii=False) for name, document in documents.items()}


def _found(documents: Mapping[str, str], name: str, content_type: str) -> Response:
    text = documents.get(name)
    if text is None:
        raise NotFound(f"There is no document {name[:64]!r} here.")
    return Response(text, 200, {"content-type": content_type})


def _index(documents: Mapping[str, str], frames: Mapping[str, Mapping[str, str]]) -> str:
    """One page that stands alone: links and lists, no style, no script."""
    parts = [
        "<!doctype html>",
        '<html lang="en"><meta charset="utf-8"><title>SkyNode gateway: API documents</title>',
        "<h1>SkyNode gateway: API documents</h1>",
        _links({name: f"/docs/{name}" for name in documents}),
    ]
    for direction, schemas in frames.items():
        parts.append(f"<h2>Frames {html.escape(direction.replace('_', ' '))}</h2>")
        parts.append(_links({name: f"/docs/frames/{direction}/{name}" for name in schemas}))
    for title, routes in (("Node listener", NODE_ROUTES), ("Internal listener", INTERNAL_ROUTES)):
        rows = "".join(
            f"<tr><td>{route.method}<td><code>{html.escape(wire_path(route.path))}</code>"
            f"<td>{html.escape(route.scope or route.access)}<td>{html.escape(route.says)}"
            for route in routes
        )
        parts.append(f"<h2>{title}</h2><table><tr><th>Method<th>Path<th>Needs<th>Does{rows}</table>")
    return "\n".join(parts) + "\n"


def _links(targets: Mapping[str, str]) -> str:
    items = "".join(f'<li><a href="{html.escape(url)}">{html.escape(name)}</a>' for name, url in targets.items())
    return f"<ul>{items}</ul>"
