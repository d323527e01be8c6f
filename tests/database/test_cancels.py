"""Cancels, fences and deadlines in PostgreSQL: kept in order, sealed with the steps, on old data too."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.control.audit import AuditBroken, AuditChecker
from skygw.control.ledger import Caller, CancelRequest, CommandQuery, CommandRecord, CommandState, Move, Transition
from skygw.database.audit import AuditReader, open_audit
from skygw.database.commands import Commands
from skygw.database.migrate import known_migrations, migrate
from skygw.database.node_reports import NodeReports
from skygw.database.node_sessions import NodeSessions
from skygw.database.platform import create_platform
from skygw.database.pool import Database, open_loop_and_database
from skygw.errors import Hop
from skygw.ids import CommandId, Epoch, InstallId, InstanceUid, OutboxUid
from skygw.nodes.ports import NOT_KNOWN, DurableReport
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.json_text import Opaque
from tests.database.test_audit import Audited
from tests.database.test_commands import a_command
from tests.database.test_node_reports import a_result
from tests.database.test_old_reports import migrate_up_to
from tests.fakes.postgres import PostgresServer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
PERSON = Caller("console", {"uid": "9", "kind": "user"})


def a_cancel(record: CommandRecord, *, grace_s: float | None = None, by: Caller = PERSON) -> CancelRequest:
    mode = CancelMode.IMMEDIATE if grace_s is None else CancelMode.GRACEFUL
    return CancelRequest(uuid4(), record.command_id, NOW, mode, grace_s, by)


async def stored_of(commands: Commands, record: CommandRecord) -> CommandRecord:
    stored = await commands.get(record.command_id)
    assert stored is not None
    return stored


# Cancels.


async def test_cancels_are_kept_once_and_in_the_order_they_were_asked_for(database: Database) -> None:
    commands, record, other = Commands(database), a_command(), a_command()
    await commands.admit(record)
    await commands.admit(other)
    first, second = a_cancel(record, grace_s=2.5), a_cancel(record, by=Caller("scheduler"))
    strange = a_cancel(a_command())
    await commands.record_cancels([first, a_cancel(other), strange, second])
    await commands.record_cancels([second, first])
    assert (await stored_of(commands, record)).cancels == [first, second]
    page, _ = await commands.page(CommandQuery(install_id=record.install_id))
    assert page[0].cancels == [first, second]


@pytest.fixture
def audited(postgres: PostgresServer, tmp_path: Path) -> Audited:
    return Audited(postgres, tmp_path)


async def test_a_cancel_is_sealed_between_the_steps_it_came_between_and_the_fence_with_each_step(
    audited: Audited,
) -> None:
    record = a_command(audited.one)
    record.fence, record.fence_uid = 12, uuid4()
    async with open_loop_and_database(audited.gateway_url) as database:
        commands = Commands(database)
        await commands.admit(record)
        await commands.record_cancels([a_cancel(record, grace_s=2.5)])
        canceled = Transition(NOW, CommandState.CANCELED, Hop.GATEWAY, by=PERSON)
        await commands.move([Move(record.command_id, canceled, "before_start")])
    assert audited.check().steps == 3
    received, cancel, end = audited.entries(audited.one)
    assert [one.get("state") for one in (received, cancel, end)] == ["received", None, "canceled"]
    for step in (received, end):
        assert (step["fence"], step["fence_uid"]) == (12, str(record.fence_uid))
    said = cancel["cancel"]
    assert isinstance(said, dict)
    assert (said["mode"], said["grace_s"]) == ("graceful", 2.5)
    assert (cancel["service"], cancel["actor"]) == ("console", {"uid": "9", "kind": "user"})
    assert cancel["command_sha256"] == record.identity.hex()
    assert datetime.fromisoformat(str(cancel["at"])) == NOW

    with psycopg.connect(audited.owner_url) as connection:
        for harm, message in (
            ("UPDATE skygw.command_cancel SET service = 'somebody else'", "was changed"),
            ("UPDATE skygw.command_cancel SET grace_s = 9", "was changed"),
            ("DELETE FROM skygw.command_cancel", "is missing: the audit has it"),
        ):
            connection.execute(harm.encode())
            with pytest.raises(AuditBroken, match=message):
                audited.check_with(AuditReader(connection))
            connection.rollback()


def test_what_was_sealed_before_there_were_cancels_stays_whole_and_the_chain_goes_on(postgres: PostgresServer) -> None:
    owner_url, gateway_url = postgres.new_database(empty=True)
    create_platform(owner_url)
    migrate_up_to(owner_url, "0007_command_audit")
    install_id, command_id, outbox_uid, silent = uuid4(), uuid4(), uuid4(), uuid4()
    with psycopg.connect(gateway_url) as connection:
        connection.execute(
            "INSERT INTO skygw.command (command_id, install_id, telescope_uid, command, command_sha256, service, "
            "state, epoch, deadline_at, created_at, updated_at) "
            "VALUES (%s, %s, %s, '{}', 'x', 'scheduler', 'written', 3, now(), now(), now())",
            [command_id, install_id, uuid4()],
        )
        for state in ("received", "written"):
            connection.execute(
                "INSERT INTO skygw.command_transition (command_id, at, state, hop) VALUES (%s, now(), %s, 'gateway')",
                [command_id, state],
            )
        connection.execute("INSERT INTO skygw.node_session VALUES (%s, 7, %s, now())", [install_id, uuid4()])
        for known, of in ((outbox_uid, install_id), (silent, uuid4())):
            connection.execute("INSERT INTO skygw.node_outbox VALUES (%s, %s, 5)", [of, known])

    trio.run(migrate, owner_url)
    with psycopg.connect(owner_url) as connection:
        connection.execute("DELETE FROM skygw._yoyo_migration WHERE migration_id >= '0007'")
    assert trio.run(migrate, owner_url).applied == [name for name in known_migrations() if name >= "0007"]

    async def go_on() -> CommandRecord | None:
        async with open_loop_and_database(gateway_url) as database:
            commands = Commands(database)
            record = await commands.get(CommandId(command_id))
            assert record is not None
            await commands.record_cancels([a_cancel(record)])
            await commands.lose_before(InstallId(install_id), Epoch(8))
            return await commands.get(CommandId(command_id))

    record = trio.run(go_on)
    assert record is not None
    assert (record.fence, record.deadline_max_at, len(record.cancels)) == (None, None, 1)
    with open_audit(gateway_url) as audit:
        checker = AuditChecker(audit.registry_uid, lambda *_: None)
        for item in audit.items():
            checker.take(item)
        checker.end()
        audit.compare_with_commands()
    assert checker.found.steps == 4
    with psycopg.connect(owner_url) as connection:
        entries = [
            json.loads(row[0])
            for row in connection.execute("SELECT entry FROM skygw.command_audit ORDER BY position").fetchall()
        ]
        epochs: dict[Any, Any] = dict(
            connection.execute("SELECT outbox_uid, known_epoch FROM skygw.node_outbox").fetchall()
        )
    assert ["fence" in entry for entry in entries] == [False, False, False, True]
    assert epochs == {outbox_uid: 7, silent: None}


# What a node's memory can know.


async def hello(database: Database, install_id: InstallId, instance_uid: InstanceUid, outbox: OutboxUid) -> Epoch:
    claim = await NodeSessions(database).claim(
        install_id=install_id, instance_uid=instance_uid, last_epoch=0, last_fences={}
    )
    await NodeReports(database).acked_seq(install_id, outbox)
    return claim.epoch


def never(seq: int, record: CommandRecord) -> DurableReport:
    return a_result(seq, record.command_id, "rejected", error=Opaque.of({"reason": "never_received"}))


async def sent(database: Database, install_id: InstallId, epoch: Epoch, kind: str = "mount.park") -> CommandRecord:
    record = a_command(install_id)
    record.command = json.dumps({"command_type": kind})
    record.epoch = epoch
    record.state = CommandState.UNKNOWN
    await Commands(database).admit(record)
    return record


async def test_that_a_command_never_came_is_believed_of_a_memory_that_was_there_when_it_went(
    database: Database,
) -> None:
    install_id, instance_uid = InstallId(uuid4()), InstanceUid(uuid4())
    old, young = OutboxUid(uuid4()), OutboxUid(uuid4())
    commands, reports = Commands(database), NodeReports(database)
    first = await hello(database, install_id, instance_uid, old)
    lost, stop = await sent(database, install_id, first), await sent(database, install_id, first, "mount.stop")
    spoken = await sent(database, install_id, first)
    await reports.commit(install_id, old, [a_result(1, spoken.command_id, "running")])
    await hello(database, install_id, instance_uid, old)
    assert await hello(database, install_id, instance_uid, young) == first + 2

    assert await reports.refuses(install_id, young, [never(1, lost)]) == NOT_KNOWN
    assert await reports.refuses(install_id, OutboxUid(uuid4()), [never(1, lost)]) == NOT_KNOWN
    for record in (stop, spoken):
        assert await reports.refuses(install_id, old, [never(2, record)]) == NOT_KNOWN
    for record in (lost, stop):
        assert (await stored_of(commands, record)).state is CommandState.UNKNOWN
    await reports.commit(install_id, old, [never(2, lost)])
    assert (await stored_of(commands, lost)).state is CommandState.REJECTED
    late = await sent(database, install_id, Epoch(first + 2))
    await reports.commit(install_id, young, [never(1, late), never(2, lost)])  # which has ended, and stays so
    assert (await stored_of(commands, late)).state is CommandState.REJECTED


# More time.


async def test_a_deadline_moves_as_its_node_asks_and_no_further_than_the_caller_allows(database: Database) -> None:
    commands, reports, outbox = Commands(database), NodeReports(database), OutboxUid(uuid4())
    record, firm = a_command(), a_command()
    record.deadline_first_at, record.deadline_max_at = record.deadline_at, record.deadline_at + timedelta(seconds=15)
    await commands.admit(record)
    await commands.admit(firm)
    moved: list[float] = []
    for seq, more_ms in enumerate((5_000, None, 2_000, 15_001, 2**53 - 1), 1):
        report = a_result(seq, record.command_id, "running", deadline_ms=more_ms)
        await reports.commit(record.install_id, outbox, [report])
        moved.append(((await stored_of(commands, record)).deadline_at - record.deadline_at).total_seconds())
    assert moved == [5, 5, 5, 15, 15]
    await reports.commit(firm.install_id, outbox, [a_result(1, firm.command_id, "running", deadline_ms=9)])
    assert (await stored_of(commands, firm)).deadline_at == firm.deadline_at


async def test_a_new_life_has_a_fence_and_a_budget_of_its_own(database: Database) -> None:
    commands, record = Commands(database), a_command()
    record.fence, record.fence_uid = 3, uuid4()
    record.deadline_first_at, record.deadline_max_at = record.deadline_at, record.deadline_at + timedelta(seconds=15)
    await commands.admit(record)
    assert await stored_of(commands, record) == record
    await commands.move([Move(record.command_id, Transition(NOW, CommandState.EXPIRED, Hop.GATEWAY))])
    again = a_command(record.install_id, created_at=NOW + timedelta(seconds=60))
    again.command_id, again.telescope_uid = record.command_id, record.telescope_uid
    again.fence, again.fence_uid = 4, record.fence_uid
    assert await commands.readmit(again, seen=record)
    stored = await stored_of(commands, record)
    assert (stored.fence, stored.deadline_at, stored.deadline_max_at) == (4, again.deadline_at, None)
