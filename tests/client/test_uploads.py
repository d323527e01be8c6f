"""Files reach the hub whole: declared, resumed where the hub says they are, watched until it has looked at them."""

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

from skygw.client.node_assets import NodeAssets
from skygw.client.uploads import LEAST_PIECE
from skygw.client.work_items import Asset, AssetState
from skygw.errors import NotFound
from skygw.ids import TaskUid
from tests.client.owing import PATIENCE_S, content_of, done, make_config, owing
from tests.fakes.hub import Answer, Asked, Cut, FakeHub, fake_hub, refusal

TASK = TaskUid(UUID(int=7))


def a_file(directory: Path, size: int = 200_000, *, name: str = "frame.fits") -> Path:
    path = directory / name
    path.write_bytes(os.urandom(size))
    return path


async def submit(assets: NodeAssets, path: Path, *, task: TaskUid | None = TASK, is_remote: bool = False) -> Asset:
    return await assets.submit(
        path,
        observation_uid=UUID(int=1),
        instrument_uid=UUID(int=2),
        role="SCIENCE_LIGHT",
        content_type="image/fits",
        task_uid=task,
        is_remote=is_remote,
    )


async def settled(assets: NodeAssets, uid: UUID) -> Asset:
    with trio.fail_after(PATIENCE_S):
        return await assets.settled(uid)


def patches(hub: FakeHub) -> list[int]:
    return [int(asked.headers["upload-offset"]) for asked in hub.asked if asked.method == "PATCH"]


@pytest.fixture
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """So that a file of a test has several."""
    monkeypatch.setattr("skygw.client.uploads.MOST_PIECE", LEAST_PIECE)


