"""Every step of a command is sealed in a chain that the gateway can add to and nobody mends unseen."""

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from uuid import uuid4

import psycopg
import pytest
import trio

from skygw.auth.audit_key import AuditKey, TrustedKeys, load_or_make
from skygw.cli.main import run
from skygw.cli.terminal import ExitCode
from skygw.control.audit import AuditBroken, AuditChecker, Found
from skygw.control.ledger import Caller, CommandRecord, CommandState, Move, Transition
from skygw.database.audit import AuditReader, AuditSigner, open_audit
from skygw.database.commands import Commands
from skygw.database.migrate import known_migrations, migrate
from skygw.database.node_reports import NodeReports
from skygw.database.platform import create_platform
from skygw.database.pool import open_loop_and_database
from skygw.errors import Hop
from skygw.ids import Epoch, InstallId, OutboxUid
from skygw.nodes.ports import DurableReport
from skygw.protocol.node_frames import CommandStatus, PublishCommandResult
from skygw.protocol.streams import StreamName
from tests.database.test_commands import a_command
from tests.database.test_old_reports import migrate_up_to
from tests.fakes.postgres import PostgresServer

NOW = datetime(2026, 3, 1, 12, tzinfo=UTC)
ADMIN = Caller("admin-tool", {"uid": "9", "kind": "user"})


class Audited:
    """A database of one test's own, whose owner may do what no gateway can."""

    def __init__(self, postgres: PostgresServer, tmp_path: Path) -> None:
        self.owner_url, self.gateway_url = postgres.new_database()
        self.key_file = tmp_path / "audit-key.pem"
        self.key: AuditKey = load_or_make(self.key_file)
        self.trusted = TrustedKeys([self.key.private.public_key()])
        self.one, self.other = InstallId(uuid4()), InstallId(uuid4())

    async def live_through(self, install_id: InstallId) -> CommandRecord:
        """One command with four steps."""
        record = a_command(install_id)
        async with open_loop_and_database(self.gateway_url) as database:
            commands = Commands(database)
            await commands.admit(record)
            await commands.move(
                [
                    Move(record.command_id, Transition(NOW, state, Hop.GATEWAY, detail))
                    for state, detail in (
                        (CommandState.WRITTEN, None),
                        (CommandState.UNKNOWN, "the “link” \\ was lost"),
                    )
                ]
            )
            assert await commands.resolve(
                record.command_id, Transition(NOW, CommandState.FAILED, Hop.GATEWAY, "asked on site", ADMIN)
            )
        return record

    async def sign(self) -> int:
        async with open_loop_and_database(self.gateway_url) as database:
            return await AuditSigner(database, key_id=self.key.key_id, sign=self.key.sign).sign_heads()

    def check(self) -> Found:
        with open_audit(self.gateway_url) as audit:
            return self.check_with(audit)

    def check_with(self, audit: AuditReader) -> Found:
        checker = AuditChecker(audit.registry_uid, self.trusted.verify)
        for item in audit.items():
            checker.take(item)
        checker.end()
        audit.compare_with_commands()
        return checker.found

    def entries(self, install_id: InstallId) -> list[dict[str, object]]:
        return [
            json.loads(str(row[0]))
            for row in self.asked(
                f"SELECT entry FROM skygw.command_audit WHERE install_id = '{install_id}' ORDER BY position"  # noqa: S608
            )
        ]

    def asked(self, statement: str) -> list[tuple[object, ...]]:
        """As the owner, past every trigger."""
        with psycopg.connect(self.owner_url) as connection:
            cursor = connection.execute(statement.encode())
            return cursor.fetchall() if cursor.description else []


@pytest.fixture
def audited(postgres: PostgresServer, tmp_path: Path) -> Audited:
    return Audited(postgres, tmp_path)


