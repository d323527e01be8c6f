"""A command id is one command for ever, and its state only moves forward."""

import itertools
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.control.ledger import (
    ENDS,
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
