"""What becomes of a command is in the log with it, in the same transaction, whoever writes it down."""

import json
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from uuid import UUID, uuid4

import psycopg
import pytest

from skygw.control.ledger import CommandRecord, CommandState, Move, Transition
from skygw.database.commands import Commands
from skygw.database.event_log import PgEventLog
from skygw.database.node_reports import NodeReports
from skygw.database.pool import Database
from skygw.database.provision import NewDevice, NewObservatory, NewTelescope, provision
from skygw.errors import Hop
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, OutboxUid, TelescopeUid
from skygw.nodes.ports import DurableReport
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from skygw.protocol.streams import StreamFilter, StreamName
from skygw.telemetry.log import LogEvent
from tests.fakes.postgres import PostgresServer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
COMMAND = '{"command_type": "mount.park",  "odd": 1.50, "name": "Höhe\\n"}'
ORIGIN = '{ "page":"night plan" }'


class Fixture:
    """A telescope with a mount, and the log of its installation."""

    def __init__(self, database: Database) -> None:
        self.install_id = InstallId(uuid4())
        self.observatory_uid = uuid4()
        self.telescope_uid = TelescopeUid(uuid4())
        self.mount_uid = DeviceUid(uuid4())
        self.told = 0
        self.commands = Commands(database, committed=self._count)
        self.log = PgEventLog(database)

    def _count(self) -> None:
        self.told += 1

    @property
    def records(self) -> NewObservatory:
        mount = NewDevice(self.mount_uid, "mount")
        return NewObservatory(
            self.observatory_uid, "O", (NewTelescope(self.telescope_uid, "T", (mount,), install_id=self.install_id),)
        )

    def command(
        self, *states: CommandState, telescope_uid: TelescopeUid | None = None, device_uid: DeviceUid | None = None
    ) -> CommandRecord:
        return CommandRecord(
            command_id=CommandId(uuid4()),
            install_id=self.install_id,
            telescope_uid=telescope_uid,
            device_uid=device_uid,
            command=COMMAND,
            origin=ORIGIN,
            service='sched"uler',
            actor={"uid": "7", "kind": "user"},
            created_at=NOW,
            deadline_at=NOW + timedelta(seconds=30),
            epoch=Epoch(3),
            state=states[-1],
            transitions=[Transition(NOW, state, Hop.GATEWAY) for state in states],
        )

    async def events(self) -> Sequence[LogEvent]:
        """Of this installation, in order."""
        head = await self.log.head()
        wanted = StreamFilter(install_id=(self.install_id,))
        streams = (StreamName.COMMAND, StreamName.COMMAND_RESULT)
        pages = [await self.log.page(stream, 0, upto=head, wanted=wanted) for stream in streams]
        return sorted((event for page in pages for event in page), key=lambda event: event.position)


@pytest.fixture
async def site(database: Database, postgres: PostgresServer) -> Fixture:
    made = Fixture(database)
    await provision(postgres.owner_url, [made.records])
    return made


def step(record: CommandRecord, state: CommandState, detail: str | None = None, *, hop: Hop = Hop.GATEWAY) -> Move:
    return Move(record.command_id, Transition(NOW + timedelta(seconds=1), state, hop, detail))


def statuses(events: Sequence[LogEvent]) -> list[object]:
    return [json.loads(event.data).get("status", "the command") for event in events]


async def test_a_command_is_told_with_its_bytes_and_then_how_it_fares(site: Fixture) -> None:
    record = site.command(CommandState.RECEIVED, telescope_uid=site.telescope_uid)
    await site.commands.admit(record)
    await site.commands.move([step(record, CommandState.WRITTEN), step(record, CommandState.UNKNOWN, 'link "lost"\n')])
    command, received, written, unknown = await site.events()
    assert command.stream is StreamName.COMMAND
    assert command.data == (
        f'{{"command_id":"{record.command_id}","telescope_uid":"{site.telescope_uid}","command":{COMMAND},'
        f'"origin":{ORIGIN},"actor":{{"uid": "7", "kind": "user"}},"service":"sched\\"uler",'
        '"created_at":"2026-03-01T12:00:00+00:00"}'
    )
    assert {event.stream for event in (received, written, unknown)} == {StreamName.COMMAND_RESULT}
    assert received.data == f'{{"command_id":"{record.command_id}","status":"received","hop":"gateway"}}'
    assert json.loads(unknown.data) == {
        "command_id": str(record.command_id),
        "status": "unknown",
        "hop": "gateway",
        "detail": 'link "lost"\n',
    }
    assert [event.observed_at for event in (command, received, written)] == [NOW, NOW, NOW + timedelta(seconds=1)]
    assert site.told == 2