async def test_every_step_is_sealed_with_its_time_hop_epoch_trace_and_who_asked_for_it(audited: Audited) -> None:
    record = await audited.live_through(audited.one)
    entries = audited.entries(audited.one)
    assert [entry["state"] for entry in entries] == ["received", "written", "unknown", "failed"]
    assert [entry["position"] for entry in entries] == [1, 2, 3, 4]
    for entry in entries:
        assert entry["command_id"] == str(record.command_id)
        assert entry["command_sha256"] == record.identity.hex()
        assert (entry["epoch"], entry["trace_id"], entry["hop"]) == (3, record.trace_id, "gateway")
    assert {(entry["service"], json.dumps(entry["actor"])) for entry in entries[:3]} == {
        ("scheduler", '{"uid": "7", "kind": "user"}')
    }
    assert (entries[3]["service"], entries[3]["actor"]) == ("admin-tool", {"uid": "9", "kind": "user"})
    assert (entries[2]["detail"], entries[3]["detail"]) == ("the “link” \\ was lost", "asked on site")
    assert datetime.fromisoformat(str(entries[1]["at"])) == NOW


async def test_a_new_life_is_sealed_in_the_name_of_whoever_began_it(audited: Audited) -> None:
    record = a_command(audited.one)
    async with open_loop_and_database(audited.gateway_url) as database:
        commands = Commands(database)
        await commands.admit(record)
        await commands.move([Move(record.command_id, Transition(NOW, CommandState.EXPIRED, Hop.GATEWAY))])
        again = a_command(audited.one)
        again.command_id, again.command, again.telescope_uid = record.command_id, record.command, record.telescope_uid
        again.transitions = [Transition(NOW, CommandState.RECEIVED, Hop.GATEWAY, by=ADMIN)]
        assert await commands.readmit(again, seen=record)
        await commands.move([Move(record.command_id, Transition(NOW, CommandState.WRITTEN, Hop.GATEWAY))])
    services = [entry["service"] for entry in audited.entries(audited.one)]
    assert services == ["scheduler", "scheduler", "admin-tool", "admin-tool"]


async def test_chains_of_two_installations_are_whole_and_signed(audited: Audited) -> None:
    for install_id in (audited.one, audited.other, audited.one):
        await audited.live_through(install_id)
    assert await audited.sign() == 2
    assert await audited.sign() == 0
    await audited.live_through(audited.one)
    found = audited.check()
    assert (found.steps, found.installations, found.checkpoints, found.unsigned) == (16, 2, 2, 4)


async def test_steps_and_reports_that_are_committed_at_once_seal_without_a_deadlock(audited: Audited) -> None:
    async with open_loop_and_database(audited.gateway_url) as database:
        commands, reports = Commands(database), NodeReports(database)
        records = [a_command(install_id) for install_id in (audited.one, audited.other) * 10]

        async def live(record: CommandRecord) -> None:
            await commands.admit(record)
            said = PublishCommandResult(seq=1, command_id=record.command_id, status=CommandStatus.RUNNING)
            report = DurableReport(
                seq=1, kind=said.kind, text="", result=said, stream=StreamName.COMMAND_RESULT, data="{}"
            )
            await reports.commit(record.install_id, OutboxUid(uuid4()), [report])
            everything = [other.command_id for other in records]
            await commands.lose_before(record.install_id, Epoch(9), followed=everything)

        async with trio.open_nursery() as nursery:
            for record in records:
                nursery.start_soon(live, record)
    assert audited.check().steps == 60


