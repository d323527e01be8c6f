"""Writes to the ledger what the gateway itself learns of commands, in order, and waits out a ledger that is away."""

import logging
from collections.abc import Callable

import trio

from skygw.control.ledger import CommandLedger, Move
from skygw.control.live_command import LiveCommand
from skygw.errors import RoutingUnavailable, StoreFailed
from skygw.ids import CommandId

log = logging.getLogger("skygw.control")

RETRY_S = 1.0
MOVES_AT_ONCE = 500
TRIES = 3
"""A row that the ledger cannot hold is tried this often, and then set aside: it must not keep the others out."""


class LedgerWriter:
    """`record` and `note` never wait. `settled` is told of each command whose steps were written."""

    def __init__(self, ledger: CommandLedger, *, settled: Callable[[CommandId], None]) -> None:
        self._ledger = ledger
        self._settled = settled
        self._unrecorded: list[LiveCommand] = []
        self._moves: list[Move] = []
        self._wake = trio.Event()
        self._refused = 0

    def record(self, live: LiveCommand) -> None:
        """A command that was sent before the ledger was asked. Not bounded: a stop is never refused for it."""
        self._unrecorded.append(live)
        self._wake.set()

    def note(self, move: Move) -> None:
        """A step; also of a command not recorded yet, which `run` records first. What the ledger has is passed over."""
        self._moves.append(move)
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled. What could not be written yet stays, in order, but for a row the ledger cannot hold."""
        while True:
            while not self._moves and not self._unrecorded:
                self._wake = trio.Event()
                await self._wake.wait()
            try:
                await self._record_sent()
                await self._write_moves()
            except RoutingUnavailable as error:
                if not isinstance(error, StoreFailed):  # that was said where it was found
                    log.warning("the ledger is away", extra={"waiting": len(self._moves) + len(self._unrecorded)})
                await trio.sleep(error.retry_after_s or RETRY_S)

    def _hopeless(self, error: RoutingUnavailable) -> bool:
        """Whether what was just tried should be given up. A store that refuses everything is waited for."""
        self._refused = self._refused + 1 if isinstance(error, StoreFailed) and error.about_the_data else 0
        return self._refused >= TRIES

    async def _record_sent(self) -> None:
        while self._unrecorded:
            live = self._unrecorded[0]
            told = len(live.results)
            try:
                await self._ledger.record_sent(live.record, live.results[:told])
            except RoutingUnavailable as error:
                live.record.recorded_late = True
                if not self._hopeless(error):
                    raise
                _set_aside(live.record.command_id)
                told = len(live.results)
            self._refused = 0
            if len(live.results) == told:  # else the node said more while the ledger wrote: tell it that too
                self._unrecorded.pop(0)
                live.in_ledger = True
                live.results.clear()

    async def _write_moves(self) -> None:
        """One batch: what comes meanwhile may be of commands that have to be recorded first."""
        batch = self._moves[:MOVES_AT_ONCE]
        if not batch:
            return
        try:
            await self._ledger.move(batch)
        except RoutingUnavailable as error:
            if not self._hopeless(error):
                raise
            batch = await self._write_one_by_one(batch)
        self._refused = 0
        del self._moves[: len(batch)]
        for move in batch:
            self._settled(move.command_id)

    async def _write_one_by_one(self, batch: list[Move]) -> list[Move]:
        """Finds the step that keeps the others out. Returns those that are done with; the store may go away midway."""
        for at, move in enumerate(batch):
            try:
                await self._ledger.move([move])
            except StoreFailed as error:
                if not error.about_the_data:
                    return batch[:at]
                _set_aside(move.command_id)
            except RoutingUnavailable:
                return batch[:at]
        return batch


def _set_aside(command_id: CommandId) -> None:
    log.error("the ledger cannot hold what became of a command: it is set aside", extra={"command_id": str(command_id)})
