"""The protocol for machines: JSON Schema of every frame and an AsyncAPI document of each socket, made from the models.

The schemas describe the snake_case spelling, which is the one that is written; the reader also takes camelCase.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic.json_schema import models_json_schema

from skygw.protocol.chunks import HEADER_BYTES
from skygw.protocol.codec import (
    from_commander,
    from_gateway,
    from_node,
    from_subscriber,
    to_commander,
    to_subscriber,
)
from skygw.protocol.frame import Frame
from skygw.protocol.limits import MAX_BINARY_BYTES, MAX_FRAMES_PER_MESSAGE, MAX_TEXT_BYTES
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL

SUBPROTOCOL: Final = "skynet.node.v1"
NODE_SOCKET_PATH: Final = "/v1/ws/node"
STREAM_SOCKET_PATH: Final = "/internal/ws/stream"
COMMAND_SOCKET_PATH: Final = "/internal/ws/commands"
DIALECT: Final = "https://json-schema.org/draft/2020-12/schema"

_CHUNK = "direct_response_chunk_binary"

Models = Mapping[str, type[Frame]]
"""Frames by kind."""


def _of_kind(kind: str, schema: dict[str, Any]) -> dict[str, Any]:
    """In the models `kind` may have a default, for whoever makes a frame, or be one of several; on the wire it is what
    tells frames apart.
    """
    properties = {**schema["properties"], "kind": {"const": kind, "title": "Kind", "type": "string"}}
    required = [name for name in schema.get("required", []) if name != "kind"]
    return {**schema, "properties": properties, "required": ["kind", *required]}


def frame_schemas(models: Models) -> dict[str, dict[str, Any]]:
    """The JSON Schema (2020-12) of every frame, by `kind`. Each stands alone."""
    return {kind: {"$schema": DIALECT, **_of_kind(kind, model.model_json_schema())} for kind, model in models.items()}


def _component_schemas(models: Models) -> dict[str, dict[str, Any]]:
    """The same schemas as parts of one document, with what they share beside them; frames are named by their kind."""
    _, shared = models_json_schema(
        [(model, "validation") for model in set(models.values())], ref_template="#/components/schemas/{model}"
    )
    parts: dict[str, dict[str, Any]] = shared["$defs"]
    frames = {kind: _of_kind(kind, parts[model.__name__]) for kind, model in models.items()}
    names = {model.__name__ for model in models.values()}
    return {**{name: part for name, part in parts.items() if name not in names}, **frames}


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


@dataclass(frozen=True)
class _Socket:
    """One WebSocket, told from the gateway's side: it receives what peers send. `name` is its channel's."""

    name: str
    peer: str
    title: str
    path: str
    subprotocol: str
    is_subprotocol_required: bool
    description: str
    messages: str
    """What one message may be."""
    token: str
    receives: Models
    sends: Models
    takes_chunks: bool = False
    sends_chunks: bool = False


_NODE = _Socket(
    name="node",
    peer="node",
    title="node socket",
    path=NODE_SOCKET_PATH,
    subprotocol=SUBPROTOCOL,
    is_subprotocol_required=True,
    description=f"Subprotocol `{SUBPROTOCOL}`; no compression.",
    messages=(
        f"A text message of up to {MAX_TEXT_BYTES} bytes is one frame or a JSON array of up to "
        f"{MAX_FRAMES_PER_MESSAGE} frames; a binary message is one piece of a direct response."
    ),
    token="The installation's access token, in the `Authorization` header of the handshake.",  # noqa: S106 - a sentence
    receives=from_node.models,
    sends=from_gateway.models,
    takes_chunks=True,
)

_STREAMS = _Socket(
    name="streams",
    peer="subscriber",
    title="stream socket",
    path=STREAM_SOCKET_PATH,
    subprotocol=SUBSCRIBER_SUBPROTOCOL,
    is_subprotocol_required=False,
    description=(
        f"With the subprotocol `{SUBSCRIBER_SUBPROTOCOL}`. Without one, `event_live`, `event_gap`, `event_stale` and "
        "`event_subscription_ended` are not sent; no compression."
    ),
    messages=(
        f"A text message of up to {MAX_TEXT_BYTES} bytes is one frame or a JSON array of up to "
        f"{MAX_FRAMES_PER_MESSAGE} frames; the gateway sends one frame in each."
    ),
    token="A service's access token with `streams:read`, in the `Authorization` header of the handshake.",  # noqa: S106
    receives=from_subscriber.models,
    sends=to_subscriber.models,
)


_COMMANDS = _Socket(
    name="commands",
    peer="commander",
    title="command socket",
    path=COMMAND_SOCKET_PATH,
    subprotocol=SUBSCRIBER_SUBPROTOCOL,
    is_subprotocol_required=False,
    description=(
        f"With the subprotocol `{SUBSCRIBER_SUBPROTOCOL}`, pieces of direct responses are binary messages. Without one "
        "they are text, and `event_command_receipt`, `event_command_validation`, `event_live`, `event_gap` and "
        "`event_subscription_ended` are not sent; no compression."
    ),
    messages=(
        f"A text message of up to {MAX_TEXT_BYTES} bytes is one frame or a JSON array of up to "
        f"{MAX_FRAMES_PER_MESSAGE} frames; the gateway sends one frame in each, or one piece in a binary one."
    ),
    token=(  # noqa: S106 - a sentence
        "A service's access token, in the `Authorization` header of the handshake, with one of `nodes:command`, "
        "`streams:read` and `nodes:call`; each frame wants its own."
    ),
    receives=from_commander.models,
    sends=to_commander.models,
    sends_chunks=True,
)


def node_asyncapi(*, server_url: str | None, version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the node socket.

    `server_url` is where nodes find this gateway (`wss://gateway.example.org`), when that is known.
    """
    return _asyncapi(_NODE, server_url=server_url, version=version)