HARM: dict[str, tuple[str, str]] = {
    "a row was changed": (
        "UPDATE skygw.command_audit SET entry = replace(entry, 'written', 'running') WHERE position = 2",
        "Row 2 of installation {one} is broken",
    ),
    "a row and its hash were changed": (
        "UPDATE skygw.command_audit SET entry = replace(entry, 'written', 'running'), hash = sha256("
        "(SELECT hash FROM skygw.command_audit WHERE position = 1) || replace(entry, 'written', 'running')::bytea"
        ") WHERE position = 2",
        "Row 3 of installation {one} is broken",
    ),
    "a row is gone": ("DELETE FROM skygw.command_audit WHERE position = 3", "Row 3 of installation {one} is missing"),
    "the last rows are gone": (
        "DELETE FROM skygw.command_audit WHERE position > 2",
        "Row 3 of installation {one} is missing: the checkpoint of",
    ),
    "the last rows and the head are gone": (
        "DELETE FROM skygw.command_audit WHERE position > 2; UPDATE skygw.audit_head SET position = 2, hash = "
        "(SELECT hash FROM skygw.command_audit WHERE position = 2)",
        "Row 3 of installation {one} is missing: the checkpoint of",
    ),
    "the head was set back": (
        "UPDATE skygw.audit_head SET position = 2, hash = (SELECT hash FROM skygw.command_audit WHERE position = 2)",
        "Row 3 of installation {one} stands where none may follow",
    ),
    "the head was changed": (
        "UPDATE skygw.audit_head SET hash = sha256(hash)",
        "Row 4 of installation {one} was replaced: the head",
    ),
    "a whole chain is gone": (
        "DELETE FROM skygw.command_audit; DELETE FROM skygw.audit_head",
        "Row 1 of installation {one} is missing: the checkpoint of",
    ),
    "two rows changed places": (
        "UPDATE skygw.command_audit SET position = -position WHERE position IN (2, 3);"
        "UPDATE skygw.command_audit SET position = 5 + position WHERE position < 0",
        "Row 2 of installation {one} is broken",
    ),
    "a checkpoint was moved": (
        "UPDATE skygw.audit_checkpoint SET made_at = made_at + interval '1 day'",
        "is forged: its signature is not of the key {key}",
    ),
    "a signature was changed": (
        "UPDATE skygw.audit_checkpoint SET signature = set_byte(signature, 3, get_byte(signature, 3) # 1)",
        "is forged: its signature is not of the key {key}",
    ),
    "a checkpoint is of another key": (
        "UPDATE skygw.audit_checkpoint SET key_id = 'ffffffffffffffff'",
        "is forged: it names the key 'ffffffffffffffff', which is not one of yours ({key})",
    ),
    "the database is another": (
        "UPDATE skygw.registry SET registry_uid = gen_random_uuid()",
        "is forged: its signature is not of the key {key}",
    ),
    "the database has no name": ("DELETE FROM skygw.registry", "The database has lost its name"),
    "the head is gone": ("DELETE FROM skygw.audit_head", "The head of installation {one} is missing"),
}


async def test_the_first_thing_that_is_wrong_is_said(audited: Audited) -> None:
    await audited.live_through(audited.one)
    await audited.sign()
    audited.check()
    with psycopg.connect(audited.owner_url) as connection:
        for harm, (statement, said) in HARM.items():
            connection.execute(statement.encode())
            with pytest.raises(AuditBroken) as broken:
                audited.check_with(AuditReader(connection))
            assert said.format(one=audited.one, key=audited.key.key_id) in str(broken.value), harm
            connection.rollback()


async def test_a_step_that_is_shown_otherwise_than_it_was_sealed_is_found(audited: Audited) -> None:
    await audited.live_through(audited.one)
    emptied = "DELETE FROM skygw.command_audit; DELETE FROM skygw.audit_head"
    with psycopg.connect(audited.owner_url) as connection:
        for statement, said in (
            ("UPDATE skygw.command_transition SET detail = 'nothing was lost' WHERE state = 'unknown'", "was changed"),
            ("DELETE FROM skygw.command_transition WHERE state = 'unknown'", "is missing: the audit has it"),
            (emptied, "is not in the audit"),
        ):
            connection.execute(statement.encode())
            with pytest.raises(AuditBroken, match=said):
                audited.check_with(AuditReader(connection))
            connection.rollback()


