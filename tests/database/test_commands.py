"""A command id is one command for ever, and its state only moves forward."""

import itertools
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.control.ledger import (
    ENDS,
    NEVER_WRITTEN,
    CommandQuery,
    CommandRecord,
    CommandState,
    Move,
    Transition,
    may_move,
)
from skygw.database.commands import Commands
from skygw.database.pool import Database
from skygw.errors import Hop, IdReused
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, TelescopeUid
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
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


@pytest.fixture
def commands(database: Database) -> Commands:
    return Commands(database)


async def test_a_new_command_is_stored_as_it_is(commands: Commands) -> None:
    record = a_command()
    assert await commands.admit(record) == (record, False)
    assert await commands.get(record.command_id) == record


async def test_a_command_nobody_sent_is_not_there(commands: Commands) -> None:
    assert await commands.get(CommandId(uuid4())) is None


async def test_the_same_command_again_is_the_stored_one(commands: Commands) -> None:
    record = a_command()
    await commands.admit(record)
    await commands.move([step(record, CommandState.WRITTEN)])
    again = a_command(record.install_id, created_at=NOW + timedelta(seconds=9))
    again.command_id, again.telescope_uid, again.service = record.command_id, record.telescope_uid, "other"
    stored, duplicate = await commands.admit(again)
    assert duplicate
    assert (stored.state, stored.service, stored.created_at) == (CommandState.WRITTEN, "scheduler", NOW)


async def test_the_id_of_another_command_is_refused(commands: Commands) -> None:
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


async def test_of_many_who_bring_a_command_at_once_one_admits_it(commands: Commands) -> None:
    record = a_command()
    duplicates: list[bool] = []

    async def bring() -> None:
        _, duplicate = await commands.admit(record)
        duplicates.append(duplicate)

    async with trio.open_nursery() as nursery:
        for _ in range(8):
            nursery.start_soon(bring)
    assert sorted(duplicates) == [False] + [True] * 7


def test_the_table_of_steps_says_what_the_ledger_says(postgres: PostgresServer) -> None:
    with psycopg.connect(postgres.gateway_url) as connection:
        allowed = set(connection.execute("SELECT from_state, to_state FROM skygw.command_step").fetchall())
    assert allowed == {
        (before.value, after.value)
        for before, after in itertools.product(CommandState, repeat=2)
        if may_move(before, after)
    }


@pytest.mark.parametrize("before", CommandState)
async def test_a_state_moves_where_the_table_lets_it_and_stays_otherwise(
    commands: Commands, before: CommandState
) -> None:
    for after in CommandState:
        record = a_command()
        record.state = before
        await commands.admit(record)
        await commands.move([step(record, after, detail="told")])
        stored = await commands.get(record.command_id)
        assert stored is not None
        if may_move(before, after):
            assert stored.state is after
            assert stored.transitions[1:] == [step(record, after, detail="told").transition]
            assert stored.ended_at == (NOW + timedelta(seconds=1) if after in ENDS else None)
        else:
            assert stored.state is before
            assert len(stored.transitions) == 1


async def test_moves_of_several_commands_keep_their_order(commands: Commands) -> None:
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
        stored = await commands.get(record.command_id)
        assert stored is not None
        assert [transition.state for transition in stored.transitions] == ["received", *states]


def a_repeat(record: CommandRecord) -> CommandRecord:
    """The same command again, a minute later and for another session."""
    again = a_command(record.install_id, created_at=NOW + timedelta(seconds=60))
    again.command_id, again.telescope_uid, again.epoch = record.command_id, record.telescope_uid, Epoch(4)
    return again


@pytest.mark.parametrize("before", CommandState)
async def test_a_new_life_begins_where_nothing_was_ever_written_and_nowhere_else(
    commands: Commands, before: CommandState
) -> None:
    record = a_command()
    record.state = before
    await commands.admit(record)
    again = a_repeat(record)
    assert await commands.readmit(again, seen=record) is (before in NEVER_WRITTEN)
    stored = await commands.get(record.command_id)
    assert stored is not None
    if before in NEVER_WRITTEN:
        assert (stored.state, stored.epoch, stored.deadline_at) == (CommandState.RECEIVED, 4, again.deadline_at)
        assert stored.transitions == [*record.transitions, *again.transitions]
    else:
        assert stored == record


async def test_of_many_who_begin_a_new_life_at_once_one_does(commands: Commands) -> None:
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


async def test_a_stop_that_expired_and_was_sent_again_is_recorded_as_one_command(commands: Commands) -> None:
    record = a_command()
    await commands.record_sent(record, [])
    await commands.move([step(record, CommandState.EXPIRED)])
    again = a_repeat(record)
    again.state = CommandState.WRITTEN
    again.transitions.append(Transition(NOW + timedelta(seconds=61), CommandState.WRITTEN, Hop.GATEWAY))
    await commands.record_sent(again, [])
    await commands.record_sent(again, [])
    stored = await commands.get(record.command_id)
    assert stored is not None
    assert (stored.state, stored.ended_at, stored.epoch) == (CommandState.WRITTEN, None, 4)
    assert [transition.state for transition in stored.transitions] == ["received", "expired", "received", "written"]


async def test_an_end_says_how_a_cancel_met_it(commands: Commands) -> None:
    record = a_command()
    await commands.admit(record)
    canceled = step(record, CommandState.CANCELED)
    await commands.move([Move(record.command_id, canceled.transition, "before_start")])
    stored = await commands.get(record.command_id)
    assert stored is not None
    assert (stored.state, stored.canceled) == (CommandState.CANCELED, "before_start")


async def test_what_older_sessions_carried_and_has_no_end_is_unknown(commands: Commands) -> None:
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
        stored = await commands.get(record.command_id)
        assert stored is not None
        assert stored.state is (CommandState.UNKNOWN if state in lost else state)
        assert [step.state for step in stored.transitions[1:]] == (["unknown"] if state in lost else [])
        if state in lost:
            ended = state is CommandState.RECEIVED
            assert ("the gateway ended" if ended else "a newer session") in (stored.transitions[1].detail or "")
    assert await commands.get(followed.command_id) == followed
    assert await commands.get(current.command_id) == current
    assert await commands.get(stranger.command_id) == stranger


async def test_what_a_node_does_not_remember_any_more_is_not_asked_for(commands: Commands) -> None:
    record = a_command(created_at=datetime.now(UTC) - timedelta(days=31))
    record.state = CommandState.UNKNOWN
    await commands.admit(record)
    assert await commands.lose_before(record.install_id, Epoch(9)) == []


async def test_what_was_sent_without_the_ledger_is_recorded_once_as_it_stands(commands: Commands) -> None:
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


async def test_what_the_node_said_while_a_sent_command_was_being_recorded_is_recorded_too(commands: Commands) -> None:
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
    stored = await commands.get(record.command_id)
    assert stored is not None
    assert (stored.state, stored.proof) == (CommandState.COMPLETED, '{"devices":[]}')
    assert [step.state for step in stored.transitions] == ["received", "written", "completed"]


async def test_pages_have_the_newest_first_and_the_total(commands: Commands) -> None:
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
