"""The API documents say what the routing tables hold, no more and no less, in the words of their standards."""

from collections.abc import Sequence
from typing import Any, cast

import jsonschema
import pytest
from quart_trio import QuartTrio

from skygw.routers.apps import Router
from skygw.routers.asset_routes import CONTENT_ROUTE
from skygw.routers.assets import InternalAssetRouter, NodeAssetRouter
from skygw.routers.command_socket import CommandSocketRouter
from skygw.routers.direct import DIRECT_ROUTE
from skygw.routers.docs import DocsRouter, library
from skygw.routers.event_streams import EVENT_STREAM_ROUTE
from skygw.routers.hardware import HardwareRouter
from skygw.routers.internal import InternalRouter
from skygw.routers.leases import LeaseRouter
from skygw.routers.node import NodeRouter
from skygw.routers.openapi import openapi
from skygw.routers.route import Access, Route
from skygw.routers.route_table import INTERNAL_ROUTES, NODE_ROUTES
from skygw.routers.streams import StreamRouter
from skygw.routers.system import HealthRouter, SystemRouter
from skygw.routers.tasks import TaskRouter
from skygw.routers.upload_dialects import UPLOADS_PATH
from skygw.routers.ws import SocketRouter
from tests.wire.samples import DIRECTIONS

NOTHING = cast("Any", None)
"""Stands where a router gets a service: its routes do not depend on it."""

LIBRARY = library("1.2.3", None, None)
NODE_ROUTERS: list[Router] = [
    HealthRouter(),
    NodeRouter(gate=NOTHING),
    TaskRouter(gate=NOTHING, tasks=NOTHING),
    HardwareRouter(gate=NOTHING, hardware=NOTHING),
    NodeAssetRouter(gate=NOTHING, assets=NOTHING),
    SocketRouter(gate=NOTHING, door=NOTHING, registry=NOTHING, metrics=NOTHING),
]
INTERNAL_ROUTERS: list[Router] = [
    HealthRouter(),
    SystemRouter(checks={}, metrics=NOTHING),
    DocsRouter(version="1.2.3", node_url=None, internal_url=None),
    StreamRouter(gate=NOTHING, hub=NOTHING, metrics=NOTHING),
    CommandSocketRouter(
        gate=NOTHING,
        hub=NOTHING,
        commands=NOTHING,
        leases=NOTHING,
        rpc=NOTHING,
        registry=NOTHING,
        directory=NOTHING,
        metrics=NOTHING,
        command_budget=NOTHING,
        direct_budget=NOTHING,
    ),
    LeaseRouter(gate=NOTHING, leases=NOTHING),
    InternalAssetRouter(gate=NOTHING, assets=NOTHING, calls=NOTHING),
    InternalRouter(
        gate=NOTHING,
        registry=NOTHING,
        directory=NOTHING,
        epochs=NOTHING,
        rpc=NOTHING,
        commands=NOTHING,
        snapshots=NOTHING,
        start_drain=NOTHING,
        budget=NOTHING,
    ),
]


def routed(routers: Sequence[Router]) -> set[tuple[str, str]]:
    app = QuartTrio("test", static_folder=None)
    for router in routers:
        router.add_to(app)
    return {
        (method, rule.rule)
        for rule in app.url_map.iter_rules()
        if not rule.websocket
        for method in (rule.methods or set()) - {"HEAD", "OPTIONS"}
    }


def told(routes: Sequence[Route]) -> set[tuple[str, str]]:
    return {(route.method, route.path) for route in routes}


def test_the_node_document_has_every_route_and_no_other() -> None:
    upload = f"{UPLOADS_PATH}/<uid>"
    uploads = {("POST", UPLOADS_PATH), ("OPTIONS", UPLOADS_PATH), *((it, upload) for it in ("HEAD", "PATCH", "DELETE"))}
    assert told(NODE_ROUTES) == routed(NODE_ROUTERS) | uploads


def test_the_internal_document_has_every_route_and_no_other() -> None:
    bare = {("POST", DIRECT_ROUTE), ("GET", EVENT_STREAM_ROUTE), ("GET", CONTENT_ROUTE)}
    assert told(INTERNAL_ROUTES) == routed(INTERNAL_ROUTERS) | bare


def test_every_route_under_internal_wants_a_token_and_names_its_scope() -> None:
    for route in INTERNAL_ROUTES:
        is_guarded = route.path.startswith("/internal/")
        assert (route.access is Access.SERVICE) is is_guarded
        assert (route.scope is not None) is is_guarded


@pytest.mark.parametrize("routes", [NODE_ROUTES, INTERNAL_ROUTES], ids=["node", "internal"])
def test_a_document_holds_together(routes: Sequence[Route]) -> None:
    document = openapi(routes, title="t", version="1", server_url=None)
    schemas = document["components"]["schemas"]
    for schema in schemas.values():
        jsonschema.Draft202012Validator.check_schema(schema)
    for reference in references(document):
        assert reference.removeprefix("#/components/schemas/") in schemas
    operations = [operation for path in document["paths"].values() for operation in path.values()]
    names = [operation["operationId"] for operation in operations]
    assert len(set(names)) == len(names)
    for path, methods in document["paths"].items():
        for operation in methods.values():
            in_path = [each["name"] for each in operation.get("parameters", []) if each["in"] == "path"]
            assert all("{" + name + "}" in path for name in in_path)
            assert path.count("{") == len(in_path)
            assert operation["summary"]


def references(part: object) -> list[str]:
    if isinstance(part, dict):
        own = [part["$ref"]] if isinstance(part.get("$ref"), str) else []
        return own + [found for value in part.values() for found in references(value)]
    if isinstance(part, list):
        return [found for value in part for found in references(value)]
    return []


def test_bodies_are_told_in_the_spelling_of_the_house() -> None:
    document = openapi(INTERNAL_ROUTES, title="t", version="1", server_url="https://a.example")
    assert document["servers"] == [{"url": "https://a.example"}]
    body = document["components"]["schemas"]["CommandBody"]
    assert {"telescopeUid", "commandId", "waitS"} <= set(body["properties"])
    assert set(body["required"]) == {"commandId", "command"}
    operation = document["paths"]["/internal/commands/{commandId}/cancel"]["post"]
    assert operation["security"] == [{"service": ["nodes:command"]}]
    assert operation["requestBody"]["required"] is False


def test_there_is_a_schema_for_every_frame_of_every_direction() -> None:
    assert set(LIBRARY.frames) == set(DIRECTIONS)
    for direction, codec in DIRECTIONS.items():
        assert set(LIBRARY.frames[direction]) == {f"{kind}.json" for kind in codec.models}


def test_the_index_stands_alone() -> None:
    page = LIBRARY.index
    for name in (
        "openapi-node.json",
        "openapi-internal.json",
        "asyncapi-node.json",
        "asyncapi-streams.json",
        "frames/from_node/hello.json",
    ):
        assert f'href="/docs/{name}"' in page
    assert "http" not in page.replace("HTTP", "")
    assert "<script" not in page