async def test_the_command_line_exports_and_checks_without_the_database(
    audited: Audited, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    await audited.live_through(audited.one)
    await audited.sign()
    file, public = tmp_path / "audit.jsonl", tmp_path / "public.pem"
    monkeypatch.setenv("XDG_DATA_HOME", str(tmp_path))
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))

    def skygw(*arguments: str) -> tuple[int, str]:
        code = run(["doctor", *arguments])
        told = capsys.readouterr()
        return code, told.out + told.err

    async def in_a_thread(*arguments: str) -> tuple[int, str]:
        return await trio.to_thread.run_sync(lambda: skygw(*arguments))

    key = str(audited.key_file)
    with monkeypatch.context() as with_database:
        with_database.setenv("SKYGW_DATABASE_URL", audited.gateway_url)
        code, said = await in_a_thread("--audit", "--export", str(file), "--key", key)
    assert (code, "The audit is whole: 4 steps of 1 installations" in said) == (ExitCode.OK, True)
    code, said = await in_a_thread("--check", str(file), "--key", key)
    assert (code, "The audit is whole" in said) == (ExitCode.OK, True)
    code, said = await in_a_thread("--check", str(file))
    assert (code, "--key" in said) == (ExitCode.USAGE, True)
    stranger = load_or_make(tmp_path / "stranger.pem")
    public.write_bytes((tmp_path / "stranger.pem").read_bytes())
    code, said = await in_a_thread("--check", str(file), "--key", str(public), "--json")
    assert (code, json.loads(said)["ok"], stranger.key_id in said) == (ExitCode.FAILED, False, True)
    file.write_text(file.read_text().replace("written", "running"))
    code, said = await in_a_thread("--check", str(file), "--key", key)
    assert (code, "Row 2" in said) == (ExitCode.FAILED, True)
    code, said = await in_a_thread("--check", str(public), "--key", key)
    assert (code, "This is no export" in said) == (ExitCode.FAILED, True)
    for misused in (["--audit", "--check", str(file)], ["--export", "x"], ["--key", key]):
        code, said = await in_a_thread(*misused)
        assert (code, "Traceback" in said) == (ExitCode.USAGE, False)


def test_steps_of_before_the_audit_are_sealed_once(postgres: PostgresServer) -> None:
    owner_url, gateway_url = postgres.new_database(empty=True)
    create_platform(owner_url)
    migrate_up_to(owner_url, "0005_retained_values")
    install_ids, command_ids = [uuid4(), uuid4()], [uuid4(), uuid4(), uuid4()]
    with psycopg.connect(gateway_url) as connection:
        for command_id, install_id in zip(command_ids, (*install_ids, install_ids[0]), strict=True):
            connection.execute(
                "INSERT INTO skygw.command (command_id, install_id, telescope_uid, command, command_sha256, service, "
                "actor, state, created_at, updated_at) "
                "VALUES (%s, %s, %s, '{}', 'x', 'scheduler', '{\"uid\": \"7\"}', 'completed', now(), now())",
                [command_id, install_id, uuid4()],
            )
        for state in ("received", "written", "completed"):
            for at, command_id in enumerate(command_ids):
                connection.execute(
                    "INSERT INTO skygw.command_transition (command_id, at, state, hop) VALUES (%s, %s, %s, 'gateway')",
                    [command_id, NOW + timedelta(seconds=at), state],
                )

    trio.run(migrate, owner_url)
    with psycopg.connect(owner_url) as connection:
        connection.execute("DELETE FROM skygw._yoyo_migration WHERE migration_id >= '0007'")
    assert trio.run(migrate, owner_url).applied == [name for name in known_migrations() if name >= "0007"]

    with open_audit(gateway_url) as audit:
        checker = AuditChecker(audit.registry_uid, lambda *_: None)
        for item in audit.items():
            checker.take(item)
        checker.end()
        audit.compare_with_commands()
    assert (checker.found.steps, checker.found.installations, checker.found.unsigned) == (9, 2, 9)
    with psycopg.connect(owner_url) as connection:
        rows = connection.execute(
            "SELECT entry FROM skygw.command_audit WHERE install_id = %s ORDER BY position", install_ids[:1]
        ).fetchall()
    entries = [json.loads(row[0]) for row in rows]
    assert [entry["state"] for entry in entries] == ["received"] * 2 + ["written"] * 2 + ["completed"] * 2
    assert {(entry["service"], entry["actor"]["uid"]) for entry in entries} == {("scheduler", "7")}
    assert all(datetime.fromisoformat(entry["sealed_at"]) > NOW for entry in entries)


async def test_the_audit_of_an_embedded_database_is_read_beside_the_gateway_that_runs_it(
    postgres: PostgresServer, tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path))
    load_or_make(tmp_path / "key.pem")
    for data_dir, code, said in (
        (postgres.data_dir, ExitCode.OK, "The audit is whole"),
        (tmp_path, ExitCode.FAILED, "There is no audit yet"),
    ):
        arguments = ["doctor", "--audit", "--data-dir", str(data_dir), "--key", str(tmp_path / "key.pem")]
        assert await trio.to_thread.run_sync(run, arguments) == code
        told = capsys.readouterr()
        assert said in told.out + told.err
