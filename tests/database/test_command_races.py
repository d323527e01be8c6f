"""Two who write of one command at once: whoever waits for the other goes on from what the other wrote."""

from collections.abc import Awaitable, Callable
from datetime import UTC, datetime
from uuid import uuid4

import psycopg
import trio

from skygw.control.ledger import CommandRecord, CommandState, Move, Transition
from skygw.database.commands import Commands
from skygw.database.node_reports import NodeReports
from skygw.database.pool import Database
from skygw.errors import Hop
from skygw.ids import OutboxUid
from tests.control.test_command_ledgers import a_command
from tests.database.test_node_reports import a_result
from tests.fakes.postgres import PostgresServer

WAITING = "SELECT count(*) FROM pg_stat_activity WHERE wait_event_type = 'Lock' AND query LIKE '%skygw.command%'"


async def while_it_becomes(
    state: CommandState, record: CommandRecord, postgres: PostgresServer, write: Callable[[], Awaitable[object]]
) -> None:
    """Writes while somebody else, who has the row, moves the command."""
    async with trio.open_nursery() as nursery:
        with psycopg.connect(postgres.gateway_url) as rival:
            rival.execute("UPDATE skygw.command SET state = %s WHERE command_id = %s", [state.value, record.command_id])
            nursery.start_soon(write)
            with trio.fail_after(10), psycopg.connect(postgres.owner_url, autocommit=True) as looking:
                while looking.execute(WAITING.encode()).fetchone() == (0,):  # noqa: ASYNC110 - a lock has no events
                    await trio.sleep(0.01)


async def test_an_end_that_the_node_reports_while_the_gateway_writes_a_step_is_not_lost(
    database: Database, postgres: PostgresServer
) -> None:
    commands, record = Commands(database), a_command()
    await commands.admit(record)
    report = a_result(1, record.command_id, "completed")

    async def told() -> None:
        await NodeReports(database).commit(record.install_id, OutboxUid(uuid4()), [report])

    await while_it_becomes(CommandState.WRITTEN, record, postgres, told)
    stored = await commands.get(record.command_id)
    assert stored is not None
    assert (stored.state, stored.ended_at is None) == (CommandState.COMPLETED, False)


async def test_a_step_that_the_gateway_writes_while_the_node_reports_one_is_not_lost(
    database: Database, postgres: PostgresServer
) -> None:
    commands, record = Commands(database), a_command()
    await commands.admit(record)
    lost = Move(record.command_id, Transition(datetime.now(UTC), CommandState.UNKNOWN, Hop.GATEWAY))

    async def move() -> None:
        await commands.move([lost])

    await while_it_becomes(CommandState.RUNNING, record, postgres, move)
    stored = await commands.get(record.command_id)
    assert stored is not None
    assert stored.state is CommandState.UNKNOWN
