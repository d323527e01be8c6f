"""One contract for both ledgers of commands: an id is one command for ever, and its state only moves forward."""

from collections import Counter, defaultdict
from collections.abc import AsyncIterator, Iterator
from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import pytest
import trio

from skygw.control.ledger import (
    ENDS,
    MAX_ASKED,
    NEVER_WRITTEN,
    Caller,
    CommandLedger,
    CommandQuery,
    CommandRecord,
    CommandState,
    Move,
    Transition,
    may_move,
)
from skygw.database.commands import Commands
from skygw.database.node_reports import NodeReports
from skygw.database.pool import open_loop_and_database
from skygw.errors import Hop, IdReused
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, OutboxUid, TelescopeUid
from skygw.nodes.ports import NOT_ITS, DurableReport, ReportStore
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import CanceledHow, CommandStatus, PublishCommandResult
from skygw.protocol.streams import StreamName
from tests.fakes.ports import MemoryCommands, MemoryReports, Switch
from tests.fakes.postgres import PostgresServer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COMMAND = '{"command_type": "mount.park",  "odd": 1.50, "name": "Höhe\\n"}'


def a_command(install_id: InstallId | None = None, *, created_at: datetime = NOW) -> CommandRecord:
    return CommandRecord(
        command_id=CommandId(uuid4()),
        install_id=install_id or InstallId(uuid4()),
        telescope_uid=TelescopeUid(uuid4()),
        device_uid=None,
        command=COMMAND,
        origin='{"page":"night plan"}',
        service="scheduler",
        actor={"uid": "7", "kind": "user"},
        created_at=created_at,
        deadline_at=created_at + timedelta(seconds=30),
        trace_id="0af7651916cd43dd8448eb211c80319c",
        epoch=Epoch(3),
        transitions=[Transition(created_at, CommandState.RECEIVED, Hop.GATEWAY)],
    )


def step(record: CommandRecord, state: CommandState, *, after_s: float = 1, detail: str | None = None) -> Move:
    return Move(record.command_id, Transition(NOW + timedelta(seconds=after_s), state, Hop.NODE, detail))


class Nodes:
    """Outboxes of installations, each of which says one result at a time."""

    def __init__(self, store: ReportStore) -> None:
        self.store = store
        self._outboxes: defaultdict[InstallId, OutboxUid] = defaultdict(lambda: OutboxUid(uuid4()))
        self._said: Counter[InstallId] = Counter()

    async def says(
        self, record: CommandRecord, status: CommandStatus, *, install_id: InstallId | None = None, **members: Any
    ) -> None:
        speaker = install_id or record.install_id
        seq = self._said[speaker] + 1
        result = PublishCommandResult(seq=seq, command_id=record.command_id, status=status, **members)
        report = DurableReport(seq=seq, kind=result.kind, text="", result=result, stream=StreamName.COMMAND_RESULT)
        refusal = await self.store.refuses(speaker, self._outboxes[speaker], [report])
        if refusal is not None:
            raise Refused(refusal)
        await self.store.commit(speaker, self._outboxes[speaker], [report])
        self._said[speaker] = seq


class Refused(Exception):
    """A report that will never be taken."""


class Desk:
    """A ledger, and the store of what nodes report that moves it."""

    def __init__(self, commands: CommandLedger, reports: ReportStore) -> None:
        self.commands = commands
        self.node = Nodes(reports)


@pytest.fixture(scope="module")
def postgres(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgresServer]:
    with PostgresServer(tmp_path_factory.mktemp("commands")) as server:
        yield server


@pytest.fixture(params=["memory", "postgres"])
async def desk(request: pytest.FixtureRequest) -> AsyncIterator[Desk]:
    if request.param == "memory":
        switch = Switch()
        memory = MemoryCommands(switch)
        yield Desk(memory, MemoryReports(switch, memory))
        return
    server: PostgresServer = request.getfixturevalue("postgres")
    async with open_loop_and_database(server.gateway_url) as database:
        yield Desk(Commands(database), NodeReports(database))


@pytest.fixture
def commands(desk: Desk) -> CommandLedger:
    return desk.commands


