"""The database answers and refuses: a column was renamed under a running gateway, and safing goes on all the same."""

import logging
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import psycopg
import pytest
import trio

from skygw.nodes import revocation
from skygw.protocol.gateway_frames import Ack, EventCommand
from skygw.protocol.node_frames import CommandStatus, Ping, Pong, PublishCommandResult
from tests.fakes.postgres import PostgresServer
from tests.gateway.test_database_away import a_command, a_log, recorded
from tests.gateway.world import PATIENCE_S, gateway

RENAMES = (
    ("sky_node_installation", "revoked_on", "withdrawn_on"),
    ("skygw.command", "origin", "came_from"),
    ("skygw.node_outbox", "acked_seq", "done_seq"),
)


@pytest.fixture(autouse=True)
def no_unexpected_errors(caplog: pytest.LogCaptureFixture) -> Iterator[None]:
    """Here the gateway has something to say at ERROR: which statement is refused. There is no traceback."""
    caplog.set_level(logging.INFO)
    yield
    assert [record.getMessage() for record in caplog.get_records("call") if record.exc_info] == []


async def rename(owner_url: str, *, back: bool = False) -> None:
    def do() -> None:
        with psycopg.connect(owner_url, autocommit=True) as connection:
            for table, old, new in RENAMES:
                before, after = (new, old) if back else (old, new)
                connection.execute(f"ALTER TABLE {table} RENAME COLUMN {before} TO {after}".encode())

    await trio.to_thread.run_sync(do)


async def test_renamed_columns_end_neither_process_nor_socket_nor_safing(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch, postgres: PostgresServer
) -> None:
    monkeypatch.setattr(revocation, "LOOK_EVERY_S", 0.05)
    owner_url, gateway_url = postgres.new_database()
    own = PostgresServer(tmp_path)
    own.owner_url, own.gateway_url = owner_url, gateway_url
    async with gateway(own, tmp_path) as world, world.node() as node:
        await rename(owner_url)
        # The watch of revocations, a durable report and a record of a stop are all refused.
        await node.say(a_log(1))
        stop = a_command(world, "mount.stop", waitS=PATIENCE_S)

        async def obey() -> None:
            event = await node.hear(EventCommand)
            await node.say(PublishCommandResult(seq=2, command_id=event.command_id, status=CommandStatus.COMPLETED))

        async with trio.open_nursery() as nursery:
            nursery.start_soon(obey)
            answer = await world.ask("POST", "/internal/commands", stop)
        assert (answer.status_code, answer.json()["outcome"]) == (200, "succeeded")
        moving = await world.ask("POST", "/internal/commands", a_command(world, "mount.unpark"))
        assert (moving.status_code, moving.json()["code"]) == (500, "internal")
        assert moving.json()["outcome"] == "not_sent"
        refused = partial(_refused_in, caplog)
        with trio.fail_after(PATIENCE_S):
            while not {"revoked_on", "origin", "acked_seq"} <= refused():  # noqa: ASYNC110 - a log has no events
                await trio.sleep(0.05)
        await node.say(Ping(id="still here"))
        assert (await node.hear(Pong)).id == "still here"
        assert "skygw_unhandled_total 0.0" not in (await world.ask("GET", "/metrics")).text

        # Mended, everything is written down.
        await rename(owner_url, back=True)
        while (await node.hear(Ack)).seq < 2:
            pass
        assert (await recorded(world, stop["commandId"], "completed"))["recordedLate"] is True


def _refused_in(caplog: pytest.LogCaptureFixture) -> set[str]:
    said = [record.getMessage() for record in caplog.records if record.levelno >= logging.ERROR]
    return {column for _, column, _ in RENAMES if any(column in line for line in said)}
