"""What the gateway learns of commands is written in order; one row the ledger cannot hold does not keep others out."""

import logging
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import cast
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.control.ledger import CommandLedger, CommandRecord, CommandState, Move, Transition
from skygw.control.ledger_writer import LedgerWriter
from skygw.control.live_command import LiveCommand
from skygw.errors import Hop, StoreFailed
from skygw.ids import CommandId, Epoch
from skygw.protocol.node_frames import PublishCommandResult
from tests.fakes.rooms import Site, command_order

STOP = {"command_type": "mount.stop"}
Clock = trio.testing.MockClock


class PickyLedger:
    """Refuses the rows of `poison`, and everything while its `schema_broken`."""

    def __init__(self) -> None:
        self.poison: set[CommandId] = set()
        self.schema_broken = False
        self.recorded: list[CommandId] = []
        self.moved: list[CommandId] = []

    def _look(self, command_ids: Sequence[CommandId]) -> None:
        if self.schema_broken:
            raise StoreFailed("refused")
        if self.poison.intersection(command_ids):
            raise StoreFailed("refused", about_the_data=True)

    async def record_sent(self, record: CommandRecord, results: Sequence[PublishCommandResult]) -> None:
        await trio.lowlevel.checkpoint()
        self._look([record.command_id])
        self.recorded.append(record.command_id)

    async def move(self, moves: Sequence[Move]) -> None:
        await trio.lowlevel.checkpoint()
        self._look([move.command_id for move in moves])
        self.moved.extend(move.command_id for move in moves)


def a_stop() -> LiveCommand:
    site = Site()
    record = command_order(site, STOP).record(site.install_id, Epoch(1), left_s=60)
    return LiveCommand(
        record, command_type="mount.stop", safing=True, in_ledger=False, deadline=trio.current_time() + 60
    )


def a_move() -> Move:
    return Move(CommandId(uuid4()), Transition(datetime.now(UTC), CommandState.WRITTEN, Hop.GATEWAY, None))


def writer_of(ledger: PickyLedger) -> LedgerWriter:
    return LedgerWriter(
        cast("CommandLedger", ledger),
        settled=lambda _: None,
        lost=lambda *_: None,
        followed=lambda _: (),
        spool=None,
    )


def errors_in(caplog: pytest.LogCaptureFixture) -> list[str]:
    return [str(vars(record)["command_id"]) for record in caplog.records if record.levelno >= logging.ERROR]


async def test_a_stop_the_ledger_cannot_hold_is_set_aside_and_the_next_is_recorded(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = PickyLedger()
    writer = writer_of(ledger)
    bad, good = a_stop(), a_stop()
    ledger.poison.add(bad.record.command_id)
    writer.record(bad)
    writer.record(good)
    nursery.start_soon(writer.run)
    await trio.sleep(10)
    assert ledger.recorded == [good.record.command_id]
    assert errors_in(caplog) == [str(bad.record.command_id)]


async def test_a_step_the_ledger_cannot_hold_is_set_aside_and_the_others_are_written_in_order(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = PickyLedger()
    writer = writer_of(ledger)
    moves = [a_move() for _ in range(5)]
    ledger.poison.add(moves[2].command_id)
    for move in moves:
        writer.note(move)
    nursery.start_soon(writer.run)
    await trio.sleep(10)
    assert ledger.moved == [move.command_id for move in moves if move is not moves[2]]
    assert errors_in(caplog) == [str(moves[2].command_id)]


async def test_a_ledger_that_refuses_everything_is_waited_for_and_nothing_is_lost(
    autojump_clock: Clock, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    ledger = PickyLedger()
    ledger.schema_broken = True
    writer = writer_of(ledger)
    stop, move = a_stop(), a_move()
    writer.record(stop)
    writer.note(move)
    nursery.start_soon(writer.run)
    await trio.sleep(60)
    ledger.schema_broken = False
    await trio.sleep(10)
    assert (ledger.recorded, ledger.moved) == ([stop.record.command_id], [move.command_id])
    assert stop.record.recorded_late
    assert errors_in(caplog) == []
