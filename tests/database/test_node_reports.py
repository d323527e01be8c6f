"""What a node reports is kept once, in order and byte for byte, and moves the commands it tells of."""

from datetime import UTC, datetime, timedelta
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.control.ledger import CommandRecord, CommandState, Transition
from skygw.database.commands import Commands
from skygw.database.node_reports import NodeReports
from skygw.database.pool import Database
from skygw.errors import Hop, Invalid
from skygw.ids import CommandId, InstallId, OutboxUid, TelescopeUid
from skygw.nodes.ports import DurableReport
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import PublishCommandResult
from skygw.protocol.streams import StreamName
from tests.fakes.postgres import PostgresServer

NODE = InstallId(uuid4())
NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)


def a_log(seq: int, *, nacked: str | None = None) -> DurableReport:
    return DurableReport(
        seq=seq,
        kind="publish_log",
        text="",
        nacked=nacked,
        stream=StreamName.TELESCOPE_LOG,
        data=f'{{"seq": {seq},  "z":"ü"}}' if nacked is None else "{}",
        observed_at=NOW,
    )


def a_result(seq: int, command_id: CommandId, status: str, **members: Any) -> DurableReport:
    result = PublishCommandResult.model_validate({"seq": seq, "command_id": command_id, "status": status, **members})
    return DurableReport(
        seq=seq,
        kind="publish_command_result",
        text="",
        result=result,
        stream=StreamName.COMMAND_RESULT,
        data=f'{{"status":"{status}"}}',
    )


@pytest.fixture
def outbox() -> OutboxUid:
    return OutboxUid(uuid4())


@pytest.fixture
def reports(database: Database) -> NodeReports:
    return NodeReports(database)


@pytest.fixture
def commands(database: Database) -> Commands:
    return Commands(database)


@pytest.fixture
async def sent(commands: Commands) -> CommandRecord:
    """A command that was written to the node."""
    record = CommandRecord(
        command_id=CommandId(uuid4()),
        install_id=NODE,
        telescope_uid=TelescopeUid(uuid4()),
        device_uid=None,
        command="{}",
        origin=None,
        service="scheduler",
        actor=None,
        created_at=NOW,
        deadline_at=NOW + timedelta(seconds=30),
        state=CommandState.WRITTEN,
        transitions=[Transition(NOW, CommandState.WRITTEN, Hop.GATEWAY)],
    )
    await commands.admit(record)
    return record


async def now_of(commands: Commands, record: CommandRecord) -> CommandRecord:
    stored = await commands.get(record.command_id)
    assert stored is not None
    return stored


def kept(postgres: PostgresServer, outbox: OutboxUid) -> list[tuple[Any, ...]]:
    with psycopg.connect(postgres.gateway_url) as connection:
        return connection.execute(
            "SELECT seq, stream, data, nacked FROM skygw.log WHERE outbox_uid = %s ORDER BY position", [outbox]
        ).fetchall()


async def test_an_outbox_nobody_wrote_to_begins_at_nothing(reports: NodeReports, outbox: OutboxUid) -> None:
    assert await reports.acked_seq(NODE, outbox) == 0


async def test_a_run_is_kept_byte_for_byte_and_moves_the_cursor(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer
) -> None:
    assert await reports.commit(NODE, outbox, [a_log(1), a_log(2, nacked="not a log")]) == 2
    assert await reports.acked_seq(NODE, outbox) == 2
    assert kept(postgres, outbox) == [
        (1, "telescope_log", '{"seq": 1,  "z":"ü"}', None),
        (2, "*telescope_log", "{}", "not a log"),
    ]


async def test_what_is_there_already_is_passed_over(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer
) -> None:
    await reports.commit(NODE, outbox, [a_log(1), a_log(2)])
    assert await reports.commit(NODE, outbox, [a_log(1), a_log(2)]) == 2
    assert await reports.commit(NODE, outbox, [a_log(2), a_log(3)]) == 3
    assert await reports.commit(NODE, outbox, []) == 3
    assert [row[0] for row in kept(postgres, outbox)] == [1, 2, 3]


