"""The hardware graph at the node door: whole, unchanged, as what has changed; and a node is told when it does."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

import httpx
import psycopg
import pytest
import trio

from skygw.client.node import HardwareCopy, NodeClient, NodeConfig
from skygw.ids import InstallId
from skygw.protocol.gateway_frames import EventCommand, EventGraphChanged
from skygw.protocol.node_frames import NodeType
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, World, gateway

PATH = "/v1/nodes/me/hardware"


@pytest.fixture
async def world(postgres: PostgresServer, tmp_path: Path) -> AsyncIterator[World]:
    async with gateway(postgres, tmp_path) as opened:
        yield opened


async def ask(world: World, query: str = "", *, install_id: UUID | None = None, **headers: str) -> httpx.Response:
    token = world.node_token(install_id)
    return await world.ask(
        "GET", f"{world.running.node_url}{PATH}{query}", headers={"authorization": f"Bearer {token}", **headers}
    )


async def graph(world: World) -> dict[str, Any]:
    answer = await ask(world)
    assert answer.status_code == 200
    return dict(answer.json())


def rename(world: World, name: str) -> None:
    with psycopg.connect(world.owner_url) as connection:
        connection.execute("UPDATE device SET name = %s WHERE uid = %s", [name, world.site.mount_uid])


async def test_a_telescopes_node_sees_its_telescope_with_what_it_refers_to_by_uid(world: World) -> None:
    found = await graph(world)
    assert found["root"] == str(world.site.telescope_uid)
    mount = found["resources"][str(world.site.mount_uid)]
    assert (mount["resourceType"], mount["deviceType"], mount["name"]) == ("device", "mount", "Mount")
    assert mount["telescopeUid"] == str(world.site.telescope_uid)
    assert found["resources"][mount["observatoryUid"]]["resourceType"] == "observatory"
    assert not {"telescopeId", "observatoryId", "isDeleted"} & set(mount)


async def test_what_is_held_and_still_holds_is_not_sent_again(world: World) -> None:
    answer = await ask(world)
    tag = answer.headers["etag"]
    assert tag.startswith('"')
    for held in (tag, f"W/{tag}", f'"other", {tag}', "*"):
        again = await ask(world, **{"if-none-match": held})
        assert (again.status_code, again.content, again.headers["etag"]) == (304, b"", tag), held
    for held in ('"other"', tag.strip('"'), '"', "", tag[:-1]):
        assert (await ask(world, **{"if-none-match": held})).content == answer.content, held
    rename(world, "Newer mount")
    newer = await ask(world, **{"if-none-match": tag})
    assert (newer.status_code, newer.headers["etag"] == tag) == (200, False)


async def test_what_has_changed_since_a_revision_is_told_alone(world: World) -> None:
    before = await graph(world)
    unchanged = (await ask(world, f"?since={before['revision']}")).json()
    assert unchanged == {
        "root": before["root"],
        "revision": before["revision"],
        "complete": False,
        "upserted": {},
        "removed": [],
    }
    rename(world, "Newer mount")
    changes = (await ask(world, f"?since={before['revision']}")).json()
    assert changes["revision"] > before["revision"]
    assert (list(changes["upserted"]), changes["removed"]) == ([str(world.site.mount_uid)], [])
    with psycopg.connect(world.owner_url) as connection:
        connection.execute("UPDATE device SET is_deleted = true WHERE uid = %s", [world.site.mount_uid])
    gone = (await ask(world, f"?since={before['revision']}")).json()
    assert (gone["complete"], gone["upserted"], gone["removed"]) == (False, {}, [str(world.site.mount_uid)])


async def test_from_a_revision_the_hub_does_not_know_everything_is_told(world: World) -> None:
    found = await graph(world)
    for since in (0, found["revision"] - 1, found["revision"] + 1, 2**53 - 1):
        told = (await ask(world, f"?since={since}")).json()
        assert (told["complete"], told["upserted"], told["removed"]) == (True, found["resources"], []), since


@pytest.mark.parametrize("since", ["-1", "x", "", "1.5", "1e3", "%D9%A1", "9" * 16, "9" * 5000, "0x1"])
async def test_what_is_no_revision_is_refused(world: World, since: str) -> None:
    answer = await ask(world, f"?since={since}")
    assert (answer.status_code, answer.json()["detail"][0]["loc"]) == (422, ["query", "since"])


async def test_a_token_of_nobodys_sees_nothing(world: World) -> None:
    assert (await ask(world, install_id=uuid4())).status_code == 403
    bare = await world.ask("GET", f"{world.running.node_url}{PATH}", headers={"authorization": ""})
    assert bare.status_code == 401


async def test_a_node_is_told_of_a_newer_graph_and_what_it_is_told_is_there(world: World) -> None:
    before = (await graph(world))["revision"]
    async with world.node() as node:
        assert node.welcome is not None
        assert node.welcome.graph_revision == before
        rename(world, "Newer mount")
        with trio.fail_after(PATIENCE_S):
            while (told := await node.hear(EventGraphChanged)).revision == before:
                pass
        now = await graph(world)
        assert told.revision == now["revision"]
        assert str(told.observatory_uid) in now["resources"]


async def test_a_command_for_another_revision_than_the_hubs_is_refused(world: World) -> None:
    lease = await world.control()
    revision = (await graph(world))["revision"]
    async with world.node(graph_revision=118) as node:  # what the node says of its own copy decides nothing here
        assert node.welcome is not None
        wanted = {
            "deviceUid": str(world.site.mount_uid),
            "commandId": str(uuid4()),
            "command": {"command_type": "mount.unpark"},
            "graphRevision": revision - 1,
            "leaseUid": lease,
        }
        refused = await world.ask("POST", "/internal/commands", wanted)
        assert (refused.status_code, refused.json()["code"]) == (409, "configuration_changed")
        assert refused.json()["details"] == {"graphRevision": revision}
        taken = await world.ask("POST", "/internal/commands", {**wanted, "graphRevision": revision})
        assert taken.status_code == 202
        assert (await node.hear(EventCommand)).graph_revision == revision


async def listeners(world: World) -> list[int]:
    with psycopg.connect(world.owner_url) as connection:
        rows = connection.execute(
            "SELECT pid FROM pg_stat_activity WHERE application_name = 'skygw listening to skygw_graph'"
        ).fetchall()
    return [pid for (pid,) in rows]


async def test_after_the_listening_connection_was_killed_a_node_learns_what_changed_meanwhile(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    async with world.node() as node:
        [listener] = await listeners(world)
        with psycopg.connect(world.owner_url) as connection:  # one transaction: it is dead before it can hear of it
            connection.execute("SELECT pg_terminate_backend(%s, 5000)", [listener])
            connection.execute("UPDATE device SET name = 'Newer mount' WHERE uid = %s", [world.site.mount_uid])
        now = await graph(world)
        with trio.fail_after(PATIENCE_S):
            while (await node.hear(EventGraphChanged)).revision != now["revision"]:
                pass
        rename(world, "Newest mount")  # and it listens again
        newest = await graph(world)
        with trio.fail_after(PATIENCE_S):
            while (await node.hear(EventGraphChanged)).revision != newest["revision"]:
                pass
        said = [record.getMessage() for record in caplog.records if "skygw_graph" in record.getMessage()]
        assert ["is not heard: " in line for line in said] == [True, False]
        assert "skygw_graph_feed_losses_total 1.0" in (await world.ask("GET", "/metrics")).text


async def test_a_node_client_keeps_a_copy_that_follows_the_hubs_and_is_there_without_it(
    world: World, tmp_path: Path
) -> None:
    told, heard = trio.open_memory_channel[HardwareCopy](10)

    async def token() -> str:
        return world.node_token()

    def a_client(url: str) -> NodeClient:
        return NodeClient(
            NodeConfig(
                url=f"{url.replace('http', 'ws')}/v1/ws/node",
                install_id=InstallId(world.site.install_id),
                node_type=NodeType.TELESCOPE,
                software_version="1.0",
                token=token,
                state_dir=tmp_path / "node",
            )
        )

    client = a_client(world.running.node_url)
    client.hardware.on_change(told.send)
    async with trio.open_nursery() as nursery:
        await nursery.start(client.run)
        with trio.fail_after(PATIENCE_S):
            first = await heard.receive()
            assert first.graph == (await graph(world))["resources"]
            rename(world, "Newer mount")
            second = await heard.receive()
        now = await graph(world)
        assert (second.revision, second.graph) == (now["revision"], now["resources"])
        assert (client.hardware.revision, client.hardware.graph) == (second.revision, second.graph)
        nursery.cancel_scope.cancel()

    alone = a_client("http://127.0.0.1:1")
    async with trio.open_nursery() as nursery:
        await nursery.start(alone.run)
        assert (alone.hardware.revision, alone.hardware.graph) == (second.revision, second.graph)
        assert alone.hardware.last_sync_at == second.last_sync_at
        assert alone.hardware.root == world.site.telescope_uid
        nursery.cancel_scope.cancel()
    kept = json.loads((tmp_path / "node" / "hardware.json").read_text())
    assert kept["revision"] == second.revision
