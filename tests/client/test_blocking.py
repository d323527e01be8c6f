"""The node for programs that are not Trio: driven from a thread, against a gateway over a real socket."""

import threading
from pathlib import Path
from uuid import UUID

import pytest
import trio

from skygw.client.blocking import BlockingCall, BlockingCommand, BlockingNode, NodeStopped
from skygw.client.commands import CommandOutcome
from skygw.client.node import LeaseOver, OnExpiry
from skygw.client.node_state import StateUnreadable
from skygw.ids import TelescopeUid
from skygw.protocol.gateway_frames import CancelCommand, CancelMode, DirectCancel, EventManualControlLease
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import (
    CanceledHow,
    DirectResponseEnd,
    DirectResponseStart,
    PublishLog,
    PublishSnapshot,
    SnapshotStream,
)
from tests.client.conftest import MakeConfig
from tests.fakes.gateway import PATIENCE_S, FakeGateway


async def test_a_blocking_operation_answers_and_reports_come_from_any_thread(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    node = BlockingNode(make_config())
    threads: list[str] = []

    @node.operation("device.read", effects="none")
    def read(call: BlockingCall) -> None:
        threads.append(threading.current_thread().name)
        call.start("text/plain", total_size=4)
        call.send(b"20.5")

    await trio.to_thread.run_sync(node.start)
    try:
        session = await gateway.accept()
        await session.welcome()
        connected = await trio.to_thread.run_sync(node.wait_connected, PATIENCE_S)
        await trio.to_thread.run_sync(node.publish_snapshot, SnapshotStream.DEVICE_SNAPSHOT, {"uid": "mount"})
        seq = await trio.to_thread.run_sync(node.publish_log, {"text": "hello"})
        log = await session.hear(PublishLog)
        snapshots = [heard for heard in session.heard if isinstance(heard, PublishSnapshot)]
        await session.say(session.request("device.read"))
        end = await session.hear(DirectResponseEnd)
    finally:
        await trio.to_thread.run_sync(node.stop)

    assert connected
    assert (seq, log.seq, len(snapshots)) == (1, 1, 1)
    assert end.total_size == 4
    assert threads != [threading.current_thread().name]


async def test_a_blocking_command_hears_its_cancel(gateway: FakeGateway, make_config: MakeConfig) -> None:
    node = BlockingNode(make_config())
    started = threading.Event()

    @node.command_handler
    def handle(command: BlockingCommand) -> CommandOutcome:
        command.progress(0.1)
        started.set()
        while not command.wait_cancel(60.0):
            pass
        return CommandOutcome.interrupted(proof={"devices": []})

    await trio.to_thread.run_sync(node.start)
    try:
        session = await gateway.accept()
        await session.welcome()
        order = session.command({"command_type": "mount.point"})
        await session.say(order)
        await trio.to_thread.run_sync(started.wait, PATIENCE_S)
        await session.say(
            CancelCommand(
                command_id=order.command_id, mode=CancelMode.IMMEDIATE, epoch=session.epoch, t_ms=session.t_ms()
            )
        )
        result = await session.ended_command(order.command_id)
    finally:
        await trio.to_thread.run_sync(node.stop)

    assert (result.status, result.canceled) == ("canceled", CanceledHow.INTERRUPTED)
    assert result.proof is not None


async def test_a_stop_finds_a_thread_while_other_commands_hold_all_of_theirs(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    node = BlockingNode(make_config())
    released = threading.Event()

    @node.command_handler
    def handle(command: BlockingCommand) -> CommandOutcome:
        if not command.safing:
            released.wait(PATIENCE_S)
        return CommandOutcome.completed()

    await trio.to_thread.run_sync(node.start)
    try:
        session = await gateway.accept()
        await session.welcome()
        for _ in range(40):
            await session.say(session.command({"command_type": "camera.exposure.start"}))
        stop = session.command({"command_type": "camera.exposure.abort"})
        await session.say(stop)
        result = await session.ended_command(stop.command_id)
    finally:
        released.set()
        await trio.to_thread.run_sync(node.stop)

    assert result.status == "completed"


async def test_a_blocking_operation_is_told_that_nobody_waits(gateway: FakeGateway, make_config: MakeConfig) -> None:
    node = BlockingNode(make_config())
    unwound = threading.Event()
    gone = threading.Event()

    @node.operation("log.tail", effects="none")
    def tail(call: BlockingCall) -> None:
        call.start("text/plain")
        try:
            while True:
                gone.wait(0.01)
                call.check_cancelled()
        finally:
            unwound.set()

    await trio.to_thread.run_sync(node.start)
    try:
        session = await gateway.accept()
        await session.welcome()
        request = session.request("log.tail")
        await session.say(request)
        await session.hear(DirectResponseStart)
        await session.say(DirectCancel(id=request.id, reason="gone"))
        told = await trio.to_thread.run_sync(unwound.wait, PATIENCE_S)
    finally:
        await trio.to_thread.run_sync(node.stop)

    assert told


async def test_a_blocking_node_follows_a_lease_that_runs_out_in_a_thread(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    node = BlockingNode(make_config())
    followed: list[LeaseOver] = []
    done = threading.Event()

    @node.on_lease_over
    def stop_everything(over: LeaseOver) -> None:
        followed.append(over)
        done.set()

    lease = EventManualControlLease(
        telescope_uid=TelescopeUid(UUID(int=7)), holder=Opaque.of({"service": "web"}), fence=3, expires_in_ms=50, t_ms=0
    )
    await trio.to_thread.run_sync(node.start)
    try:
        await (await gateway.accept()).welcome(followed_by=[lease])
        came = await trio.to_thread.run_sync(done.wait, PATIENCE_S)
    finally:
        await trio.to_thread.run_sync(node.stop)
    assert came
    assert [(over.telescope_uid, over.policy) for over in followed] == [(lease.telescope_uid, OnExpiry.SAFE_SHUTDOWN)]


async def test_what_keeps_a_node_from_starting_is_raised_where_it_is_started(
    gateway: FakeGateway, make_config: MakeConfig, tmp_path: Path
) -> None:
    (tmp_path / "state").mkdir()
    (tmp_path / "state" / "node.json").write_text("{}")
    node = BlockingNode(make_config())
    with pytest.raises(StateUnreadable, match="is damaged"):
        await trio.to_thread.run_sync(node.start)


async def test_a_stopped_node_says_so_and_can_be_stopped_again(gateway: FakeGateway, make_config: MakeConfig) -> None:
    node = BlockingNode(make_config())
    with pytest.raises(NodeStopped):
        await trio.to_thread.run_sync(node.publish_log, {"text": "too early"})
    await trio.to_thread.run_sync(node.start)
    await trio.to_thread.run_sync(node.stop)
    await trio.to_thread.run_sync(node.stop)
    with pytest.raises(NodeStopped):
        await trio.to_thread.run_sync(node.publish_log, {"text": "too late"})

    assert not node.connected
