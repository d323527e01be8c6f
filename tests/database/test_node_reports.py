"""What a node reports is kept once, in order and byte for byte, and moves the commands it tells of."""

import math
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.control.ledger import CommandRecord, CommandState, Transition
from skygw.database.commands import Commands
from skygw.database.node_reports import SESSIONS, NodeReports
from skygw.database.pool import Database
from skygw.database.provision import NewObservatory, NewTelescope, provision
from skygw.errors import Hop, Invalid, StoreFailed
from skygw.ids import CommandId, InstallId, OutboxUid, TelescopeUid
from skygw.nodes.ports import NOT_ITS, DurableReport
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


async def test_a_result_of_another_installations_command_is_refused_and_moves_nothing(
    reports: NodeReports, commands: Commands, outbox: OutboxUid, sent: CommandRecord, postgres: PostgresServer
) -> None:
    stranger = InstallId(uuid4())
    foreign = a_result(2, sent.command_id, "completed")
    with pytest.raises(StoreFailed) as refused:
        await reports.commit(stranger, outbox, [a_log(1), foreign])
    assert refused.value.about_the_data
    assert await reports.refuses(stranger, outbox, [foreign]) == NOT_ITS
    assert await reports.refuses(NODE, outbox, [foreign]) is None
    assert await now_of(commands, sent) == sent
    assert kept(postgres, outbox) == []


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


def unholdable(seq: int) -> DurableReport:
    """PostgreSQL has no such text; the codec lets none through."""
    return replace(a_log(seq), data='"\0"')


async def test_sessions_that_commit_at_the_same_time_share_transactions(
    database: Database, postgres: PostgresServer
) -> None:
    transactions: list[None] = []
    reports = NodeReports(database, committed=partial(transactions.append, None))
    outboxes = [OutboxUid(uuid4()) for _ in range(100)]
    cursors: list[int] = []

    async def bring(outbox: OutboxUid, seq: int) -> None:
        cursors.append(await reports.commit(NODE, outbox, [a_log(seq)]))

    for seq in (1, 2):
        transactions.clear()
        async with trio.open_nursery() as nursery:
            for outbox in outboxes:
                nursery.start_soon(bring, outbox, seq)
    assert cursors == [1] * 100 + [2] * 100
    assert len(transactions) == 1 + math.ceil(99 / SESSIONS)
    assert [[row[0] for row in kept(postgres, outbox)] for outbox in outboxes] == [[1, 2]] * 100


async def test_a_hole_and_a_cursor_that_is_held_are_the_matter_of_whose_they_are(
    reports: NodeReports, postgres: PostgresServer
) -> None:
    whole, holed, held = (OutboxUid(uuid4()) for _ in range(3))
    for outbox in (whole, holed, held):
        await reports.commit(NODE, outbox, [a_log(1)])
    refused: list[Invalid] = []
    waited = trio.CancelScope()

    async def bring_holed() -> None:
        try:
            await reports.commit(NODE, holed, [a_log(3)])
        except Invalid as error:
            refused.append(error)

    async def bring_held() -> None:
        with waited:
            await reports.commit(NODE, held, [a_log(2)])

    async def bring_whole() -> None:
        assert await reports.commit(NODE, whole, [a_log(2)]) == 2

    with psycopg.connect(postgres.gateway_url) as rival:
        rival.execute("UPDATE skygw.node_outbox SET acked_seq = 1 WHERE outbox_uid = %s", [held])
        async with trio.open_nursery() as nursery:
            nursery.start_soon(reports.commit, NODE, OutboxUid(uuid4()), [a_log(1)])
            nursery.start_soon(bring_holed)
            nursery.start_soon(bring_held)
            with trio.fail_after(5):
                await bring_whole()
            waited.cancel()
    assert [str(error) for error in refused] == ["report 3 came where 2 was due"]
    assert [row[0] for row in kept(postgres, whole)] == [1, 2]
    assert [row[0] for row in kept(postgres, holed)] == [1]


async def test_what_the_database_cannot_hold_is_refused_to_whose_it_is_alone(
    reports: NodeReports, postgres: PostgresServer
) -> None:
    outboxes = [OutboxUid(uuid4()) for _ in range(5)]
    for outbox in outboxes:
        await reports.commit(NODE, outbox, [a_log(1)])
    outcomes: dict[OutboxUid, int | StoreFailed] = {}

    async def bring(outbox: OutboxUid) -> None:
        middle = unholdable(3) if outbox == outboxes[2] else a_log(3)
        try:
            outcomes[outbox] = await reports.commit(NODE, outbox, [a_log(2), middle, a_log(4)])
        except StoreFailed as error:
            outcomes[outbox] = error

    async with trio.open_nursery() as nursery:
        for outbox in outboxes:
            nursery.start_soon(bring, outbox)
    error = outcomes.pop(outboxes[2])
    assert isinstance(error, StoreFailed)
    assert error.about_the_data
    assert list(outcomes.values()) == [4, 4, 4, 4]
    assert [row[0] for row in kept(postgres, outboxes[2])] == [1]


async def test_whether_the_database_can_hold_reports_is_tried_and_undone(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer
) -> None:
    assert not await reports.refuses(NODE, outbox, [a_log(7), a_log(8)])
    assert await reports.refuses(NODE, outbox, [a_log(7), unholdable(8)])
    assert kept(postgres, outbox) == []
    assert await reports.acked_seq(NODE, outbox) == 0
    assert await reports.commit(NODE, outbox, [a_log(1)]) == 1


async def test_an_event_belongs_to_what_the_hubs_records_say_of_its_installation(
    reports: NodeReports, outbox: OutboxUid, postgres: PostgresServer
) -> None:
    observatory, install_id, telescope_uid, device_uid = uuid4(), InstallId(uuid4()), TelescopeUid(uuid4()), uuid4()
    telescope = NewTelescope(telescope_uid, "T", install_id=install_id)
    await provision(postgres.owner_url, [NewObservatory(observatory, "O", (telescope,))])
    of_device = replace(a_log(1), device_uid=device_uid)
    gap = DurableReport(seq=2, kind="publish_gap", text="", data='{"count":3}', observed_at=NOW, missing=3)
    await reports.commit(install_id, outbox, [of_device, gap])
    with psycopg.connect(postgres.gateway_url) as connection:
        rows = connection.execute(
            "SELECT stream, install_id, observatory_uid, telescope_uid, device_uid, observed_at, data, missing "
            "FROM skygw.log WHERE outbox_uid = %s ORDER BY position",
            [outbox],
        ).fetchall()
    assert rows == [
        ("telescope_log", install_id, observatory, telescope_uid, device_uid, NOW, of_device.data, None),
        ("*", install_id, observatory, telescope_uid, None, NOW, '{"count":3}', 3),
    ]
