"""Whoever is on site wins, link or no link; and what the hub wants of tasks reaches the program that runs them."""

import logging
from dataclasses import replace
from typing import Any
from uuid import UUID, uuid4

import pytest
import trio
import trio.testing

from skygw.client.blocking import BlockingNode
from skygw.client.commands import Command, CommandOutcome
from skygw.client.node import NodeClient, TaskChanged, TaskDirective
from skygw.client.tasks import MAX_WAITING, TaskNews
from skygw.ids import TaskUid
from skygw.protocol.gateway_frames import EventTaskChanged
from skygw.protocol.node_frames import CommandStatus, NodeType, PublishSnapshot, SnapshotStream
from tests.client.conftest import MakeConfig, running
from tests.fakes.gateway import FakeGateway, FakeSession

TELESCOPE = str(UUID(int=7))
PARK = {"command_type": "mount.park"}
STOP = {"command_type": "mount.stop"}


def node(make_config: MakeConfig, **changed: Any) -> NodeClient:
    """It runs every command, and publishes a telescope and a device when asked for its full state."""
    client = NodeClient(replace(make_config(), **changed))

    @client.command_handler
    async def run(command: Command) -> CommandOutcome:
        return CommandOutcome.completed()

    @client.full_state
    async def publish() -> None:
        client.publish_snapshot(SnapshotStream.TELESCOPE_SNAPSHOT, {"uid": TELESCOPE})
        client.publish_snapshot(SnapshotStream.DEVICE_SNAPSHOT, {"uid": str(UUID(int=8))})

    return client


async def became(session: FakeSession, body: dict[str, Any], **said: Any) -> tuple[CommandStatus, str | None]:
    """How a command ended, and the reason."""
    command = session.command(body, **said)
    await session.say(command)
    report = await session.ended_command(command.command_id)
    return report.status, None if report.error is None else report.error.value["reason"]


async def told(session: FakeSession, stream: SnapshotStream) -> Any:
    """What the next snapshot of this stream says of local control."""
    while True:
        snapshot = await session.hear(PublishSnapshot)
        if snapshot.stream is stream:
            return snapshot.data.value.get("local_control", "unsaid")


