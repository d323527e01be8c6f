"""Commands on a node over a real socket: once, kept, cancelled, refused when late, and a stop past everything."""

from collections.abc import AsyncIterator, Callable
from contextlib import AsyncExitStack, asynccontextmanager
from typing import Any, TypeVar
from uuid import UUID, uuid4

import pytest
import trio

from skygw.client.commands import Command, CommandOutcome
from skygw.client.disk_work import DiskWork, in_a_thread
from skygw.client.journal import Journal
from skygw.client.node import NodeClient
from skygw.ids import CommandId, Epoch, TelescopeUid
from skygw.protocol.gateway_frames import (
    CancelCommand,
    CancelMode,
    EventCommand,
    EventManualControlLease,
    QueryCommand,
)
from skygw.protocol.limits import MIB
from skygw.protocol.never_received import says_never_received
from skygw.protocol.node_frames import CanceledHow, CommandStatus, Error, Ping, Pong, PublishCommandResult
from tests.client.conftest import MakeConfig, running
from tests.fakes.gateway import FakeGateway, FakeSession

T = TypeVar("T")
SLEW = {"command_type": "mount.point"}
STOP = {"command_type": "mount.stop"}


def cancel(session: FakeSession, command_id: CommandId, mode: CancelMode, grace_ms: int | None = None) -> CancelCommand:
    return CancelCommand(command_id=command_id, mode=mode, grace_ms=grace_ms, epoch=session.epoch, t_ms=session.t_ms())