async def stored_of(commands: CommandLedger, record: CommandRecord) -> CommandRecord:
    stored = await commands.get(record.command_id)
    assert stored is not None
    return stored


async def test_a_new_command_is_stored_as_it_is(commands: CommandLedger) -> None:
    record = a_command()
    assert await commands.admit(record) == (record, False)
    assert await commands.get(record.command_id) == record


async def test_a_command_nobody_sent_is_not_there(commands: CommandLedger) -> None:
    assert await commands.get(CommandId(uuid4())) is None


async def test_the_same_command_again_is_the_stored_one(commands: CommandLedger) -> None:
    record = a_command()
    await commands.admit(record)
    await commands.move([step(record, CommandState.WRITTEN)])
    again = a_command(record.install_id, created_at=NOW + timedelta(seconds=9))
    again.command_id, again.telescope_uid, again.service = record.command_id, record.telescope_uid, "other"
    stored, duplicate = await commands.admit(again)
    assert duplicate
    assert (stored.state, stored.service, stored.created_at) == (CommandState.WRITTEN, "scheduler", NOW)


async def test_the_id_of_another_command_is_refused(commands: CommandLedger) -> None:
    record = a_command()
    await commands.admit(record)
    other_bytes, other_telescope, other_device = a_command(), a_command(), a_command()
    for other in (other_bytes, other_telescope, other_device):
        other.command_id = record.command_id
    other_bytes.telescope_uid, other_bytes.command = record.telescope_uid, COMMAND.replace("  ", " ")
    other_device.telescope_uid, other_device.device_uid = record.telescope_uid, DeviceUid(uuid4())
    for other in (other_bytes, other_telescope, other_device):
        with pytest.raises(IdReused):
            await commands.admit(other)
    assert await commands.get(record.command_id) == record


async def test_of_many_who_bring_a_command_at_once_one_admits_it(commands: CommandLedger) -> None:
    record = a_command()
    duplicates: list[bool] = []

    async def bring() -> None:
        _, duplicate = await commands.admit(record)
        duplicates.append(duplicate)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(bring)
    assert sorted(duplicates) == [False] + [True] * 7


@pytest.mark.parametrize("before", CommandState)
async def test_a_state_moves_where_the_table_lets_it_and_stays_otherwise(
    commands: CommandLedger, before: CommandState
) -> None:
    for after in CommandState:
        record = a_command()
        record.state = before
        await commands.admit(record)
        await commands.move([step(record, after, detail="told")])
        stored = await stored_of(commands, record)
        if may_move(before, after):
            assert stored.state is after
            assert stored.transitions[1:] == [step(record, after, detail="told").transition]
            assert stored.ended_at == (NOW + timedelta(seconds=1) if after in ENDS else None)
        else:
            assert stored.state is before
            assert len(stored.transitions) == 1


async def test_moves_of_several_commands_keep_their_order(commands: CommandLedger) -> None:
    one, other = a_command(), a_command()
    await commands.admit(one)
    await commands.admit(other)
    await commands.move(
        [
            step(one, CommandState.WRITTEN),
            step(other, CommandState.WRITTEN),
            step(one, CommandState.RUNNING),
            step(other, CommandState.UNKNOWN),
            step(one, CommandState.ACCEPTED),
            Move(CommandId(uuid4()), Transition(NOW, CommandState.WRITTEN, Hop.GATEWAY)),
        ]
    )
    for record, states in ((one, ["written", "running"]), (other, ["written", "unknown"])):
        stored = await stored_of(commands, record)
        assert [transition.state for transition in stored.transitions] == ["received", *states]


def a_repeat(record: CommandRecord) -> CommandRecord:
    """The same command again, a minute later and for another session."""
    again = a_command(record.install_id, created_at=NOW + timedelta(seconds=60))
    again.command_id, again.telescope_uid, again.epoch = record.command_id, record.telescope_uid, Epoch(4)
    return again


