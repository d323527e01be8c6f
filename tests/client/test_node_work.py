"""Tasks and files of a node client that also holds a socket: what is shown on site, and what the hub asks of it."""

import os
from pathlib import Path
from uuid import UUID, uuid4

import pytest
import trio

from skygw.client.node import DirectCall, NodeClient, TaskChanged, TaskDirective
from skygw.client.owed_work import Dialled
from skygw.ids import TaskUid
from skygw.protocol.node_frames import DirectError, DirectResponseEnd, DirectResponseStart, Ping, Pong
from tests.client.conftest import MakeConfig, running
from tests.client.owing import PATIENCE_S, content_of, delete, until
from tests.fakes.gateway import FakeGateway, FakeSession
from tests.fakes.hub import FakeHub, fake_hub, refusal

TASK = TaskUid(UUID(int=7))
SIZE = 60_000


def at(hub: FakeHub) -> Dialled:
    return lambda: ("127.0.0.1", hub.port)


async def submitted(client: NodeClient, path: Path, *, is_remote: bool = False) -> UUID:
    asset = await client.assets.submit(
        path,
        observation_uid=UUID(int=1),
        instrument_uid=UUID(int=2),
        role="SCIENCE_LIGHT",
        content_type="image/fits",
        task_uid=TASK,
        is_remote=is_remote,
    )
    with trio.fail_after(PATIENCE_S):
        settled = await client.assets.settled(asset.uid)
    assert settled.hub_uid is not None
    return settled.hub_uid


@pytest.fixture
def frame(tmp_path: Path) -> Path:
    path = tmp_path / "frame.fits"
    path.write_bytes(os.urandom(SIZE))
    return path


