"""The protocol for machines: JSON Schema of every frame and an AsyncAPI document, both made from the models themselves.

The schemas describe the snake_case spelling, which is the one that is written; the reader also takes camelCase.
"""

from typing import Any, Final
from urllib.parse import urlsplit

from pydantic.json_schema import models_json_schema

from skygw.protocol.chunks import HEADER_BYTES
from skygw.protocol.codec import from_gateway, from_node
from skygw.protocol.frame import Frame
from skygw.protocol.limits import MAX_BINARY_BYTES, MAX_FRAMES_PER_MESSAGE, MAX_TEXT_BYTES

SUBPROTOCOL: Final = "skynet.node.v1"
NODE_SOCKET_PATH: Final = "/v1/ws/node"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_CHUNK = "direct_response_chunk_binary"


def _models() -> dict[str, type[Frame]]:
    """Every frame by its kind. `error`, `ping` and `pong` are the same in both directions."""
    return {**from_node.models, **from_gateway.models}


def _with_kind_required(schema: dict[str, Any]) -> dict[str, Any]:
    """In the models `kind` has a default, for whoever makes a frame; on the wire it is what tells frames apart."""
    return {**schema, "required": ["kind", *schema.get("required", [])]}


def frame_schemas() -> dict[str, dict[str, Any]]:
    """The JSON Schema (2020-12) of every frame, by `kind`. Each stands alone."""
    return {
        kind: {"$schema": DIALECT, **_with_kind_required(model.model_json_schema())}
        for kind, model in _models().items()
    }


def _component_schemas() -> dict[str, dict[str, Any]]:
    """The same schemas as parts of one document, with what they share beside them; frames are named by their kind."""
    models = _models()
    _, shared = models_json_schema(
        [(model, "validation") for model in models.values()], ref_template="#/components/schemas/{model}"
    )
    parts: dict[str, dict[str, Any]] = shared["$defs"]
    frames = {kind: _with_kind_required(parts.pop(model.__name__)) for kind, model in models.items()}
    return {**parts, **frames}


def _message(kind: str, model: type[Frame]) -> dict[str, Any]:
    return {
        "name": kind,
        "title": kind,
        "summary": (model.__doc__ or "").splitlines()[0],
        "contentType": "application/json",
        "payload": {"$ref": f"#/components/schemas/{kind}"},
    }


def _binary_chunk() -> dict[str, Any]:
    return {
        "name": _CHUNK,
        "title": "One piece of a direct response, as a binary message",
        "summary": "16 bytes of request id, 4 bytes of sequence (big-endian, from 0), then the payload.",
        "contentType": "application/octet-stream",
        "payload": {
            "type": "string",
            "format": "binary",
            "minLength": HEADER_BYTES,
            "maxLength": MAX_BINARY_BYTES,
        },
    }


def _operation(action: str, title: str, kinds: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "title": title,
        "channel": {"$ref": "#/channels/node"},
        "messages": [{"$ref": f"#/channels/node/messages/{kind}"} for kind in kinds],
        "security": [{"$ref": "#/components/securitySchemes/bearer"}],
    }


def node_asyncapi(*, server_url: str | None, version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the node socket, told from the gateway's side: it receives what nodes send.

    `server_url` is where nodes find this gateway (`wss://gateway.example.org`), when that is known.
    """
    messages = {kind: _message(kind, model) for kind, model in _models().items()} | {_CHUNK: _binary_chunk()}
    channel: dict[str, Any] = {
        "address": NODE_SOCKET_PATH,
        "title": "Node socket",
        "description": (
            f"A text message of up to {MAX_TEXT_BYTES} bytes is one frame or a JSON array of up to "
            f"{MAX_FRAMES_PER_MESSAGE} frames; a binary message is one piece of a direct response."
        ),
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "required": ["Authorization", "Sec-WebSocket-Protocol"],
                    "properties": {
                        "Authorization": {"type": "string", "pattern": "^Bearer "},
                        "Sec-WebSocket-Protocol": {"type": "string", "const": SUBPROTOCOL},
                    },
                },
                "bindingVersion": "0.1.0",
            }
        },
    }
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": "SkyNode gateway: node socket",
            "version": version,
            "description": f"Subprotocol `{SUBPROTOCOL}`; no compression.",
        },
        "defaultContentType": "application/json",
        "channels": {"node": channel},
        "operations": {
            "receiveFromNode": _operation("receive", "What a node sends", [*from_node.models, _CHUNK]),
            "sendToNode": _operation("send", "What the gateway sends", [*from_gateway.models]),
        },
        "components": {
            "messages": messages,
            "schemas": _component_schemas(),
            "securitySchemes": {
                "bearer": {
                    "type": "http",
                    "scheme": "bearer",
                    "description": "The installation's access token, in the `Authorization` header of the handshake.",
                }
            },
        },
    }
    if server_url is not None:
        url = urlsplit(server_url)
        document["servers"] = {
            "gateway": {
                "host": url.netloc,
                "protocol": "wss" if url.scheme in {"wss", "https"} else "ws",
                **({"pathname": url.path} if url.path.strip("/") else {}),
                "security": [{"$ref": "#/components/securitySchemes/bearer"}],
            }
        }
        channel["servers"] = [{"$ref": "#/servers/gateway"}]
    return document