async def test_a_command_is_accepted_run_and_its_outcome_published(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        await command.progress(0.5)
        return CommandOutcome.completed({"type": command.type})

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await session.say(session.command(SLEW))
        results = [await session.hear(PublishCommandResult) for _ in range(4)]

    assert [result.status for result in results] == ["accepted", "running", "running", "completed"]
    assert [result.seq for result in results] == [1, 2, 3, 4]
    assert results[2].progress == 0.5
    assert results[3].result is not None
    assert results[3].result.value == {"type": "mount.point"}


async def test_a_repeated_command_id_runs_once_also_after_a_restart_of_the_program(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    runs: list[CommandId] = []

    async def handle(command: Command) -> CommandOutcome:
        runs.append(command.id)
        return CommandOutcome.completed("first")

    first = NodeClient(make_config())
    first.command_handler(handle)
    async with running(first):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        await session.ended_command(order.command_id)
        await session.say(order)
        again = await session.ended_command(order.command_id)
    second = NodeClient(make_config())
    second.command_handler(handle)
    async with running(second):
        session = await gateway.accept()
        await session.welcome(acked_seq=again.seq)
        await session.say(session.command(SLEW, command_id=order.command_id))
        after_restart = await session.ended_command(order.command_id)

    assert runs == [order.command_id]
    assert order.command_id in session.hello.results
    assert after_restart.status == "completed"
    assert after_restart.result == again.result


@pytest.mark.parametrize("in_a_nursery", [False, True])
async def test_a_command_cut_off_by_the_end_of_the_program_is_told_as_failed(
    gateway: FakeGateway, make_config: MakeConfig, in_a_nursery: bool
) -> None:
    client = NodeClient(make_config())

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        async with AsyncExitStack() as stack:
            if in_a_nursery:
                nursery = await stack.enter_async_context(trio.open_nursery())
                nursery.start_soon(trio.sleep_forever)
            await trio.sleep_forever()
        raise AssertionError

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        while (await session.hear(PublishCommandResult)).status != "running":
            pass
    async with running(NodeClient(make_config())):
        session = await gateway.accept()
        await session.welcome()
        result = await session.ended_command(order.command_id)

    assert result.status == "failed"
    assert result.error is not None
    assert result.error.value["reason"] == "node_stopped"


async def test_a_graceful_cancel_lets_the_handler_say_what_it_found(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    proof = {"devices": [{"device_uid": str(uuid4()), "state": "idle", "basis": "read_back"}]}

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        await command.cancel_requested.wait()
        return CommandOutcome.interrupted(proof=proof)

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        await session.say(cancel(session, order.command_id, CancelMode.GRACEFUL, 60_000))
        result = await session.ended_command(order.command_id)

    assert result.status == "canceled"
    assert result.canceled in (CanceledHow.INTERRUPTED, CanceledHow.BEFORE_START)


async def test_a_cancel_reaches_a_handler_that_does_not_listen_when_its_grace_is_over(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    started = trio.Event()

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        started.set()
        try:
            await trio.sleep_forever()
        finally:
            command.report(CommandOutcome.interrupted(proof={"devices": []}))
        raise AssertionError

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        await started.wait()
        await session.say(cancel(session, order.command_id, CancelMode.GRACEFUL, 10))
        result = await session.ended_command(order.command_id)

    assert (result.status, result.canceled) == (CommandStatus.CANCELED, CanceledHow.INTERRUPTED)
    assert result.proof is not None


async def test_a_handler_that_is_ended_by_a_cancel_and_says_nothing_has_interrupted_nothing(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    started = trio.Event()

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        started.set()
        await trio.sleep_forever()
        raise AssertionError

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        await started.wait()
        await session.say(cancel(session, order.command_id, CancelMode.IMMEDIATE))
        result = await session.ended_command(order.command_id)

    assert (result.status, result.canceled) == (CommandStatus.FAILED, None)
    assert result.error is not None
    assert result.error.value["reason"] == "not_proved"


@pytest.mark.parametrize("how", ["canceled", "stopped"])
async def test_a_handler_with_tasks_of_its_own_is_heard_when_it_is_ended(
    gateway: FakeGateway, make_config: MakeConfig, how: str
) -> None:
    client = NodeClient(make_config())
    standing = {"devices": [{"device_uid": str(uuid4()), "state": "idle", "basis": "read_back"}]}

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        try:
            async with trio.open_nursery() as nursery:  # ended, it raises a group
                nursery.start_soon(trio.sleep_forever)
                await trio.sleep_forever()
        finally:
            command.report(CommandOutcome.interrupted(proof=standing))
        raise AssertionError

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        while (await session.hear(PublishCommandResult)).status != "running":
            pass
        if how == "canceled":
            await session.say(cancel(session, order.command_id, CancelMode.IMMEDIATE))
            await session.ended_command(order.command_id)
    async with running(NodeClient(make_config())):
        session = await gateway.accept()
        await session.welcome()
        result = await session.ended_command(order.command_id)
    assert (result.status, result.canceled) == ("canceled", "interrupted")
    assert result.proof is not None
    assert result.proof.value == standing


async def test_a_command_that_finished_in_spite_of_its_cancel_says_so(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    started = trio.Event()

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        started.set()
        await command.cancel_requested.wait()
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        await started.wait()
        await session.say(cancel(session, order.command_id, CancelMode.GRACEFUL))
        result = await session.ended_command(order.command_id)

    assert (result.status, result.canceled) == (CommandStatus.COMPLETED, CanceledHow.TOO_LATE)


async def test_a_cancel_that_overtakes_its_command_keeps_it_from_running(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    runs: list[CommandId] = []

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        runs.append(command.id)
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(cancel(session, order.command_id, CancelMode.IMMEDIATE))
        first = await session.ended_command(order.command_id)
        await session.say(order)
        second = await session.ended_command(order.command_id)

    assert runs == []
    assert first.canceled == second.canceled == CanceledHow.BEFORE_START


async def test_a_late_command_is_refused_and_a_late_stop_is_run(gateway: FakeGateway, make_config: MakeConfig) -> None:
    now = [1_000.0]
    client = NodeClient(make_config(), now_ms=lambda: now[0])
    runs: list[str] = []

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        runs.append(command.type)
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await client.wait_connected()
        now[0] += 30_000  # the frames below were stamped at the session's beginning and lay in the network since
        slew, stop = session.command(SLEW, t_ms=0), session.command(STOP, t_ms=0)
        await session.say(slew)
        refused = await session.ended_command(slew.command_id)
        await session.say(stop)
        stopped = await session.ended_command(stop.command_id)

    assert refused.status == "rejected"
    assert refused.error is not None
    assert refused.error.value["reason"] == "deadline_exceeded"
    assert stopped.status == "completed"
    assert runs == ["mount.stop"]


async def test_a_command_of_a_lower_epoch_is_refused_and_a_stop_is_not(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome(epoch=9)
        slew = session.command(SLEW, epoch=Epoch(8))
        stop = session.command(STOP, epoch=Epoch(8))
        await session.say(slew)
        refused = await session.ended_command(slew.command_id)
        await session.say(stop)
        stopped = await session.ended_command(stop.command_id)

    assert refused.error is not None
    assert refused.error.value["reason"] == "stale_epoch"
    assert stopped.status == "completed"


async def test_a_command_under_an_older_fence_is_refused(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config())

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        newer, older = session.command(SLEW, fence=5), session.command(SLEW, fence=4)
        await session.say(newer)
        taken = await session.ended_command(newer.command_id)
        await session.say(older)
        refused = await session.ended_command(older.command_id)

    assert taken.status == "completed"
    assert refused.error is not None
    assert refused.error.value["reason"] == "stale_fence"


async def test_a_stop_runs_while_another_command_is_running(gateway: FakeGateway, make_config: MakeConfig) -> None:
    client = NodeClient(make_config())

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        if not command.safing:
            await trio.sleep_forever()
        return CommandOutcome.completed(proof={"devices": []})

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        stop = session.command(STOP)
        await session.say(session.command(SLEW))
        await session.say(stop)
        result = await session.ended_command(stop.command_id)

    assert result.proof is not None


class HeldDisk:
    """A disk that takes its time: work waits until `go` is set, and `asked` says that there is some."""

    def __init__(self) -> None:
        self.go = trio.Event()
        self.asked = trio.Event()

    def work(self) -> DiskWork:
        do_in_thread = in_a_thread()

        async def do(work: Callable[[], T], /) -> T:
            self.asked.set()
            await self.go.wait()
            return await do_in_thread(work)

        return do

    def hold(self) -> None:
        self.go, self.asked = trio.Event(), trio.Event()


@asynccontextmanager
async def written_slowly(
    gateway: FakeGateway, make_config: MakeConfig, **changes: Any
) -> AsyncIterator[tuple[FakeSession, EventCommand, HeldDisk, list[str]]]:
    """A session, a slew that has come and is not written down yet, the disk it waits for, and what was begun."""
    disk, begun = HeldDisk(), list[str]()
    disk.go.set()
    client = NodeClient(make_config(), disk_work=disk.work)

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        begun.append(command.type)
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await client.wait_connected()
        disk.hold()
        order = session.command(SLEW, **changes)
        await session.say(order)
        await disk.asked.wait()
        yield session, order, disk, begun


async def test_a_command_whose_time_ran_out_while_it_was_written_down_is_not_begun(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    async with written_slowly(gateway, make_config, deadline_ms=50) as (session, order, disk, begun):
        await trio.sleep(0.06)
        disk.go.set()
        late = await session.ended_command(order.command_id)
    assert late.error is not None
    assert (late.status, late.error.value["reason"], begun) == ("rejected", "deadline_exceeded", [])


async def test_a_command_whose_holder_lost_control_while_it_was_written_down_is_not_begun(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    telescope_uid = TelescopeUid(UUID(int=7))
    async with written_slowly(gateway, make_config, fence=3) as (session, order, disk, begun):
        await session.say(EventManualControlLease(telescope_uid=telescope_uid, fence=4, t_ms=session.t_ms()))
        await session.say(Ping(id="all of it has come"))
        await session.hear(Pong)
        disk.go.set()
        stale = await session.ended_command(order.command_id)
    assert stale.error is not None
    assert (stale.status, stale.error.value["reason"], begun) == ("rejected", "stale_fence", [])


@pytest.mark.parametrize(
    ("stop", "is_kept"),
    [("mount.stop", False), ("telescope.safe_shutdown", False), ("telescope.stop", False), ("camera.stop", True)],
)
async def test_a_stop_takes_back_what_came_before_it_and_has_not_begun(
    gateway: FakeGateway, make_config: MakeConfig, stop: str, *, is_kept: bool
) -> None:
    async with written_slowly(gateway, make_config) as (session, order, disk, begun):
        await session.say(session.command({"command_type": stop}))
        await session.say(Ping(id="all of it has come"))
        await session.hear(Pong)
        disk.go.set()
        slew = await session.ended_command(order.command_id)
    assert (slew.status, slew.canceled) == (("completed", None) if is_kept else ("canceled", "before_start"))
    assert begun == [stop, *(["mount.point"] if is_kept else [])]


async def test_what_became_of_a_command_is_told_however_long_the_disk_takes(
    gateway: FakeGateway, make_config: MakeConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("skygw.client.commands.LAST_WRITE_S", 0.02)
    disk, client_did = HeldDisk(), trio.Event()
    disk.go.set()
    client = NodeClient(make_config(), disk_work=disk.work)

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        disk.hold()
        client_did.set()
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        await client_did.wait()
        await trio.sleep(0.05)
        disk.go.set()
        assert (await session.ended_command(order.command_id)).status == "completed"


async def test_a_question_is_answered_with_the_last_word_and_an_id_that_never_came_is_used_up_by_it(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    runs: list[CommandId] = []

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        runs.append(command.id)
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        first = await session.ended_command(order.command_id)
        strange = session.command(SLEW)
        await session.say(QueryCommand(command_ids=(strange.command_id, order.command_id)))
        never = await session.ended_command(strange.command_id)
        again = await session.ended_command(order.command_id)
        await session.say(strange)
        refused = await session.ended_command(strange.command_id)
    after = NodeClient(make_config())
    after.command_handler(handle)
    async with running(after):
        session = await gateway.accept()
        await session.welcome(acked_seq=refused.seq)
        for body in (SLEW, STOP):
            await session.say(session.command(body, command_id=strange.command_id))
            assert says_never_received(await session.ended_command(strange.command_id))

    assert (never.seq, again.seq) == (first.seq + 1, first.seq + 2)
    assert again.status == "completed"
    assert says_never_received(never)
    assert says_never_received(refused)
    assert runs == [order.command_id]


async def test_what_runs_is_not_told_as_never_received(
    gateway: FakeGateway, make_config: MakeConfig, caplog: pytest.LogCaptureFixture
) -> None:
    client = NodeClient(make_config())
    started, may_end = trio.Event(), trio.Event()

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        if command.safing:
            started.set()
            await may_end.wait()
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        slew = session.command(SLEW)
        await session.say(slew)
        await session.ended_command(slew.command_id)
        assert client._outbox is not None
        client._outbox._journal._connection.execute("PRAGMA query_only = ON")  # nothing of the stop is written down
        stop = session.command(STOP)
        await session.say(stop)
        await started.wait()
        with trio.fail_after(10):
            while "runs unrecorded" not in caplog.text:  # noqa: ASYNC110 - a log has no events
                await trio.sleep(0.01)
        client._outbox._journal._connection.execute("PRAGMA query_only = OFF")
        await session.say(QueryCommand(command_ids=(stop.command_id, slew.command_id)))
        await session.ended_command(slew.command_id)  # the question is answered
        may_end.set()
        result = await session.ended_command(stop.command_id)

    assert result.status == "completed"


async def test_more_time_is_taken_up_to_what_the_caller_allows_and_told_in_all(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    moved: list[int] = []
    holds: list[int] = []

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        first = command.deadline
        for more_ms in (20_000, None, 20_000, 20_000):
            moved.append(round(await command.progress(0.5, more_time_ms=more_ms) - first))
            holds.append(round(command.deadline - first))
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        allowed = session.command(SLEW, deadline_ms=10_000, deadline_max_ms=40_000)
        await session.say(allowed)
        await session.ended_command(allowed.command_id)
        nothing_more = session.command(SLEW, deadline_ms=10_000)
        await session.say(nothing_more)
        await session.ended_command(nothing_more.command_id)
    told = [frame for frame in session.heard if isinstance(frame, PublishCommandResult) and frame.progress is not None]

    assert moved == holds == [20, 20, 30, 30, 0, 0, 0, 0]
    assert [frame.deadline_ms for frame in told] == [20_000, None, 30_000, None, None, None, None, None]


async def test_what_cannot_be_canceled_says_so_and_comes_to_its_end(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    started, may_end = trio.Event(), trio.Event()

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        command.cancelable = False
        started.set()
        await may_end.wait()
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        order = session.command(SLEW)
        await session.say(order)
        await started.wait()
        await session.say(cancel(session, order.command_id, CancelMode.IMMEDIATE))
        while (said := await session.hear(PublishCommandResult)).canceled is None:
            pass
        may_end.set()
        result = await session.ended_command(order.command_id)

    assert (said.status, said.canceled) == (CommandStatus.RUNNING, CanceledHow.NOT_CANCELABLE)
    assert (result.status, result.canceled) == (CommandStatus.COMPLETED, None)


async def test_a_handler_that_raises_or_answers_nonsense_ends_its_command_and_nothing_else(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        if command.type == "mount.park":
            raise OSError("the driver is gone")
        return CommandOutcome.completed(object())

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        park, slew = session.command({"command_type": "mount.park"}), session.command(SLEW)
        await session.say(park)
        parked = await session.ended_command(park.command_id)
        await session.say(slew)
        slewed = await session.ended_command(slew.command_id)

    assert parked.error is not None
    assert parked.error.value["reason"] == "internal"
    assert slewed.error is not None
    assert slewed.error.value["reason"] == "bad_outcome"


async def test_a_command_that_was_running_when_the_program_was_killed_is_told_as_failed_and_not_run_again(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    config = make_config()
    config.state_dir.mkdir()
    command_id = CommandId(uuid4())
    journal = Journal(config.state_dir, max_bytes=MIB)  # what a kill leaves behind: a beginning without an end
    journal.begin_command(
        command_id, [PublishCommandResult(seq=1, command_id=command_id, status=CommandStatus.RUNNING)]
    )
    journal.close()
    client = NodeClient(config)
    runs: list[CommandId] = []

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        runs.append(command.id)
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        result = await session.ended_command(command_id)
        await session.say(session.command(SLEW, command_id=command_id))
        again = await session.ended_command(command_id)

    assert runs == []
    assert result.error is not None
    assert result.error.value["reason"] == "node_restarted"
    assert again.error == result.error


async def test_with_a_disk_that_takes_nothing_a_stop_runs_and_anything_else_does_not(
    gateway: FakeGateway, make_config: MakeConfig
) -> None:
    client = NodeClient(make_config())
    runs: list[str] = []
    stopped = trio.Event()

    @client.command_handler
    async def handle(command: Command) -> CommandOutcome:
        runs.append(command.type)
        if command.safing:
            stopped.set()
        return CommandOutcome.completed()

    async with running(client):
        session = await gateway.accept()
        await session.welcome()
        await client.wait_connected()
        assert client._outbox is not None
        client._outbox._journal._connection.execute("PRAGMA query_only = ON")
        slew = session.command(SLEW)
        await session.say(slew)
        error = await session.hear(Error)
        await session.say(session.command(STOP))
        with trio.fail_after(5):
            await stopped.wait()
        client._outbox._journal._connection.execute("PRAGMA query_only = OFF")
        await session.say(slew)
        result = await session.ended_command(slew.command_id)

    assert error.id == str(slew.command_id)
    assert error.details is not None
    assert error.details.value == {"reason": "storage_full"}
    assert result.status == "completed"
    assert runs == ["mount.stop", "mount.point"]