async def test_a_command_for_a_device_is_found_by_all_that_it_belongs_to(site: Fixture) -> None:
    await site.commands.admit(site.command(CommandState.RECEIVED, device_uid=site.mount_uid))
    events = await site.events()
    assert len(events) == 2
    for event in events:
        assert event.install_id == site.install_id
        assert event.observatory_uid == site.observatory_uid
        assert event.telescope_uid == site.telescope_uid
        assert event.device_uid == site.mount_uid
    told = json.loads(events[0].data)
    assert ("telescope_uid" in told, told["device_uid"]) == (False, str(site.mount_uid))


async def test_a_command_without_origin_and_actor_says_nothing_of_them(site: Fixture) -> None:
    record = site.command(CommandState.RECEIVED, telescope_uid=site.telescope_uid)
    record.origin = record.actor = None
    await site.commands.admit(record)
    events = await site.events()
    assert list(json.loads(events[0].data)) == ["command_id", "telescope_uid", "command", "service", "created_at"]


async def test_what_changes_nothing_is_told_to_nobody(site: Fixture) -> None:
    record = site.command(CommandState.RECEIVED, telescope_uid=site.telescope_uid)
    await site.commands.admit(record)
    await site.commands.admit(record)
    await site.commands.move([step(record, CommandState.EXPIRED), step(record, CommandState.WRITTEN)])
    assert statuses(await site.events()) == ["the command", "received", "expired"]


async def test_a_new_life_and_what_a_newer_session_lost_are_told(site: Fixture) -> None:
    record = site.command(CommandState.RECEIVED, telescope_uid=site.telescope_uid)
    await site.commands.admit(record)
    await site.commands.move([step(record, CommandState.EXPIRED)])
    again = site.command(CommandState.RECEIVED, CommandState.WRITTEN, telescope_uid=site.telescope_uid)
    again.command_id = record.command_id
    again.deadline_at = NOW + timedelta(seconds=90)
    assert await site.commands.readmit(again, seen=record)
    await site.commands.lose_before(site.install_id, Epoch(9))
    assert statuses(await site.events()) == ["the command", "received", "expired", "received", "written", "unknown"]


async def test_what_the_node_says_is_told_once_as_it_says_it(site: Fixture, database: Database) -> None:
    record = site.command(CommandState.RECEIVED, CommandState.WRITTEN, device_uid=site.mount_uid)
    await site.commands.admit(record)
    said = PublishCommandResult(seq=1, command_id=record.command_id, status=CommandStatus.COMPLETED)
    data = f'{{"command_id": "{record.command_id}",  "status":"completed"}}'
    report = DurableReport(
        seq=1, kind=said.kind, text="", result=said, stream=StreamName.COMMAND_RESULT, data=data, observed_at=NOW
    )
    await NodeReports(database).commit(site.install_id, OutboxUid(uuid4()), [report])
    events = await site.events()
    assert statuses(events) == ["the command", "received", "written", "completed"]
    assert events[-1].data == data
    assert (events[-1].device_uid, events[-1].telescope_uid) == (site.mount_uid, site.telescope_uid)
    assert events[-1].observatory_uid == site.observatory_uid


async def test_what_was_sent_unrecorded_is_told_when_it_is_recorded(site: Fixture) -> None:
    record = site.command(CommandState.RECEIVED, CommandState.WRITTEN, telescope_uid=site.telescope_uid)
    record.transitions.append(Transition(NOW, CommandState.COMPLETED, Hop.NODE))
    await site.commands.record_sent(record, [])
    await site.commands.record_sent(record, [])
    assert statuses(await site.events()) == ["the command", "received", "written"]


async def test_a_command_that_is_undone_was_never_told(site: Fixture, postgres: PostgresServer) -> None:
    record = site.command(CommandState.RECEIVED, telescope_uid=site.telescope_uid)
    await site.commands.admit(record)
    insert = "INSERT INTO skygw.command_transition (command_id, at, state, hop) VALUES (%s, now(), %s, 'gateway')"
    with psycopg.connect(postgres.gateway_url) as connection:
        connection.execute(insert, [record.command_id, "undone"])
        connection.rollback()
        connection.execute(insert, [record.command_id, "done by somebody else"])
    assert statuses(await site.events()) == ["the command", "received", "done by somebody else"]


async def test_a_command_of_an_installation_the_hub_does_not_know_is_told_all_the_same(site: Fixture) -> None:
    site.install_id = InstallId(UUID(int=uuid4().int))
    await site.commands.admit(site.command(CommandState.RECEIVED, telescope_uid=site.telescope_uid))
    command, _ = await site.events()
    assert (command.observatory_uid, command.telescope_uid) == (None, site.telescope_uid)