def stream_asyncapi(*, server_url: str | None, version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the stream socket; `server_url` is where services find the internal listener."""
    return _asyncapi(_STREAMS, server_url=server_url, version=version)


def command_asyncapi(*, server_url: str | None, version: str) -> dict[str, Any]:
    """The AsyncAPI 3.0 document of the command socket; `server_url` as for the stream socket."""
    return _asyncapi(_COMMANDS, server_url=server_url, version=version)


def _asyncapi(socket: _Socket, *, server_url: str | None, version: str) -> dict[str, Any]:
    models = {**socket.receives, **socket.sends}  # what goes both ways is the same in both
    messages = {kind: _message(kind, model) for kind, model in models.items()}
    received, sent = [*socket.receives], [*socket.sends]
    if socket.takes_chunks or socket.sends_chunks:
        messages[_CHUNK] = _binary_chunk()
        (received if socket.takes_chunks else sent).append(_CHUNK)
    required = ["Authorization", *(["Sec-WebSocket-Protocol"] if socket.is_subprotocol_required else [])]
    channel: dict[str, Any] = {
        "address": socket.path,
        "title": socket.title.capitalize(),
        "description": socket.messages,
        "messages": {name: {"$ref": f"#/components/messages/{name}"} for name in messages},
        "bindings": {
            "ws": {
                "method": "GET",
                "headers": {
                    "type": "object",
                    "required": required,
                    "properties": {
                        "Authorization": {"type": "string", "pattern": "^Bearer "},
                        "Sec-WebSocket-Protocol": {"type": "string", "const": socket.subprotocol},
                    },
                },
                "bindingVersion": "0.1.0",
            }
        },
    }
    peer = socket.peer.capitalize()
    document: dict[str, Any] = {
        "asyncapi": "3.0.0",
        "info": {
            "title": f"SkyNode gateway: {socket.title}",
            "version": version,
            "description": socket.description,
        },
        "defaultContentType": "application/json",
        "channels": {socket.name: channel},
        "operations": {
            f"receiveFrom{peer}": _operation("receive", f"What a {socket.peer} sends", socket.name, received),
            f"sendTo{peer}": _operation("send", "What the gateway sends", socket.name, sent),
        },
        "components": {
            "messages": messages,
            "schemas": _component_schemas(models),
            "securitySchemes": {"bearer": {"type": "http", "scheme": "bearer", "description": socket.token}},
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


def _operation(action: str, title: str, channel: str, kinds: list[str]) -> dict[str, Any]:
    return {
        "action": action,
        "title": title,
        "channel": {"$ref": f"#/channels/{channel}"},
        "messages": [{"$ref": f"#/channels/{channel}/messages/{kind}"} for kind in kinds],
        "security": [{"$ref": "#/components/securitySchemes/bearer"}],
    }
