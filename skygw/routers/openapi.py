"""The OpenAPI 3.1 document of a listener, made from its routes and the models they read and write."""

import re
from collections.abc import Sequence
from typing import Any

from pydantic import BaseModel
from pydantic.alias_generators import to_camel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from skygw.routers.problems import JSON_TYPE
from skygw.routers.route import Access, Answer, Route
from skygw.routers.schemas import ProblemView
from skygw.routers.upload_dialects import UPLOADS_PATH
from skygw.routers.upload_problems import PROBLEM_TYPE

_VARIABLE = re.compile(r"<(\w+)>")

PROBLEMS = {
    400: "What the headers say cannot be, or does not agree",
    401: "The token does not hold",
    403: "The network, the scope or the binding is not allowed",
    404: "Nothing of that name exists for this caller",
    409: "It conflicts with what is, or the node refused",
    410: "It has failed and takes nothing more",
    412: "This version is not spoken here, or the bytes are others than those named in `If-Match`",
    413: "The body is too large",
    415: "The body is of another type than can be taken",
    422: "Something is wrong with the request; `detail` lists what",
    426: "A WebSocket of the right subprotocol is wanted",
    429: "The node has enough to do",
    500: "The gateway failed",
    502: "The node failed, its answer does not hold together, or its link was lost",
    503: "The node, the database or the issuer is away, or the gateway is draining",
    504: "The time ran out",
    507: "There is no room for it now",
}

SCHEMES = {
    Access.NODE: "The installation's access token.",
    Access.SERVICE: "A service's access token; the scope it must hold stands beside each operation.",
}


def wire_path(path: str) -> str:
    """A path of the routing table as OpenAPI spells it."""
    return _VARIABLE.sub(lambda match: "{" + to_camel(match[1]) + "}", path)


def openapi(routes: Sequence[Route], *, title: str, version: str, server_url: str | None) -> dict[str, Any]:
    """The document. `server_url` is where callers find the listener, if that is known."""
    paths: dict[str, dict[str, Any]] = {}
    for route in routes:
        paths.setdefault(wire_path(route.path), {})[route.method.lower()] = _operation(route)
    document: dict[str, Any] = {
        "openapi": "3.1.0",
        "info": {
            "title": title,
            "version": version,
            "description": (
                "Keys are camelCase; snake_case is accepted too, both spellings of one key in one body are not. "
                "Opaque values are carried byte for byte."
            ),
        },
        "paths": paths,
        "components": {
            "schemas": _schemas(routes),
            "securitySchemes": {
                access.value: {"type": "http", "scheme": "bearer", "description": says}
                for access, says in SCHEMES.items()
                if any(route.access is access for route in routes)
            },
        },
    }
    if server_url is not None:
        document["servers"] = [{"url": server_url}]
    return document


def _operation(route: Route) -> dict[str, Any]:
    operation: dict[str, Any] = {
        "operationId": route.name,
        "summary": route.says,
        "responses": {
            **{str(answer.status): _response(answer) for answer in route.answers},
            **{str(status): _problem(PROBLEMS[status], route) for status in _refusals(route)},
            "default": _problem("Every other error", route),
        },
    }
    parameters = [
        {"name": to_camel(name), "in": "path", "required": True, "schema": {"type": "string"}}
        for name in _VARIABLE.findall(route.path)
    ] + [
        {"name": query.name, "in": "query", "description": query.says, "schema": query.schema} for query in route.query
    ]
    if parameters:
        operation["parameters"] = parameters
    if route.body is not None:
        operation["requestBody"] = {"required": route.body_required, "content": _json(route.body)}
    if route.access is not Access.NOTHING:
        # OpenAPI 3.1 lets any scheme list the roles it needs.
        operation["security"] = [{route.access.value: [] if route.scope is None else [route.scope.value]}]
    return operation


def _refusals(route: Route) -> list[int]:
    everywhere = (401, 403, 503) if route.access is not Access.NOTHING else ()
    told = {answer.status for answer in route.answers}
    return sorted({*everywhere, *route.refusals} - told)


def _response(answer: Answer) -> dict[str, Any]:
    if answer.body is None:
        return {"description": answer.says}
    content = {answer.body: {}} if isinstance(answer.body, str) else _json(answer.body)
    return {"description": answer.says, "content": content}


def _problem(says: str, route: Route) -> dict[str, Any]:
    if route.method == "HEAD":
        return {"description": says}
    media_type = PROBLEM_TYPE if route.path.startswith(UPLOADS_PATH) else JSON_TYPE
    return {"description": says, "content": _json(ProblemView, media_type)}


def _json(model: type[BaseModel], media_type: str = JSON_TYPE) -> dict[str, Any]:
    return {media_type: {"schema": {"$ref": f"#/components/schemas/{model.__name__}"}}}


def _schemas(routes: Sequence[Route]) -> dict[str, Any]:
    wanted: dict[type[BaseModel], JsonSchemaMode] = {ProblemView: "serialization"}
    for route in routes:
        if route.body is not None:
            wanted[route.body] = "validation"
        wanted.update({answer.body: "serialization" for answer in route.answers if isinstance(answer.body, type)})
    _, found = models_json_schema(list(wanted.items()), ref_template="#/components/schemas/{model}")
    schemas: dict[str, Any] = found["$defs"]
    return schemas