async def test_what_is_owed_and_what_was_refused_is_shown_on_site(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    async with fake_hub() as hub:
        hub.before = lambda _: refusal(503, "draining", retry="after", retry_after_s=60)
        client = NodeClient(make_config(), dialled=at(hub))
        with pytest.raises(RuntimeError, match=r"run\(\) first"):
            _ = client.tasks
        async with running(client):
            await client.tasks.progress(TASK, phase="exposing", progress=0.5)
            owing = client.status
        hub.before = lambda _: refusal(422, "invalid")
        async with running(client):
            await until(lambda: bool(client.failed_items))
            refused, (item,) = client.status, client.failed_items
            hub.before = None
            again = await client.try_again(item.uid)
            await until(lambda: bool(hub.effects))
        after = client.status

    assert (owing.owed, owing.set_aside) == (1, 0)
    assert (refused.owed, refused.set_aside) == (0, 1)
    assert item.reason == "invalid: No: invalid."
    assert again
    assert (after.owed, after.set_aside) == (0, 0)


async def test_what_the_hub_directs_in_an_answer_reaches_the_handler_of_tasks(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    told: list[TaskChanged] = []
    heard = trio.Event()
    async with fake_hub() as hub:
        client = NodeClient(make_config(), dialled=at(hub))

        @client.on_task_changed
        async def hear(said: TaskChanged) -> None:
            told.append(said)
            heard.set()

        async with running(client):
            await client.tasks.progress(TASK, phase="exposing", progress=0.5)
            await until(lambda: bool(hub.effects))
            hub.directive = "abort"
            await client.tasks.progress(TASK, phase="exposing", progress=0.6)
            with trio.fail_after(PATIENCE_S):
                await heard.wait()

    assert told == [TaskChanged(TASK, None, TaskDirective.ABORT, "because")]


async def test_a_new_link_ends_the_wait_for_a_hub_that_was_away(gateway: FakeGateway, make_config: MakeConfig) -> None:
    async with fake_hub() as hub:
        hub.before = lambda _: refusal(503, "draining", retry="after", retry_after_s=600)
        client = NodeClient(make_config(), dialled=at(hub))
        async with running(client):
            session = await gateway.accept()
            await client.tasks.complete(TASK, status="completed")
            await until(lambda: bool(hub.asked))
            hub.before = None
            await session.welcome()
            await until(lambda: bool(hub.effects))

    assert hub.kinds(TASK) == ["complete"]


async def answer_of(session: FakeSession, operation: str, **params: object) -> tuple[list[object], bytes]:
    """What came for one request: its frames, and its payload."""
    session.heard.clear()
    request = session.request(operation, dict(params))
    await session.say(request)
    while not any(isinstance(frame, DirectResponseEnd | DirectError) for frame in session.heard):
        await session.next()
    chunks = b"".join(bytes(chunk.payload) for chunk in session.heard if hasattr(chunk, "payload"))
    return list(session.heard), chunks


async def test_the_hub_reads_declared_files_by_their_uid_and_nothing_else(
    gateway: FakeGateway, make_config: MakeConfig, frame: Path
) -> None:
    async with fake_hub() as hub:
        client = NodeClient(make_config(), dialled=at(hub))
        async with running(client):
            session = await gateway.accept()
            await session.welcome()
            uid = await submitted(client, frame, is_remote=True)
            _, whole = await answer_of(session, "asset.read", asset_uid=str(uid))
            heard, part = await answer_of(session, "asset.read", asset_uid=str(uid), offset=SIZE - 10, length=100)
            beyond, _ = await answer_of(session, "asset.read", asset_uid=str(uid), offset=SIZE + 1)
            unknown, _ = await answer_of(session, "asset.read", asset_uid=str(uuid4()))
            path, _ = await answer_of(session, "asset.read", asset_uid=str(frame))
            content = content_of(frame)
            delete(frame)
            gone, _ = await answer_of(session, "asset.read", asset_uid=str(uid))

    assert whole == content
    assert part == content[-10:]
    starts = [one for one in heard if isinstance(one, DirectResponseStart)]
    assert [start.total_size for start in starts] == [10]
    refusals = [[one.code for one in said if isinstance(one, DirectError)] for said in (beyond, unknown, path, gone)]
    assert refusals == [["invalid"], ["not_found"], ["invalid"], ["not_found"]]


async def test_a_remote_file_is_uploaded_when_the_hub_asks_and_asking_twice_changes_nothing(
    gateway: FakeGateway, make_config: MakeConfig, frame: Path
) -> None:
    async with fake_hub() as hub:
        client = NodeClient(make_config(), dialled=at(hub))
        async with running(client):
            session = await gateway.accept()
            await session.welcome()
            uid = await submitted(client, frame, is_remote=True)
            hub.wanted.add(str(uid))
            for _ in range(2):
                await answer_of(session, "asset.upload", asset_uid=str(uid))
            await until(lambda: any(one["transferState"] == "completed" for one in hub.assets.values()))

    (upload,) = hub.uploads.values()
    assert bytes(upload.held) == content_of(frame)
    assert len(hub.uploads) == 1


async def test_an_embedder_may_have_operations_of_its_own(
    gateway: FakeGateway, make_config: MakeConfig, frame: Path
) -> None:
    async with fake_hub() as hub:
        client = NodeClient(make_config(), dialled=at(hub))

        @client.operation("asset.read", effects="transfer")
        async def mine(call: DirectCall) -> None:
            await call.start("text/plain", total_size=4)
            await call.send(b"mine")

        async with running(client):
            session = await gateway.accept()
            await session.welcome()
            _, payload = await answer_of(session, "asset.read", asset_uid=str(uuid4()))

    assert payload == b"mine"


async def test_the_round_trip_is_asked_for_while_a_file_goes_up(
    gateway: FakeGateway, make_config: MakeConfig, frame: Path
) -> None:
    asked: list[str] = []
    async with fake_hub() as hub, trio.open_nursery() as nursery:
        client = NodeClient(make_config(), dialled=at(hub))

        async def answer(session: FakeSession) -> None:
            while True:
                ping = await session.hear(Ping)
                asked.append(ping.id or "")
                await session.say(Pong(id=ping.id))

        async with running(client):
            session = await gateway.accept()
            await session.welcome()
            nursery.start_soon(answer, session)
            await submitted(client, frame)
            nursery.cancel_scope.cancel()

    assert len(set(asked)) == len(asked) > 2
    (upload,) = hub.uploads.values()
    assert bytes(upload.held) == content_of(frame)
