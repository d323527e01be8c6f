"""A node that sends too much ends its own socket and no other, loses nothing that was taken, and may come back."""

import json
from pathlib import Path
from uuid import uuid4

import trio

from skygw.client.config import NodeConfig
from skygw.client.node import NodeClient
from skygw.protocol.gateway_frames import Ack
from skygw.protocol.node_frames import NodeType, Ping, Pong, SnapshotStream
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, AnyWorld, gateway

NOON = "2026-11-22T12:00:00Z"


def lines(first: int, last: int) -> str:
    return json.dumps(
        [{"kind": "publish_log", "seq": seq, "data": {"n": seq}, "observed_at": NOON} for seq in range(first, last + 1)]
    )


def snapshots(world: AnyWorld, count: int) -> str:
    return json.dumps(
        [
            {
                "kind": "publish_snapshot",
                "stream": "device_snapshot",
                "data": {"uid": str(world.site.mount_uid)},
                "observed_at": NOON,
                "live_seq": live_seq,
            }
            for live_seq in range(1, count + 1)
        ]
    )


async def test_a_flood_ends_its_own_socket_and_what_was_taken_before_is_kept(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path, node_frames_per_s=20) as world, world.bystander() as bystander:
        outbox = uuid4()
        async with world.node(outbox_uid=outbox) as node:
            assert node.welcome is not None
            assert node.welcome.limits.frames_per_s == 20
            await node.say(lines(1, 100))
            while (await node.hear(Ack)).seq < 100:
                pass
            await node.say(snapshots(world, 250))
            code, reason = await node.closed()
        assert code == 4005
        assert "frames in" in reason
        assert (await world.node_view())["lastClose"]["reason"] == reason
        assert await bystander.is_served()
        async with world.node(outbox_uid=outbox) as again:
            assert again.welcome is not None
            assert again.welcome.acked_seq == 100
            await again.say(Ping(id="welcome again"))
            assert (await again.hear(Pong)).id == "welcome again"


async def test_a_line_of_63_kib_is_kept(postgres: PostgresServer, tmp_path: Path) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        line = {"kind": "publish_log", "seq": 1, "data": {"text": "x" * 63 * 1024}, "observed_at": NOON}
        await node.say(json.dumps(line))
        assert (await node.hear(Ack)).seq == 1


async def test_a_client_that_was_closed_for_one_burst_comes_back_and_stays(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path, node_frames_per_s=50) as world:

        async def token() -> str:
            return world.node_token()

        client = NodeClient(
            NodeConfig(
                url=f"ws{world.running.node_url.removeprefix('http')}/v1/ws/node",
                install_id=world.site.install_id,
                node_type=NodeType.TELESCOPE,
                software_version="1.0",
                token=token,
                state_dir=tmp_path / "state",
            ),
            chance=lambda: 0.9,  # it comes back in 0.45 s, when a few frames may come again
        )

        def publish(number: int) -> None:
            client.publish_snapshot(
                SnapshotStream.DEVICE_SNAPSHOT, {"uid": str(world.site.mount_uid), "number": number}
            )

        async with trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE_S):
                await nursery.start(client.run)
                await client.wait_connected()
                while client.last_end is None:
                    publish(0)
                    await trio.lowlevel.checkpoint()
                first_end = client.last_end
                await client.wait_connected()
                for number in range(1, 41):
                    publish(number)
                    await trio.sleep(0.025)
            stayed, last_end = client.connected, client.last_end
            nursery.cancel_scope.cancel()
    assert first_end.code == 4005
    assert stayed
    assert last_end is first_end
