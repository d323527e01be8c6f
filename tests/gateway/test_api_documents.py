"""What the gateway really answers holds against the documents it serves about itself."""

from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import jsonschema
import trio

from skygw.protocol.gateway_frames import EventCommand
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import World, gateway


def validate(document: dict[str, Any], path: str, answer: httpx.Response) -> None:
    """Raises `jsonschema.ValidationError` for an answer that the document does not tell of."""
    responses = document["paths"][path][answer.request.method.lower()]["responses"]
    content = responses[str(answer.status_code)].get("content")
    if content is None:
        assert answer.content == b""
        return
    [(media_type, told)] = content.items()
    assert answer.headers["content-type"].partition(";")[0] == media_type
    if media_type == "application/json" and told:
        schema = {**told["schema"], "components": document["components"]}
        jsonschema.Draft202012Validator(schema).validate(answer.json())


async def fetched(world: World, name: str) -> dict[str, Any]:
    answer = await world.ask("GET", f"/docs/{name}", headers={"authorization": ""})
    assert answer.status_code == 200
    return dict(answer.json())


async def test_real_answers_hold_against_the_document(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, trio.open_nursery() as nursery:
        document = await fetched(world, "openapi-internal.json")
        node_path = f"/internal/nodes/{world.site.install_id}"
        command_id = str(uuid4())
        command = {
            "telescopeUid": str(world.site.telescope_uid),
            "commandId": command_id,
            "command": {"command_type": "mount.track", "target": {}, "someKey": [1, None]},
            "origin": {"kind": "test"},
            "leaseUid": await world.control(),
            "waitS": 10,
        }

        async def play() -> None:
            event = await node.hear(EventCommand)
            await node.say(
                PublishCommandResult(seq=1, command_id=event.command_id, status=CommandStatus.RUNNING, progress=0.5),
                PublishCommandResult(seq=2, command_id=event.command_id, status=CommandStatus.COMPLETED),
            )

        nursery.start_soon(play)
        for method, path, template, body, status in (
            ("GET", "/healthz", "/healthz", None, 200),
            ("GET", "/readyz", "/readyz", None, 200),
            ("GET", "/metrics", "/metrics", None, 200),
            ("GET", "/docs/", "/docs/", None, 200),
            ("GET", "/docs/none", "/docs/{document}", None, 404),
            ("GET", "/docs/asyncapi-node.json", "/docs/{document}", None, 200),
            ("GET", "/docs/asyncapi-streams.json", "/docs/{document}", None, 200),
            ("GET", "/docs/frames/to_subscriber/event_asset.json", "/docs/frames/{direction}/{document}", None, 200),
            ("GET", "/internal/streams/weather", "/internal/streams/{stream}", None, 403),
            ("GET", "/docs/frames/from_node/hello.json", "/docs/frames/{direction}/{document}", None, 200),
            ("GET", "/docs/frames/sideways/hello.json", "/docs/frames/{direction}/{document}", None, 404),
            ("GET", "/internal/nodes?size=500", "/internal/nodes", None, 200),
            ("GET", "/internal/nodes?page=x", "/internal/nodes", None, 422),
            ("GET", node_path, "/internal/nodes/{id}", None, 200),
            ("GET", "/internal/nodes/none", "/internal/nodes/{id}", None, 404),
            ("POST", "/internal/commands", "/internal/commands", command, 200),
            ("POST", "/internal/commands", "/internal/commands", {**command, "command": {}}, 422),
            ("POST", "/internal/commands", "/internal/commands", {**command, "waitS": "soon"}, 422),
            ("GET", f"/internal/commands/{command_id}", "/internal/commands/{commandId}", None, 200),
            ("GET", "/internal/commands?state=completed", "/internal/commands", None, 200),
            ("POST", f"/internal/commands/{command_id}/cancel", "/internal/commands/{commandId}/cancel", {}, 200),
            ("POST", f"{node_path}/direct", "/internal/nodes/{id}/direct", {"operation": "a"}, 422),
            ("GET", "/internal/calls/none", "/internal/calls/{requestId}", None, 404),
            ("POST", f"{node_path}/disconnect", "/internal/nodes/{id}/disconnect", None, 204),
            ("POST", f"{node_path}/transfer", "/internal/nodes/{id}/transfer", {"instanceUid": str(uuid4())}, 204),
            ("POST", f"{node_path}/transfer", "/internal/nodes/{id}/transfer", {}, 422),
            ("POST", "/internal/drain", "/internal/drain", None, 202),
        ):
            answer = await world.ask(method, path, body)
            assert answer.status_code == status, (path, answer.text)
            validate(document, template, answer)
