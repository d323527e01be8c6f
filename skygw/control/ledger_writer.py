"""Writes to the ledger what the gateway itself learns of commands, in order, and waits out a ledger that is away."""

import logging
from collections import deque
from collections.abc import Callable, Collection, Sequence
from itertools import islice

import trio

from skygw.control.ledger import CancelRequest, CommandLedger, Move
from skygw.control.live_command import LiveCommand
from skygw.control.safing_spool import SafingSpool
from skygw.errors import RoutingUnavailable, StoreFailed
from skygw.ids import CommandId, Epoch, InstallId

log = logging.getLogger("skygw.control")

RETRY_S = 1.0
MOVES_AT_ONCE = 500
TRIES = 3
"""A row that the ledger cannot hold is tried this often, and then set aside: it must not keep the others out."""


class LedgerWriter:
    """`record`, `cancel`, `note` and `lose_before` never wait. `settled` is told of each command whose steps were
    written, `lost` of what the ledger knows no outcome of when a session has begun; `followed` says which commands of
    an installation this process answers for by itself.
    """

    def __init__(
        self,
        ledger: CommandLedger,
        *,
        settled: Callable[[CommandId], None],
        lost: Callable[[InstallId, Epoch, Sequence[CommandId]], None],
        followed: Callable[[InstallId], Collection[CommandId]],
        spool: SafingSpool | None,
    ) -> None:
        """With a `spool`, stops and cancels are on the disk until they are written."""
        self._ledger = ledger
        self._spool = spool
        self._settled = settled
        self._lost = lost
        self._followed = followed
        self._queue: deque[LiveCommand | CancelRequest | Move] = deque()
        self._begun: dict[InstallId, Epoch] = {}
        self._noted = 0
        self._written = 0
        self._refused = 0
        self._wake = trio.Event()
        self._progress = trio.Event()

    def record(self, live: LiveCommand) -> None:
        """A command that the ledger was not asked about before. Not bounded: a stop is never refused for it."""
        if live.safing and self._spool is not None:
            self._spool.keep(live.record)
        self._append(live)

    def record_again(self, live: LiveCommand) -> None:
        """…that was sent by a process that has ended, and is on the disk already."""
        self._append(live)

    def cancel(self, request: CancelRequest) -> None:
        """A cancel that was asked for. Not bounded either: a cancel is never refused for it."""
        if self._spool is not None:
            self._spool.keep_cancel(request)
        self._append(request)

    def cancel_again(self, request: CancelRequest) -> None:
        """…of a process that has ended, and that is on the disk already."""
        self._append(request)

    def note(self, move: Move) -> None:
        """A step; also of a command not recorded yet, if `record` was called for it. What the ledger has is passed
        over.
        """
        if self._spool is not None:
            self._spool.step(move.command_id, move.transition)
        self._append(move)

    def lose_before(self, install_id: InstallId, epoch: Epoch) -> None:
        """A session has begun: nothing more comes by the older ones. Only the newest of an installation counts."""
        self._begun[install_id] = epoch
        self._wake.set()

    async def caught_up(self) -> None:
        """Waits until everything said so far is written. The caller brings the deadline."""
        due = self._noted
        while self._written < due:
            await self._progress.wait()

    def _append(self, item: LiveCommand | CancelRequest | Move) -> None:
        self._queue.append(item)
        self._noted += 1
        self._wake.set()

    async def run(self) -> None:
        """Runs until cancelled. What could not be written yet stays, in order, but for a row the ledger cannot hold."""
        while True:
            while not self._queue and not self._begun:
                self._wake = trio.Event()
                await self._wake.wait()
            try:
                while self._queue:
                    await self._write_next()
                while self._begun:
                    await self._lose()
            except RoutingUnavailable as error:
                for item in self._queue:
                    if isinstance(item, LiveCommand):
                        item.record.recorded_late = True
                if not isinstance(error, StoreFailed):  # that was said where it was found
                    log.warning("the ledger is away", extra={"waiting": len(self._queue)})
                await trio.sleep(error.retry_after_s or RETRY_S)

    async def _write_next(self) -> None:
        first = self._queue[0]
        if isinstance(first, LiveCommand):
            await self._record_sent(first)
        elif isinstance(first, CancelRequest):
            await self._record_cancel(first)
        else:
            await self._write_moves()

    def _hopeless(self, error: RoutingUnavailable) -> bool:
        """Whether what was just tried should be given up. A store that refuses everything is waited for."""
        self._refused = self._refused + 1 if isinstance(error, StoreFailed) and error.about_the_data else 0
        return self._refused >= TRIES

    async def _record_sent(self, live: LiveCommand) -> None:
        told = len(live.results)
        try:
            await self._ledger.record_sent(live.record, live.results[:told])
        except RoutingUnavailable as error:
            if not self._hopeless(error):
                raise
            _set_aside(live.record.command_id)
            told = len(live.results)
        self._refused = 0
        if len(live.results) == told:  # else the node said more while the ledger wrote: tell it that too
            live.in_ledger = True
            live.results.clear()
            if self._spool is not None:
                self._spool.done(live.record)
            self._done(1)

    async def _record_cancel(self, request: CancelRequest) -> None:
        try:
            await self._ledger.record_cancels([request])
        except RoutingUnavailable as error:
            if not self._hopeless(error):
                raise
            _set_aside(request.command_id)
        self._refused = 0
        if self._spool is not None:
            self._spool.done_cancel(request)
        self._done(1)

    async def _write_moves(self) -> None:
        """The steps up to the next cancel, or the next command that has to be recorded before its own."""
        batch: list[Move] = []
        for item in islice(self._queue, MOVES_AT_ONCE):
            if not isinstance(item, Move):
                break
            batch.append(item)
        try:
            await self._ledger.move(batch)
        except RoutingUnavailable as error:
            if not self._hopeless(error):
                raise
            batch = await self._write_one_by_one(batch)
        self._refused = 0
        self._done(len(batch))
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

    def _done(self, count: int) -> None:
        for _ in range(count):
            self._queue.popleft()
        self._written += count
        self._progress.set()
        self._progress = trio.Event()

    async def _lose(self) -> None:
        install_id, epoch = next(iter(self._begun.items()))
        unknown = await self._ledger.lose_before(install_id, epoch, followed=self._followed(install_id))
        if self._begun.get(install_id) == epoch:  # else a newer session has begun meanwhile
            del self._begun[install_id]
            self._lost(install_id, epoch, unknown)


def _set_aside(command_id: CommandId) -> None:
    log.error("the ledger cannot hold what became of a command: it is set aside", extra={"command_id": str(command_id)})
