"""What the protocol says of itself to machines: it takes what the reader takes, and refuses what it refuses."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator, FormatChecker

from skygw.protocol.codec import BadFrame, from_gateway, from_node
from skygw.protocol.schemas import frame_schemas, node_asyncapi
from tests.wire.samples import DIRECTIONS, FILES, kind_of, name_of, text_of

SCHEMAS = frame_schemas()


def refusals(kind: str, frame: Any) -> list[str]:
    checker = Draft202012Validator(SCHEMAS[kind], format_checker=FormatChecker())
    return [error.message for error in checker.iter_errors(frame)]


def test_every_kind_of_both_directions_has_a_schema() -> None:
    assert set(SCHEMAS) == {*from_node.models, *from_gateway.models}


@pytest.mark.parametrize("kind", SCHEMAS)
def test_a_schema_is_itself_valid_and_says_what_the_frame_is_for(kind: str) -> None:
    Draft202012Validator.check_schema(SCHEMAS[kind])
    assert SCHEMAS[kind]["description"]
    assert SCHEMAS[kind]["properties"]["kind"]["const"] == kind


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_golden_frame_is_valid_by_its_schema(path: Path) -> None:
    assert refusals(kind_of(path), json.loads(text_of(path))) == []


def _required_members() -> Iterator[tuple[Path, str]]:
    for path in FILES:
        yield from ((path, member) for member in SCHEMAS[kind_of(path)]["required"])


@pytest.mark.parametrize(("path", "member"), list(_required_members()))
def test_a_golden_frame_without_a_required_member_is_refused_by_schema_and_reader(path: Path, member: str) -> None:
    frame = json.loads(text_of(path))
    del frame[member]
    assert any(member in refusal for refusal in refusals(kind_of(path), frame))
    [read] = DIRECTIONS[path.parent.name].decode(json.dumps(frame))
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
]


@pytest.mark.parametrize(("sample", "member", "value"), BROKEN)
def test_a_broken_member_is_refused_by_schema_and_reader(sample: str, member: str, value: Any) -> None:
    path = next(path for path in FILES if name_of(path) == sample)
    frame = {**json.loads(text_of(path)), member: value}
    assert refusals(kind_of(path), frame)
    [read] = DIRECTIONS[path.parent.name].decode(json.dumps(frame))
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


def test_every_reference_of_the_asyncapi_document_leads_somewhere() -> None:
    found = set(references(DOCUMENT))
    assert "#/components/schemas/hello" in found
    assert all(at(DOCUMENT, reference) for reference in found)


@pytest.mark.parametrize(
    ("operation", "action", "kinds"),
    [
        ("receiveFromNode", "receive", {*from_node.models, "direct_response_chunk_binary"}),
        ("sendToNode", "send", {*from_gateway.models}),
    ],
)
def test_the_asyncapi_document_names_every_message_of_each_direction(
    operation: str, action: str, kinds: set[str]
) -> None:
    described = DOCUMENT["operations"][operation]
    assert described["action"] == action
    messages = [at(DOCUMENT, at(DOCUMENT, one["$ref"])["$ref"]) for one in described["messages"]]
    assert {message["name"] for message in messages} == kinds
    assert all(message["summary"] for message in messages)


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_golden_frame_is_valid_by_the_asyncapi_document_too(path: Path) -> None:
    schema = {"$ref": f"#/components/schemas/{kind_of(path)}", "components": DOCUMENT["components"]}
    Draft202012Validator(schema).validate(json.loads(text_of(path)))


def test_the_asyncapi_document_says_how_to_come_in() -> None:
    channel = DOCUMENT["channels"]["node"]
    assert channel["address"] == "/v1/ws/node"
    assert channel["bindings"]["ws"]["headers"]["properties"]["Sec-WebSocket-Protocol"]["const"] == "skynet.node.v1"
    assert DOCUMENT["servers"]["gateway"]["host"] == "gateway.example.org"
    assert DOCUMENT["servers"]["gateway"]["protocol"] == "wss"
    assert DOCUMENT["servers"]["gateway"]["pathname"] == "/hub"
    assert all(operation["security"] for operation in DOCUMENT["operations"].values())


def test_without_an_address_the_document_names_no_server() -> None:
    document = node_asyncapi(server_url=None, version="1.2.3")
    assert "servers" not in document
    assert "servers" not in document["channels"]["node"]


def test_both_documents_are_plain_json() -> None:
    assert json.loads(json.dumps(DOCUMENT)) == DOCUMENT
    assert json.loads(json.dumps(SCHEMAS)) == SCHEMAS