async def test_while_somebody_on_site_has_control_only_a_stop_is_run(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = node(make_config)
    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await client.wait_connected()
        assert await became(session, PARK) == (CommandStatus.COMPLETED, None)
        client.set_local_control(True)
        assert await became(session, PARK) == (CommandStatus.REJECTED, "local_control")
        assert await became(session, PARK, epoch=0) == (CommandStatus.REJECTED, "local_control")
        assert await became(session, STOP) == (CommandStatus.COMPLETED, None)
        client.set_local_control(False)
        assert await became(session, PARK) == (CommandStatus.COMPLETED, None)


async def test_the_hub_is_told_at_once_who_has_control_on_site_if_anybody_asks_the_switch(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = node(make_config)
    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        assert await told(session, SnapshotStream.TELESCOPE_SNAPSHOT) == "unsaid"
        client.set_local_control(True)
        assert await told(session, SnapshotStream.TELESCOPE_SNAPSHOT) is True
        assert await told(session, SnapshotStream.DEVICE_SNAPSHOT) == "unsaid"
        client.set_local_control(False)
        assert await told(session, SnapshotStream.TELESCOPE_SNAPSHOT) is False


async def test_an_observatorys_node_says_it_of_its_devices_and_a_switch_that_was_on_before_the_link_counts(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = node(make_config, node_type=NodeType.OBSERVATORY)
    client.set_local_control(True)
    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        assert await told(session, SnapshotStream.DEVICE_SNAPSHOT) is True
        assert await became(session, {"command_type": "enclosure.open"}) == (CommandStatus.REJECTED, "local_control")


async def test_a_command_for_other_hardware_than_is_here_is_not_run(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    async with running(node(make_config, graph_revision=118)):
        session = await gateway.accept()
        await session.welcome()
        assert await became(session, PARK, graph_revision=117) == (CommandStatus.REJECTED, "configuration_changed")
        assert await became(session, PARK, graph_revision=118) == (CommandStatus.COMPLETED, None)
        assert await became(session, PARK) == (CommandStatus.COMPLETED, None)
        assert await became(session, STOP, graph_revision=117) == (CommandStatus.COMPLETED, None)


async def test_a_node_of_threads_has_the_switch_too(gateway: FakeGateway, make_config: MakeConfig) -> None:
    node = BlockingNode(make_config())
    said: list[TaskChanged] = []
    node.on_task_changed(said.append)
    node.set_local_control(True)
    await trio.to_thread.run_sync(node.start)
    try:
        session = await gateway.accept()
        await session.welcome()
        assert await became(session, PARK) == (CommandStatus.REJECTED, "local_control")
        await trio.to_thread.run_sync(node.set_local_control, False)
        assert not node.local_control
        assert await became(session, PARK) == (CommandStatus.REJECTED, "no_command_handler")
        await session.say(abort(TaskUid(UUID(int=1)), t_ms=session.t_ms()))
        with trio.fail_after(5):
            while not said:  # noqa: ASYNC110 - it is said in a thread
                await trio.sleep(0.01)
    finally:
        await trio.to_thread.run_sync(node.stop)
    assert said[0].directive is TaskDirective.ABORT


# Tasks.


def abort(uid: TaskUid, *, t_ms: int = 0, directive: TaskDirective = TaskDirective.ABORT) -> EventTaskChanged:
    return EventTaskChanged(task_uid=uid, directive=directive, reason="lease", t_ms=t_ms)


async def test_what_the_hub_wants_of_a_task_is_handed_on(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client, task = node(make_config), TaskUid(uuid4())
    sent, heard = trio.open_memory_channel[TaskChanged](1)

    @client.on_task_changed
    async def changed(said: TaskChanged) -> None:
        await sent.send(said)

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(abort(task, t_ms=session.t_ms()))
        with trio.fail_after(5):
            assert await heard.receive() == TaskChanged(task, None, TaskDirective.ABORT, "lease")


async def test_while_a_word_is_followed_the_newest_of_the_same_task_waits_and_of_others_none_does(
    nursery: trio.Nursery,
) -> None:
    said: list[tuple[int, TaskDirective]] = []
    first_is_over = trio.Event()

    async def follow(change: TaskChanged) -> None:
        said.append((change.task_uid.int, change.directive))
        if len(said) == 1:
            await first_is_over.wait()

    news = TaskNews(follow)
    nursery.start_soon(news.run)
    news.take(abort(TaskUid(UUID(int=1)), directive=TaskDirective.STOP))
    await trio.testing.wait_all_tasks_blocked()
    news.take(abort(TaskUid(UUID(int=1)), directive=TaskDirective.CONTINUE))
    news.take(abort(TaskUid(UUID(int=1))))
    news.take(abort(TaskUid(UUID(int=2))))
    await trio.testing.wait_all_tasks_blocked()
    assert said == [(1, TaskDirective.STOP), (2, TaskDirective.ABORT)]
    first_is_over.set()
    await trio.testing.wait_all_tasks_blocked()
    assert said[2:] == [(1, TaskDirective.ABORT)]


async def test_a_handler_that_fails_ends_nothing_and_a_flood_of_words_is_bounded(
    nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    calls = 0

    async def fail(change: TaskChanged) -> None:
        nonlocal calls
        calls += 1
        raise RuntimeError("no such task")

    news = TaskNews(fail)
    for _ in range(MAX_WAITING + 10):
        news.take(abort(TaskUid(uuid4())))
    with caplog.at_level(logging.CRITICAL, logger="skygw.client"):
        nursery.start_soon(news.run)
        await trio.testing.wait_all_tasks_blocked()
        news.take(abort(TaskUid(uuid4())))
        await trio.testing.wait_all_tasks_blocked()
    assert calls == MAX_WAITING + 1