async def test_a_file_is_declared_uploaded_and_verified(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        asset = await submit(owed.assets, path)
        ended = await settled(owed.assets, asset.uid)
        by_hub_uid = await owed.assets.get(ended.hub_uid or uuid4())

    (upload,) = hub.uploads.values()
    assert bytes(upload.held) == content_of(path)
    assert (ended.state, ended.offset, by_hub_uid) == (AssetState.VERIFIED, 200_000, ended)
    declared = hub.asset(upload)
    assert declared["fileName"] == "frame.fits"
    assert declared["sha256"] == upload.sha256
    assert "isRemote" not in declared
    assert {asked.headers["host"] for asked in hub.asked} == {f"127.0.0.1:{hub.port}"}


async def test_an_upload_that_is_cut_again_and_again_goes_on_from_what_the_hub_has(
    tmp_path: Path, small_pieces: None
) -> None:
    path = a_file(tmp_path, 8 * LEAST_PIECE)
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        hub.cut_bodies_at = [1, 60_000, 10_000_000, 20_000, 10_000_000, LEAST_PIECE]
        asset = await submit(owed.assets, path)
        ended = await settled(owed.assets, asset.uid)

    (upload,) = hub.uploads.values()
    assert ended.state is AssetState.VERIFIED
    assert bytes(upload.held) == content_of(path)
    assert hub.cut_bodies_at == []
    assert patches(hub) == [at * LEAST_PIECE for at in range(8)]  # those whose body came whole


async def test_an_upload_whose_answers_are_lost_sends_nothing_twice_into_the_file(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    lost: list[int] = []

    def lose(asked: Asked) -> Answer | None:
        if asked.method == "PATCH" and len(lost) < 2:
            lost.append(len(asked.body))
            raise Cut
        return None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        hub.after = lose
        asset = await submit(owed.assets, path)
        ended = await settled(owed.assets, asset.uid)

    assert ended.state is AssetState.VERIFIED
    assert sum(lost) > 0
    assert [bytes(upload.held) for upload in hub.uploads.values()] == [content_of(path)]


async def test_an_upload_goes_on_in_the_next_run_of_the_program(tmp_path: Path, small_pieces: None) -> None:
    path = a_file(tmp_path, 6 * LEAST_PIECE)
    half = trio.Event()

    def halt(asked: Asked) -> Answer | None:
        if asked.method == "PATCH" and int(asked.headers["upload-offset"]) > 0:
            half.set()
            raise Cut
        return None

    async with fake_hub() as hub:
        config = make_config(hub.socket_url, tmp_path / "state")
        hub.before = halt
        async with owing(config) as owed:
            asset = await submit(owed.assets, path)
            with trio.fail_after(PATIENCE_S):
                await half.wait()
        sent = patches(hub)
        hub.before = None
        async with owing(config) as owed:
            ended = await settled(owed.assets, asset.uid)

    assert ended.state is AssetState.VERIFIED
    assert [bytes(upload.held) for upload in hub.uploads.values()] == [content_of(path)]
    assert patches(hub)[len(sent)] > 0


async def test_bytes_that_are_changed_on_the_way_are_sent_again_and_not_the_whole_file(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    refused: list[str] = []

    def changed(asked: Asked) -> Answer | None:
        if asked.method == "PATCH" and not refused:
            refused.append(asked.path)
            return refusal(460, None)
        return None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        hub.before = changed
        asset = await submit(owed.assets, path)
        ended = await settled(owed.assets, asset.uid)

    assert ended.state is AssetState.VERIFIED
    assert len(refused) == 1


async def test_an_upload_that_expired_at_the_hub_is_declared_anew(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    gone: list[str] = []

    def expire(asked: Asked) -> Answer | None:
        if asked.method == "HEAD" and not gone:
            gone.append(asked.path)
            # A HEAD has no body: the status alone says it.
            return Answer(410)
        return None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        hub.before = expire
        asset = await submit(owed.assets, path)
        ended = await settled(owed.assets, asset.uid)
        await done(owed.work)

    assert ended.state is AssetState.VERIFIED
    assert [asked.path for asked in hub.asked].count("me/assets") == 2


async def test_reports_name_files_by_the_hubs_uids_and_go_after_their_declaration(tmp_path: Path) -> None:
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        result = uuid4()
        assets = [await submit(owed.assets, a_file(tmp_path, name=f"{n}.fits")) for n in range(2)]
        await owed.tasks.results(TASK, {result: [asset.uid for asset in assets]})
        await owed.tasks.complete(TASK, status="completed", assets=[asset.uid for asset in assets])
        await done(owed.work)
        ended = [await owed.assets.get(asset.uid) for asset in assets]

    hub_uids = [str(asset.hub_uid) for asset in ended]
    assert set(hub_uids) == set(hub.assets)
    (_, _, results), (_, _, complete) = hub.effects
    assert results["results"] == [{"resultUid": str(result), "assetUids": hub_uids}]
    assert complete["assets"] == hub_uids


async def test_the_end_of_a_task_does_not_wait_for_its_files(tmp_path: Path) -> None:
    def stuck(asked: Asked) -> Answer | None:
        return refusal(500, "internal", retry="query_first") if "uploads" in asked.path else None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        hub.before = stuck
        asset = await submit(owed.assets, a_file(tmp_path))
        await owed.tasks.complete(TASK, status="completed", assets=[asset.uid])
        with trio.fail_after(PATIENCE_S):
            while not hub.effects:
                await owed.work.changed.wait()

    assert hub.kinds(TASK) == ["complete"]


async def test_a_file_whose_declaration_is_refused_is_set_aside_and_left_out_of_the_reports(tmp_path: Path) -> None:
    def refuse(asked: Asked) -> Answer | None:
        if asked.path == "me/assets" and asked.json()["fileName"] == "bad.fits":
            return refusal(422, "invalid")
        return None

    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        hub.before = refuse
        good = await submit(owed.assets, a_file(tmp_path))
        bad = await submit(owed.assets, a_file(tmp_path, name="bad.fits"))
        await owed.tasks.complete(TASK, status="completed", assets=[good.uid, bad.uid])
        await done(owed.work, failed=1)
        failed, (item,) = await settled(owed.assets, bad.uid), owed.work.failed

    assert failed.state is AssetState.FAILED
    assert (item.uid, item.kind, item.task_uid) == (bad.uid, "declare", TASK)
    ((_, _, complete),) = hub.effects
    assert complete["assets"] == list(hub.assets)


async def test_a_file_that_was_changed_after_it_was_submitted_is_set_aside(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:

        def shorten(asked: Asked) -> Answer | None:
            os.truncate(path, 10)
            return None

        hub.before = shorten
        asset = await submit(owed.assets, path)
        ended = await settled(owed.assets, asset.uid)
        (item,) = owed.work.failed

    assert ended.state is AssetState.FAILED
    assert item.kind == "upload"
    assert "has 10 bytes now and had 200000" in item.reason
    assert patches(hub) == []


async def test_a_file_that_the_hub_finds_bad_is_set_aside_with_its_words(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:

        def overwrite(asked: Asked) -> Answer | None:
            if asked.path == "me/assets":
                path.write_bytes(os.urandom(200_000))  # the same size: only its digest tells
            return None

        hub.before = overwrite
        asset = await submit(owed.assets, path)
        ended = await settled(owed.assets, asset.uid)

    assert ended.state is AssetState.FAILED
    assert ended.reason == "failed: The digest differs."


async def test_a_remote_file_is_told_of_and_its_bytes_stay(tmp_path: Path) -> None:
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state")) as owed:
        asset = await submit(owed.assets, a_file(tmp_path), is_remote=True)
        ended = await settled(owed.assets, asset.uid)
        await done(owed.work)

    assert ended.state is AssetState.REMOTE
    assert hub.assets[str(ended.hub_uid)]["isRemote"] is True
    assert hub.uploads == {}


async def test_the_same_file_submitted_again_is_the_same_asset(tmp_path: Path) -> None:
    path = a_file(tmp_path)
    async with fake_hub() as hub, owing(make_config(hub.socket_url, tmp_path / "state"), deliver=False) as owed:
        first = await submit(owed.assets, path)
        again = await submit(owed.assets, path)
        another = await submit(owed.assets, path, task=None)
        with pytest.raises(NotFound):
            await owed.assets.get(uuid4())
        with pytest.raises(FileNotFoundError):
            await submit(owed.assets, tmp_path / "none.fits")

    assert first.uid == again.uid != another.uid
    assert hub.asked == []