@pytest.mark.parametrize("before", CommandState)
async def test_a_new_life_begins_where_nothing_was_ever_written_and_nowhere_else(
    commands: CommandLedger, before: CommandState
) -> None:
    record = a_command()
    record.state = before
    await commands.admit(record)
    again = a_repeat(record)
    assert await commands.readmit(again, seen=record) is (before in NEVER_WRITTEN)
    stored = await stored_of(commands, record)
    if before in NEVER_WRITTEN:
        assert (stored.state, stored.epoch, stored.deadline_at) == (CommandState.RECEIVED, 4, again.deadline_at)
        assert stored.transitions == [*record.transitions, *again.transitions]
    else:
        assert stored == record


async def test_of_many_who_begin_a_new_life_at_once_one_does(commands: CommandLedger) -> None:
    record = a_command()
    await commands.admit(record)
    await commands.move([step(record, CommandState.EXPIRED)])
    moved: list[bool] = []

    async def bring(later_s: float) -> None:
        again = a_repeat(record)
        again.deadline_at += timedelta(seconds=later_s)
        moved.append(await commands.readmit(again, seen=record))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(bring, number)
    assert sorted(moved) == [False] * 7 + [True]


async def test_a_stop_that_expired_and_was_sent_again_is_recorded_as_one_command(commands: CommandLedger) -> None:
    record = a_command()
    await commands.record_sent(record, [])
    await commands.move([step(record, CommandState.EXPIRED)])
    again = a_repeat(record)
    again.state = CommandState.WRITTEN
    again.transitions.append(Transition(NOW + timedelta(seconds=61), CommandState.WRITTEN, Hop.GATEWAY))
    await commands.record_sent(again, [])
    await commands.record_sent(again, [])
    stored = await stored_of(commands, record)
    assert (stored.state, stored.ended_at, stored.epoch) == (CommandState.WRITTEN, None, 4)
    assert [transition.state for transition in stored.transitions] == ["received", "expired", "received", "written"]


async def test_an_end_says_how_a_cancel_met_it(commands: CommandLedger) -> None:
    record = a_command()
    await commands.admit(record)
    canceled = step(record, CommandState.CANCELED)
    await commands.move([Move(record.command_id, canceled.transition, "before_start")])
    stored = await stored_of(commands, record)
    assert (stored.state, stored.canceled) == (CommandState.CANCELED, "before_start")


async def test_what_older_sessions_carried_and_has_no_end_is_unknown(commands: CommandLedger) -> None:
    install_id, now = InstallId(uuid4()), datetime.now(UTC)
    records = {state: a_command(install_id, created_at=now) for state in CommandState}
    for state, record in records.items():
        record.state = state
        await commands.admit(record)
    followed = a_command(install_id, created_at=now)
    await commands.admit(followed)
    current, stranger = a_command(install_id, created_at=now), a_command(created_at=now)
    current.state = stranger.state = CommandState.WRITTEN
    current.epoch = Epoch(5)
    await commands.admit(current)
    await commands.admit(stranger)
    lost = {CommandState.RECEIVED, CommandState.WRITTEN, CommandState.ACCEPTED, CommandState.RUNNING}
    asked = await commands.lose_before(install_id, Epoch(5), followed=[followed.command_id])
    assert set(asked) == {records[state].command_id for state in lost | {CommandState.UNKNOWN}}
    for state, record in records.items():
        stored = await stored_of(commands, record)
        assert stored.state is (CommandState.UNKNOWN if state in lost else state)
        assert [step.state for step in stored.transitions[1:]] == (["unknown"] if state in lost else [])
        if state in lost:
            ended = state is CommandState.RECEIVED
            assert ("the gateway ended" if ended else "a newer session") in (stored.transitions[1].detail or "")
    assert await stored_of(commands, followed) == followed
    assert await commands.get(current.command_id) == current
    assert await commands.get(stranger.command_id) == stranger


async def test_what_a_node_does_not_remember_any_more_is_not_asked_for(commands: CommandLedger) -> None:
    record = a_command(created_at=datetime.now(UTC) - timedelta(days=31))
    record.state = CommandState.UNKNOWN
    await commands.admit(record)
    assert await commands.lose_before(record.install_id, Epoch(9)) == []


