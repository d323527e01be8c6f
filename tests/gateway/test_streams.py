"""What a node says reaches the hub's services by both doors of the streams, through a whole gateway."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any
from uuid import uuid4

import trio
from prometheus_client.parser import text_string_to_metric_families
from trio_websocket import wrap_client_stream

from skygw.protocol.gateway_frames import Ack
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import Error, PublishLog, PublishSnapshot, SnapshotStream
from skygw.protocol.schemas import STREAM_SOCKET_PATH
from skygw.protocol.streams import StreamName
from skygw.protocol.subscriber_frames import SUBSCRIBER_SUBPROTOCOL
from tests.fakes.moments import NOW
from tests.fakes.postgres import PostgresServer
from tests.gateway.world import PATIENCE_S, World, bearer, gateway
from tests.routers.stream_doors import EventSource, StreamSocket
from tests.serving.served import Peer

DEVICES = StreamName.DEVICE_SNAPSHOT


@asynccontextmanager
async def stream_socket(world: World) -> AsyncIterator[StreamSocket]:
    stream = await trio.open_tcp_stream("127.0.0.1", world.internal_port)
    try:
        async with trio.open_nursery() as nursery:
            with trio.fail_after(PATIENCE_S):
                socket = await wrap_client_stream(
                    nursery,
                    stream,
                    "127.0.0.1",
                    STREAM_SOCKET_PATH,
                    subprotocols=[SUBSCRIBER_SUBPROTOCOL],
                    extra_headers=bearer(world.service_token("streams:read")),
                )
            yield StreamSocket(socket)
            nursery.cancel_scope.cancel()
    finally:
        stream.socket.close()


@asynccontextmanager
async def event_source(world: World, stream: StreamName, query: str = "") -> AsyncIterator[EventSource]:
    connection = await trio.open_tcp_stream("127.0.0.1", world.internal_port)
    try:
        source = EventSource(Peer(connection, connection))
        await source.ask(f"/internal/streams/{stream.value}{query}", token=world.service_token("streams:read"))
        assert source.status == 200
        yield source
    finally:
        connection.socket.close()


def snapshot(uid: object, live_seq: int, **members: object) -> PublishSnapshot:
    return PublishSnapshot(
        stream=SnapshotStream.DEVICE_SNAPSHOT,
        data=Opaque.of({"uid": str(uid), **members}),
        observed_at=NOW,
        max_silence_s=30.0,
        live_seq=live_seq,
    )


def log_line(seq: int) -> PublishLog:
    return PublishLog(seq=seq, data=Opaque.of({"message": f"line {seq}"}), observed_at=NOW)


async def numbers(world: World) -> dict[tuple[str, tuple[str, ...]], float]:
    text = (await world.ask("GET", "/metrics")).text
    return {
        (sample.name, tuple(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_snapshots_come_through_to_both_doors_and_only_what_is_the_nodes_own(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node, stream_socket(world) as socket:
        query = f"?deviceUid={world.site.mount_uid}"
        await socket.subscribe(DEVICES, filter={"device_uid": str(world.site.mount_uid)})
        await socket.hear_kinds("ack", "event_live")
        await node.say(snapshot(world.site.mount_uid, 1, ra=1))
        await socket.hear_kinds("event_device_snapshot")
        async with event_source(world, DEVICES, query) as source:
            value, _ = await source.hear_kinds("event_device_snapshot", "event_live")
            assert (value["data"]["ra"], value["installId"]) == (1, str(world.site.install_id))
            await node.say(snapshot(uuid4(), 2))
            assert (await node.hear(Error)).code == "not_found"
            await node.say(snapshot(world.site.mount_uid, 3, ra=3))
            [change] = await source.hear_kinds("event_device_snapshot")
            [same] = await socket.hear_kinds("event_device_snapshot")
            assert change["data"]["ra"] == same["data"]["ra"] == 3
            read = await numbers(world)
            assert read["skygw_subscribers", ("sse",)] == read["skygw_subscribers", ("websocket",)] == 1
            assert read["skygw_subscriptions", ("device_snapshot",)] == 2
            assert read["skygw_deliveries_total", ("device_snapshot",)] >= 5
            assert ("skygw_log_feed_lag_seconds", ()) in read
            assert ("skygw_stale_values", ("device_snapshot",)) in read
        with trio.fail_after(PATIENCE_S):
            while (await numbers(world))["skygw_subscriptions", ("device_snapshot",)] > 1:
                await trio.lowlevel.checkpoint()


async def test_log_lines_are_told_when_they_are_committed_and_resumed_by_the_other_door(
    postgres: PostgresServer, tmp_path: Path
) -> None:
    async with gateway(postgres, tmp_path) as world, world.node() as node:
        async with stream_socket(world) as socket:
            mine = {"install_id": str(world.site.install_id)}
            await socket.subscribe(StreamName.TELESCOPE_LOG, filter=mine)
            await socket.hear_kinds("ack", "event_live")
            await node.say(log_line(1))
            assert (await node.hear(Ack)).seq == 1
            [line] = await socket.hear_kinds("event_telescope_log")
            assert line["data"] == {"message": "line 1"}
        await node.say(log_line(2), log_line(3))
        query = f"?installId={world.site.install_id}&after={line['position']}"
        async with event_source(world, StreamName.TELESCOPE_LOG, query) as source:
            lines: list[dict[str, Any]] = []
            while len(lines) < 2:  # and the sign that the replay has ended, before, between or after them
                kind, event = await source.hear()
                if kind == "event_telescope_log":
                    lines.append(event)
            assert [event["data"]["message"] for event in lines] == ["line 2", "line 3"]
            assert lines[0]["prev"] == line["position"]
