"""What a node client owes the hub, brought to a real gateway: a file in pieces, its task's reports, and their end."""

from pathlib import Path

import pytest
import trio

from skygw.client.uploads import LEAST_PIECE
from skygw.client.work_items import AssetState
from skygw.ids import TaskUid
from tests.client.owing import content_of, done, make_config, owing
from tests.fakes.postgres import PostgresServer
from tests.gateway.test_assets import observing


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    path = tmp_path / "frame.bin"
    path.write_bytes(bytes(range(256)) * 1024)
    (tmp_path / "hub").mkdir()
    return path


async def test_a_claimed_task_is_reported_on_its_file_verified_and_its_end_kept(
    postgres: PostgresServer, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, frame: Path
) -> None:
    monkeypatch.setattr("skygw.client.uploads.MOST_PIECE", LEAST_PIECE)
    async with observing(postgres, tmp_path / "hub") as (world, node):

        async def token() -> str:
            return world.node_token(node.site.install_id)

        url = world.running.node_url.replace("http", "ws", 1) + "/v1/ws/node"
        config = make_config(url, tmp_path / "state", token=token)
        async with owing(config) as owed:
            claimed = await owed.tasks.claim(at_most=1)
            task = TaskUid(node.site.task_uid)
            asset = await owed.assets.submit(
                frame,
                observation_uid=node.site.observation_uid,
                instrument_uid=node.site.instrument_uid,
                role="SCIENCE_LIGHT",
                content_type="application/octet-stream",
                task_uid=task,
            )
            await owed.tasks.progress(task, phase="exposing", progress=0.5)
            await owed.tasks.complete(task, status="completed", assets=[asset.uid])
            with trio.fail_after(30):
                ended = await owed.assets.settled(asset.uid)
            await done(owed.work)
            told = await owed.tasks.get(task)
        held = (await world.ask("GET", f"/internal/assets/{ended.hub_uid}/content")).content

    assert [one["uid"] for one in claimed] == [str(task)]
    assert ended.state is AssetState.VERIFIED
    assert held == content_of(frame)
    assert told["status"] == "completed"