@pytest.mark.parametrize("seqs", [(2,), (1, 3), (1, 1), (2, 1)], ids=str)
async def test_a_hole_is_refused_and_nothing_of_the_run_is_kept(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer, seqs: tuple[int, ...]
) -> None:
    with pytest.raises(Invalid, match="was due"):
        await reports.commit(NODE, outbox, [a_log(seq) for seq in seqs])
    assert kept(postgres, outbox) == []
    assert await reports.acked_seq(NODE, outbox) == 0


async def test_the_same_run_brought_twice_at_once_is_kept_once(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer
) -> None:
    cursors: list[int] = []

    async def bring() -> None:
        cursors.append(await reports.commit(NODE, outbox, [a_log(seq) for seq in range(1, 20)]))

    async with trio.open_nursery() as nursery:
        for _ in range(4):
            nursery.start_soon(bring)
    assert cursors == [19] * 4
    assert len(kept(postgres, outbox)) == 19


async def test_outboxes_and_installations_count_by_themselves(reports: NodeReports, outbox: OutboxUid) -> None:
    await reports.commit(NODE, outbox, [a_log(1)])
    assert await reports.commit(InstallId(uuid4()), outbox, [a_log(1)]) == 1
    assert await reports.commit(NODE, OutboxUid(uuid4()), [a_log(1)]) == 1


async def test_a_result_moves_its_command_in_the_same_commit(
    reports: NodeReports, commands: Commands, outbox: OutboxUid, sent: CommandRecord
) -> None:
    await reports.commit(
        NODE,
        outbox,
        [
            a_result(1, sent.command_id, "accepted"),
            a_result(2, sent.command_id, "running", progress=0.25),
            a_result(3, sent.command_id, "running", progress=0.5),
        ],
    )
    running = await now_of(commands, sent)
    assert (running.state, running.progress, running.ended_at) == (CommandState.RUNNING, 0.5, None)
    await reports.commit(
        NODE,
        outbox,
        [
            a_result(
                4,
                sent.command_id,
                "canceled",
                canceled="interrupted",
                result=Opaque('{"at":  1}', {"at": 1}),
                proof=Opaque('{"devices": []}', {"devices": []}),
            )
        ],
    )
    ended = await now_of(commands, sent)
    assert (ended.state, ended.canceled) == (CommandState.CANCELED, "interrupted")
    assert (ended.result, ended.proof, ended.error) == ('{"at":  1}', '{"devices": []}', None)
    assert ended.ended_at is not None
    assert [(step.state, step.hop) for step in ended.transitions[1:]] == [
        (CommandState.ACCEPTED, Hop.NODE),
        (CommandState.RUNNING, Hop.NODE),
        (CommandState.CANCELED, Hop.NODE),
    ]


async def test_a_command_that_has_ended_stays_as_it_is(
    reports: NodeReports, commands: Commands, outbox: OutboxUid, sent: CommandRecord
) -> None:
    await reports.commit(NODE, outbox, [a_result(1, sent.command_id, "completed", progress=1)])
    before = await now_of(commands, sent)
    late = [a_result(2, sent.command_id, "running", progress=0.1), a_result(3, sent.command_id, "failed")]
    assert await reports.commit(NODE, outbox, late) == 3
    assert await now_of(commands, sent) == before


async def test_a_command_of_another_installation_is_not_moved(
    reports: NodeReports, commands: Commands, outbox: OutboxUid, sent: CommandRecord
) -> None:
    assert await reports.commit(InstallId(uuid4()), outbox, [a_result(1, sent.command_id, "completed")]) == 1
    assert await now_of(commands, sent) == sent


async def test_a_result_of_a_command_nobody_knows_is_kept(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer
) -> None:
    assert await reports.commit(NODE, outbox, [a_result(1, CommandId(uuid4()), "completed")]) == 1
    assert len(kept(postgres, outbox)) == 1


async def test_a_cancelled_commit_happened_whole_or_not_at_all(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer
) -> None:
    with psycopg.connect(postgres.gateway_url) as rival:
        # Somebody holds the cursor's row, so that the commit waits in its middle.
        rival.execute("INSERT INTO skygw.node_outbox VALUES (%s, %s, 0)", [NODE, outbox])
        with trio.move_on_after(0.1) as scope:
            await reports.commit(NODE, outbox, [a_log(1)])
        assert scope.cancelled_caught
        rival.rollback()
    assert kept(postgres, outbox) == []
    assert await reports.commit(NODE, outbox, [a_log(1)]) == 1
