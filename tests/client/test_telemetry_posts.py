"""A node without a socket: what it publishes is posted in order, forgotten when committed, posted again when not."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pytest
import trio

from skygw.client.hub_http import HubHttp
from skygw.client.lanes import Snapshots
from skygw.client.outbox import Outbox
from skygw.client.telemetry_posts import TelemetryPosts
from skygw.protocol.json_text import Opaque
from skygw.protocol.limits import MIB
from skygw.protocol.node_frames import PublishLog, PublishSnapshot, SnapshotStream
from tests.client.owing import a_token, until
from tests.fakes.hub import Answer, Asked, Cut, fake_hub


def snapshot(number: int) -> PublishSnapshot:
    return PublishSnapshot(
        stream=SnapshotStream.DEVICE_SNAPSHOT,
        data=Opaque.of({"uid": "m", "number": number}),
        observed_at=datetime.now(UTC),
        live_seq=number,
    )


async def test_frames_are_posted_in_order_and_again_when_the_answer_is_lost(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    outbox = await Outbox.open(tmp_path, max_bytes=MIB)
    snapshots = Snapshots()
    snapshots.put("m", snapshot(1))
    for number in range(150):
        await outbox.append(PublishLog(seq=1, data=Opaque.of({"number": number}), observed_at=datetime.now(UTC)))
    posts: list[list[dict[str, object]]] = []

    def take(asked: Asked) -> Answer | None:
        frames = json.loads(asked.body)
        assert asked.path == f"me/telemetry?outboxUid={outbox.outbox_uid}"
        posts.append(frames)
        if len(posts) == 2:
            raise Cut
        refused = {"code": "invalid", "detail": "Not this one."} if len(posts) == 1 else {}
        return Answer(200, {"ackedSeq": max(frame.get("seq", 0) for frame in frames), "items": [refused]})

    async with fake_hub() as hub, trio.open_nursery() as nursery:
        hub.before = take
        http = HubHttp(hub.socket_url, a_token)
        async with http.opened():
            nursery.start_soon(TelemetryPosts(outbox, snapshots, http, every_s=0.01, chance=lambda: 0.0).run)
            await until(lambda: outbox.acked == 150)
            snapshots.put("m", snapshot(2))
            sent = len(posts)
            await until(lambda: len(posts) > sent)
            nursery.cancel_scope.cancel()
    await outbox.close()

    seqs = [[frame["seq"] for frame in post if "seq" in frame] for post in posts]
    assert seqs[0] == list(range(1, 65))
    assert seqs[1] == seqs[2] == list(range(65, 129))
    assert seqs[3] == list(range(129, 151))
    said = [frame["data"] for post in posts for frame in post if frame["kind"] == "publish_snapshot"]
    assert said == [{"uid": "m", "number": 1}, {"uid": "m", "number": 1}, {"uid": "m", "number": 2}]
    assert "the hub refuses frame 0 of a post: invalid: Not this one." in caplog.messages