async def test_what_was_sent_without_the_ledger_is_recorded_once_as_it_stands(commands: CommandLedger) -> None:
    record = a_command()
    record.recorded_late = True
    record.state, record.ended_at, record.proof = CommandState.COMPLETED, NOW, '{"devices": []}'
    record.transitions += [
        Transition(NOW, CommandState.WRITTEN, Hop.GATEWAY),
        Transition(NOW, CommandState.COMPLETED, Hop.NODE, "stopped"),
    ]
    await commands.record_sent(record, [])
    await commands.record_sent(record, [])
    assert await commands.get(record.command_id) == record


async def test_what_the_node_said_while_a_sent_command_was_being_recorded_is_recorded_too(
    commands: CommandLedger,
) -> None:
    record = a_command()
    record.transitions.append(Transition(NOW, CommandState.WRITTEN, Hop.GATEWAY))
    record.state = CommandState.WRITTEN
    said = PublishCommandResult(
        seq=1,
        command_id=record.command_id,
        status=CommandStatus.COMPLETED,
        proof=Opaque('{"devices":[]}', {"devices": []}),
    )
    await commands.record_sent(record, [])
    await commands.record_sent(record, [said])
    await commands.record_sent(record, [said])
    stored = await stored_of(commands, record)
    assert (stored.state, stored.proof) == (CommandState.COMPLETED, '{"devices":[]}')
    assert [step.state for step in stored.transitions] == ["received", "written", "completed"]


async def test_pages_have_the_newest_first_and_the_total(commands: CommandLedger) -> None:
    install_id = InstallId(uuid4())
    records = [a_command(install_id, created_at=NOW + timedelta(seconds=age)) for age in range(3)]
    for record in records:
        await commands.admit(record)
    await commands.move([step(records[0], CommandState.WRITTEN)])
    first, total = await commands.page(CommandQuery(page=1, size=2, install_id=install_id))
    second, _ = await commands.page(CommandQuery(page=2, size=2, install_id=install_id))
    assert total == 3
    assert [record.command_id for record in (*first, *second)] == [record.command_id for record in reversed(records)]
    assert [len(record.transitions) for record in (*first, *second)] == [1, 1, 2]
    written, count = await commands.page(CommandQuery(install_id=install_id, state=CommandState.WRITTEN))
    assert ([record.command_id for record in written], count) == ([records[0].command_id], 1)
    assert await commands.page(CommandQuery(page=9, install_id=install_id)) == ([], 3)


async def test_a_cancel_that_comes_after_the_end_does_not_say_how_it_met_it(commands: CommandLedger) -> None:
    record = a_command()
    await commands.admit(record)
    await commands.move([step(record, CommandState.COMPLETED)])
    ended = await stored_of(commands, record)
    await commands.move([Move(record.command_id, step(record, CommandState.CANCELED).transition, "before_start")])
    assert await stored_of(commands, record) == ended
    assert ended.canceled is None


async def test_a_new_life_keeps_whose_command_it_is_and_since_when(commands: CommandLedger) -> None:
    record = a_command()
    await commands.admit(record)
    await commands.move([step(record, CommandState.EXPIRED)])
    again = a_repeat(record)
    again.service, again.actor, again.origin, again.trace_id = "console", None, None, None
    assert await commands.readmit(again, seen=record)
    stored = await stored_of(commands, record)
    assert (stored.service, stored.actor, stored.origin) == (record.service, record.actor, record.origin)
    assert (stored.created_at, stored.trace_id, stored.ended_at) == (record.created_at, record.trace_id, None)


async def test_a_new_life_of_what_nobody_stored_does_not_begin(commands: CommandLedger) -> None:
    record = a_command()
    assert not await commands.readmit(a_repeat(record), seen=record)


async def test_the_newest_are_asked_for_and_no_more_than_fit_one_question(commands: CommandLedger) -> None:
    install_id, now = InstallId(uuid4()), datetime.now(UTC)
    records = [a_command(install_id, created_at=now - timedelta(seconds=age)) for age in range(MAX_ASKED + 2)]
    for record in records:
        record.state = CommandState.UNKNOWN
        await commands.record_sent(record, [])
    asked = await commands.lose_before(install_id, Epoch(9))
    assert list(asked) == [record.command_id for record in records[:MAX_ASKED]]


