"""What a restart leaves: the latest of everything but the last two seconds, told as what it is: of before."""

import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import psycopg
import trio

from skygw.auth.development import load_or_make
from skygw.protocol.node_frames import Ping, Pong
from skygw.protocol.streams import StreamName
from tests.fakes.gateway_process import GatewayProcess, gateway_process
from tests.fakes.postgres import PostgresServer
from tests.gateway.test_streams import snapshot, stream_socket
from tests.gateway.world import PATIENCE_S, AnyWorld, ScriptedNode, Site, gateway, world_of
from tests.routers.stream_doors import StreamSocket

DEVICES, PRESENCE = StreamName.DEVICE_SNAPSHOT, StreamName.NODE_PRESENCE


@asynccontextmanager
async def to_be_killed(postgres: PostgresServer, data_dir: Path) -> AsyncIterator[AnyWorld]:
    """A gateway in a process of its own."""
    async with gateway_process(data_dir, database_url=postgres.gateway_url) as process:
        key = await trio.to_thread.run_sync(load_or_make, data_dir)
        async with world_of(AnyWorld, process, key, postgres.owner_url) as world:
            yield world


async def written(postgres: PostgresServer, site: Site, text: str) -> None:
    """Waits until this is in the database."""
    with trio.fail_after(PATIENCE_S), psycopg.connect(postgres.gateway_url, autocommit=True) as connection:
        while True:
            row = connection.execute(
                "SELECT data FROM skygw.retained_value WHERE uid = %s", [site.mount_uid]
            ).fetchone()
            if row is not None and text in row[0]:
                return
            await trio.sleep(0.05)


async def told(socket: StreamSocket, stream: StreamName, site: Site) -> dict[str, Any]:
    """What there is of this site."""
    await socket.subscribe(stream, stream.value, filter={"install_id": str(site.install_id)})
    _, value, _ = await socket.hear_kinds("ack", f"event_{stream.value}", "event_live")
    return value


@asynccontextmanager
async def back(world: AnyWorld, site: Site) -> AsyncIterator[ScriptedNode]:
    """The node of a site that another gateway knew."""
    hello = world.a_hello(site.install_id)
    async with world.socket(token=world.node_token(site.install_id), hello=hello) as node:
        await node.greet()
        yield node


async def test_after_a_kill_what_was_kept_is_told_as_of_before_until_the_node_says_it_again(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with to_be_killed(postgres, tmp_path) as killed, killed.node() as node:
        site = killed.site
        await node.say(snapshot(site.mount_uid, 1, n=1))
        await written(postgres, site, '"n":1')
        await node.say(snapshot(site.mount_uid, 2, n=2), Ping(id="taken"))
        await node.hear(Pong)
        assert isinstance(killed.running, GatewayProcess)
        os.kill(killed.running.pid, signal.SIGKILL)

    async with gateway(postgres, tmp_path) as following, stream_socket(following) as socket:
        restored, uncertain = await told(socket, DEVICES, site), await told(socket, PRESENCE, site)
        shown = (await following.ask("GET", f"/internal/nodes/{site.install_id}")).json()["streams"]
        async with back(following, site) as node:
            (here,) = await socket.hear_kinds("event_node_presence")
            await node.say(snapshot(site.mount_uid, 1, n=2))
            (fresh,) = await socket.hear_kinds("event_device_snapshot")
        (gone,) = await socket.hear_kinds("event_node_presence")

    assert restored["data"]["n"] in (1, 2)  # the second may have been written in time
    assert (restored["stale"], restored["max_silence_s"]) == ("gateway_restarted", 30.0)
    assert [(view["stream"], view["uid"], view["stale"]) for view in shown] == [
        ("device_snapshot", str(site.mount_uid), "gateway_restarted")
    ]
    assert (uncertain["data"]["state"], uncertain["data"]["reason"]) == ("uncertain", "gateway_restarted")
    assert (here["data"]["state"], here["data"]["epoch"]) == ("online", uncertain["data"]["epoch"] + 1)
    assert (fresh["data"]["n"], "stale" in fresh) == (2, False)
    assert gone["data"]["state"] == "offline"


async def test_a_gateway_that_ends_in_order_loses_nothing(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as first, first.node() as node:
        site = first.site
        await node.say(snapshot(site.mount_uid, 1, n=1), Ping(id="taken"))
        await node.hear(Pong)
    async with gateway(postgres, tmp_path) as following, stream_socket(following) as socket:
        restored = await told(socket, DEVICES, site)
    assert restored["data"]["n"] == 1
