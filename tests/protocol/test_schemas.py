"""What the protocol says of itself to machines: it takes what the reader takes, and refuses what it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from skygw.protocol.codec import (
    BadFrame,
    from_commander,
    from_gateway,
    from_node,
    from_subscriber,
    to_commander,
    to_subscriber,
)
from skygw.protocol.schemas import command_asyncapi, frame_schemas, node_asyncapi, stream_asyncapi
from tests.wire.samples import DIRECTIONS, FILES, direction_of, kind_of, name_of, text_of

SCHEMAS = {direction: frame_schemas(codec.models) for direction, codec in DIRECTIONS.items()}


def schema_of(path: Path) -> dict[str, Any]:
    return SCHEMAS[direction_of(path)][kind_of(path)]


def refusals(path: Path, frame: Any) -> list[str]:
    checker = Draft202012Validator(schema_of(path), format_checker=FormatChecker())
    return [error.message for error in checker.iter_errors(frame)]


@pytest.mark.parametrize("direction", DIRECTIONS)
def test_a_schema_is_itself_valid_and_says_what_the_frame_is_for(direction: str) -> None:
    for kind, schema in SCHEMAS[direction].items():
        Draft202012Validator.check_schema(schema)
        assert schema["description"]
        assert schema["properties"]["kind"]["const"] == kind


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_golden_frame_is_valid_by_its_schema(path: Path) -> None:
    assert refusals(path, json.loads(text_of(path))) == []


def _required_members() -> Iterator[tuple[Path, str]]:
    for path in FILES:
        yield from ((path, member) for member in schema_of(path)["required"])


@pytest.mark.parametrize(("path", "member"), list(_required_members()))
def test_a_golden_frame_without_a_required_member_is_refused_by_schema_and_reader(path: Path, member: str) -> None:
    frame = json.loads(text_of(path))
    del frame[member]
    assert any(member in refusal for refusal in refusals(path, frame))
    [read] = DIRECTIONS[direction_of(path)].decode(json.dumps(frame))
    assert isinstance(read, BadFrame)


BROKEN: list[tuple[str, str, Any]] = [
    ("from_node/hello", "node_type", "submarine"),
    ("from_node/hello", "install_id", "the one on the hill"),
    ("from_node/hello", "last_epoch", -1),
    ("from_node/hello", "last_fences", {"21ec2020-3aea-4069-a2dd-08002b30309d": "7"}),
    ("from_node/hello", "results", ["x"]),
    ("from_node/hello", "features", ["f"] * 65),
    ("from_node/publish_log", "seq", 0),
    ("from_node/publish_log", "seq", 2**53),
    ("from_node/publish_log", "data", []),
    ("from_node/publish_log", "observed_at", "2026-11-22T03:14:15"),
    ("from_node/publish_log", "observed_at", 1_763_781_255),
    ("from_node/publish_snapshot", "stream", "manual_control_lease"),
    ("from_node/publish_snapshot", "max_silence_s", -1),
    ("from_node/publish_command_result.running", "progress", 1.5),
    ("from_node/publish_command_result.running", "status", "done"),
    ("from_node/publish_command_result.canceled", "canceled", "perhaps"),
    ("from_node/direct_response_end", "sha256", "ABC"),
    ("from_node/auth_refresh", "token", "x" * 9_000),
    ("from_node/error", "code", "teapot"),
    ("from_node/ping", "kind", "pong"),
    ("from_gateway/welcome", "epoch", True),
    ("from_gateway/welcome", "limits", {"text_bytes": "many"}),
    ("from_gateway/welcome", "link_loss_policy", "pray"),
    ("from_gateway/event_command", "command", "mount.stop"),
    ("from_gateway/event_command", "deadline_ms", 1.5),
    ("from_gateway/cancel_command", "mode", "gently"),
    ("from_gateway/direct_request", "params", None),
    ("from_gateway/direct_credit", "bytes", -1),
    ("from_gateway/event_token.grace", "state", "lost"),
    ("from_gateway/goaway", "reconnect_after_ms", "soon"),
    ("from_subscriber/subscribe_stream", "stream", "weather"),
    ("from_subscriber/subscribe_stream", "subscription_id", ""),
    ("from_subscriber/subscribe_stream", "filter", ["mount"]),
    ("to_subscriber/event_device_snapshot", "data", None),
    ("to_subscriber/event_device_snapshot", "received_at", "now"),
    ("to_subscriber/event_device_snapshot", "stale", "old"),
    ("to_subscriber/event_telescope_log", "install_id", "the one on the hill"),
    ("to_subscriber/event_stale", "reason", "tired"),
    ("to_subscriber/event_subscription_ended", "reason", "bored"),
    ("from_commander/publish_command", "command_id", "mine"),
    ("from_commander/publish_command", "command", "mount.park"),
    ("from_commander/publish_command", "actor", {"uid": "7"}),
    ("from_commander/publish_command", "timeout_s", 0),
    ("from_commander/publish_command", "validate_only", "yes"),
    ("from_commander/publish_command", "on_caller_gone", "explode"),
    ("from_commander/publish_command", "unheard_of", 1),
    ("from_commander/subscribe_commands", "stream", "telescope_log"),
    ("from_commander/direct_request", "operation", "../etc"),
    ("from_commander/direct_request", "id", "7"),
    ("to_commander/event_command_result.running", "status", "done"),
    ("to_commander/event_command_result.running", "subscription_id", "night"),
    ("to_commander/event_command_receipt", "receipt", "perhaps"),
]


@pytest.mark.parametrize(("sample", "member", "value"), BROKEN)
def test_a_broken_member_is_refused_by_schema_and_reader(sample: str, member: str, value: Any) -> None:
    path = next(path for path in FILES if name_of(path) == sample)
    frame = {**json.loads(text_of(path)), member: value}
    assert refusals(path, frame)
    [read] = DIRECTIONS[direction_of(path)].decode(json.dumps(frame))
    assert isinstance(read, BadFrame) or read.frame.kind != kind_of(path)


def references(part: Any) -> Iterator[str]:
    if isinstance(part, dict):
        for key, value in part.items():
            if key == "$ref":
                yield value
            else:
                yield from references(value)
    elif isinstance(part, list):
        for value in part:
            yield from references(value)


def at(document: Any, reference: str) -> Any:
    assert reference.startswith("#/")
    for step in reference[2:].split("/"):
        document = document[step]
    return document


DOCUMENT = node_asyncapi(server_url="https://gateway.example.org/hub", version="1.2.3")
STREAMS = stream_asyncapi(server_url="http://10.0.0.1:5003", version="1.2.3")
COMMANDS = command_asyncapi(server_url="http://10.0.0.1:5003", version="1.2.3")
DOCUMENTS = {
    "from_node": DOCUMENT,
    "from_gateway": DOCUMENT,
    "from_subscriber": STREAMS,
    "to_subscriber": STREAMS,
    "from_commander": COMMANDS,
    "to_commander": COMMANDS,
}


@pytest.mark.parametrize(
    ("document", "kind"),
    [(DOCUMENT, "hello"), (STREAMS, "event_asset"), (COMMANDS, "publish_command")],
    ids=["node", "streams", "commands"],
)
def test_every_reference_of_an_asyncapi_document_leads_somewhere(document: dict[str, Any], kind: str) -> None:
    found = set(references(document))
    assert f"#/components/schemas/{kind}" in found
    assert all(at(document, reference) for reference in found)


@pytest.mark.parametrize(
    ("document", "operation", "action", "kinds"),
    [
        (DOCUMENT, "receiveFromNode", "receive", {*from_node.models, "direct_response_chunk_binary"}),
        (DOCUMENT, "sendToNode", "send", {*from_gateway.models}),
        (STREAMS, "receiveFromSubscriber", "receive", {*from_subscriber.models}),
        (STREAMS, "sendToSubscriber", "send", {*to_subscriber.models}),
        (COMMANDS, "receiveFromCommander", "receive", {*from_commander.models}),
        (COMMANDS, "sendToCommander", "send", {*to_commander.models, "direct_response_chunk_binary"}),
    ],
)
def test_an_asyncapi_document_names_every_message_of_each_direction(
    document: dict[str, Any], operation: str, action: str, kinds: set[str]
) -> None:
    described = document["operations"][operation]
    assert described["action"] == action
    messages = [at(document, at(document, one["$ref"])["$ref"]) for one in described["messages"]]
    assert {message["name"] for message in messages} == kinds
    assert all(message["summary"] for message in messages)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_golden_frame_is_valid_by_the_asyncapi_document_too(path: Path) -> None:
    document = DOCUMENTS[direction_of(path)]
    schema = {"$ref": f"#/components/schemas/{kind_of(path)}", "components": document["components"]}
    Draft202012Validator(schema).validate(json.loads(text_of(path)))


def test_the_asyncapi_document_says_how_to_come_in() -> None:
    channel = DOCUMENT["channels"]["node"]
    assert channel["address"] == "/v1/ws/node"
    assert channel["bindings"]["ws"]["headers"]["properties"]["Sec-WebSocket-Protocol"]["const"] == "skynet.node.v1"
    assert DOCUMENT["servers"]["gateway"]["host"] == "gateway.example.org"
    assert DOCUMENT["servers"]["gateway"]["protocol"] == "wss"
    assert DOCUMENT["servers"]["gateway"]["pathname"] == "/hub"
    assert all(operation["security"] for operation in DOCUMENT["operations"].values())


def test_the_stream_document_says_how_to_come_in_with_or_without_a_subprotocol() -> None:
    channel = STREAMS["channels"]["streams"]
    headers = channel["bindings"]["ws"]["headers"]
    assert channel["address"] == "/internal/ws/stream"
    assert headers["required"] == ["Authorization"]
    assert headers["properties"]["Sec-WebSocket-Protocol"]["const"] == "skynet.internal.v1"
    assert STREAMS["servers"]["gateway"]["protocol"] == "ws"
    assert all(operation["security"] for operation in STREAMS["operations"].values())


def test_without_an_address_the_document_names_no_server() -> None:
    document = node_asyncapi(server_url=None, version="1.2.3")
    assert "servers" not in document
    assert "servers" not in document["channels"]["node"]


def test_all_documents_are_plain_json() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert json.loads(json.dumps(STREAMS)) == STREAMS
    assert json.loads(json.dumps(COMMANDS)) == COMMANDS
    assert json.loads(json.dumps(SCHEMAS)) == SCHEMAS