@pytest.mark.parametrize("before", CommandState)
async def test_an_administrator_closes_what_is_unknown_and_nothing_else(
    commands: CommandLedger, before: CommandState
) -> None:
    record = a_command()
    record.state = before
    await commands.admit(record)
    by = Caller("console", {"uid": "9", "kind": "user"})
    end = Transition(NOW + timedelta(seconds=9), CommandState.FAILED, Hop.GATEWAY, "the disk burnt", by)
    assert await commands.resolve(record.command_id, end) is (before is CommandState.UNKNOWN)
    stored = await stored_of(commands, record)
    if before is CommandState.UNKNOWN:
        assert (stored.state, stored.ended_at, stored.transitions[1:]) == (CommandState.FAILED, end.at, [end])
    else:
        assert stored == record


async def test_what_nobody_stored_is_not_closed(commands: CommandLedger) -> None:
    end = Transition(NOW, CommandState.FAILED, Hop.GATEWAY, "lost")
    assert not await commands.resolve(CommandId(uuid4()), end)


@pytest.mark.parametrize("before", CommandState)
async def test_what_a_node_says_moves_its_command_where_the_table_lets_it(desk: Desk, before: CommandState) -> None:
    for status in CommandStatus:
        record = a_command()
        record.state = before
        await desk.commands.admit(record)
        await desk.node.says(record, status)
        stored, after = await stored_of(desk.commands, record), CommandState(status.value)
        assert stored.state is (after if may_move(before, after) else before)
        assert [step.state for step in stored.transitions[1:]] == ([after] if may_move(before, after) else [])
        assert [step.hop for step in stored.transitions[1:]] == ([Hop.NODE] if may_move(before, after) else [])
        assert (stored.ended_at is not None) is (may_move(before, after) and after in ENDS)


async def test_what_a_node_says_with_its_steps_is_kept_and_what_it_leaves_out_stays(desk: Desk) -> None:
    record = a_command()
    await desk.commands.admit(record)
    await desk.node.says(record, CommandStatus.RUNNING, progress=0.25)
    await desk.node.says(record, CommandStatus.RUNNING, progress=0.5, result=Opaque('{"a":  1.50}', {"a": 1.5}))
    stored = await stored_of(desk.commands, record)
    assert (stored.state, stored.progress, stored.result) == (CommandState.RUNNING, 0.5, '{"a":  1.50}')
    await desk.node.says(
        record,
        CommandStatus.CANCELED,
        canceled=CanceledHow.INTERRUPTED,
        error=Opaque('{"reason":"x"}', {"reason": "x"}),
        proof=Opaque('{"devices":[]}', {"devices": []}),
    )
    stored = await stored_of(desk.commands, record)
    assert (stored.state, stored.canceled) == (CommandState.CANCELED, "interrupted")
    assert (stored.progress, stored.result) == (0.5, '{"a":  1.50}')
    assert (stored.error, stored.proof) == ('{"reason":"x"}', '{"devices":[]}')


async def test_what_comes_after_the_end_changes_nothing(desk: Desk) -> None:
    record = a_command()
    await desk.commands.admit(record)
    await desk.node.says(record, CommandStatus.COMPLETED, result=Opaque("{}", {}))
    ended = await stored_of(desk.commands, record)
    for status in CommandStatus:
        await desk.node.says(
            record, status, progress=0.1, result=Opaque('{"b":2}', {"b": 2}), canceled=CanceledHow.TOO_LATE
        )
    await desk.commands.move([step(record, state) for state in CommandState])
    assert await stored_of(desk.commands, record) == ended


async def test_nobody_reports_of_another_installations_command(desk: Desk) -> None:
    record = a_command()
    await desk.commands.admit(record)
    with pytest.raises(Refused, match=NOT_ITS):
        await desk.node.says(record, CommandStatus.COMPLETED, install_id=InstallId(uuid4()))
    assert await stored_of(desk.commands, record) == record


async def test_what_is_read_is_a_copy(commands: CommandLedger) -> None:
    record = a_command()
    await commands.admit(record)
    read = await stored_of(commands, record)
    read.transitions.clear()
    read.state = record.state = CommandState.FAILED
    stored = await stored_of(commands, record)
    assert (stored.state, len(stored.transitions)) == (CommandState.RECEIVED, 1)
