"""The commands this process follows: what the node, the socket and the ledger say of each, in one place."""

import logging
from collections.abc import Callable, Iterator, Sequence
from datetime import UTC, datetime

import trio

from skygw.control.admissions import Revocation
from skygw.control.ledger import (
    NEVER_WRITTEN,
    Caller,
    CommandLedger,
    CommandRecord,
    CommandState,
    Move,
    may_move,
)
from skygw.control.ledger_writer import LedgerWriter
from skygw.control.live_command import LiveCommand
from skygw.control.safing_spool import SafingSpool
from skygw.errors import Hop, RoutingUnavailable
from skygw.ids import CommandId, Epoch, InstallId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Parcel, ParcelState
from skygw.protocol.gateway_frames import QueryCommand
from skygw.protocol.json_text import read_value
from skygw.protocol.node_frames import CanceledHow, PublishCommandResult

log = logging.getLogger("skygw.control")

FORGET_EVERY_S = 60.0
TAKE_OVER_S = 5.0
"""What a start waits for the ledger to hear of stops that are on the disk."""


class LiveCommands:
    """By id. Nothing here waits but `resolve` and `run`, which writes to the ledger what the gateway learns."""

    def __init__(
        self,
        *,
        registry: ConnectionRegistry,
        ledger: CommandLedger,
        finished: Callable[[str], None],
        spool: SafingSpool | None,
    ) -> None:
        self._registry = registry
        self._spool = spool
        self._ledger = ledger
        self._finished = finished
        self._live: dict[CommandId, LiveCommand] = {}
        self.writer = LedgerWriter(ledger, settled=self._settled_in_ledger, lost=self._ask, spool=spool)

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveCommand]:
        return iter(list(self._live.values()))

    def find(self, command_id: CommandId) -> LiveCommand | None:
        return self._live.get(command_id)

    def add(self, live: LiveCommand) -> None:
        """Follows it from now on, instead of an earlier life of the same id."""
        self._live[live.record.command_id] = live

    def add_again(self, record: CommandRecord) -> None:
        """Follows what was sent before this process began."""
        left_s = (record.deadline_at - datetime.now(UTC)).total_seconds()
        kind = read_value(record.command).get("command_type", "")
        self.add(
            LiveCommand(record, command_type=kind, safing=False, in_ledger=True, deadline=trio.current_time() + left_s)
        )

    def drop(self, live: LiveCommand) -> None:
        if self._live.get(live.record.command_id) is live:
            del self._live[live.record.command_id]

    def watch(self, live: LiveCommand, parcel: Parcel) -> None:
        """Follows what becomes of its bytes."""
        live.parcel = parcel
        parcel.on_settled = lambda parcel: self._written(live, parcel)

    def take_back(self, live: LiveCommand, revocation: Revocation) -> bool:
        """Ends a command of which not a byte was handed over. Returns whether that is certain."""
        if live.ended or live.parcel is None or live.parcel.state is not ParcelState.WAITING:
            return False
        self.end_before_start(live, revocation)
        live.parcel.withdraw()
        return True

    def end_before_start(self, live: LiveCommand, revocation: Revocation) -> None:
        """It is canceled, and the node has not heard of it."""
        live.record.canceled = CanceledHow.BEFORE_START
        self.moved(live, CommandState.CANCELED, Hop.GATEWAY, revocation.why, revocation.by)

    def moved(
        self, live: LiveCommand, state: CommandState, hop: Hop, detail: str | None = None, by: Caller | None = None
    ) -> None:
        """A step the gateway itself knows of, as far as the table lets it."""
        step = live.move(state, hop, detail, by)
        if step is None:
            return
        if live.ended:
            self._end(live)
        self.writer.note(Move(live.record.command_id, step, live.record.canceled))

    async def resolve(self, live: LiveCommand) -> None:
        """A result may be in the ledger that memory was never told of: its session was cut between commit and ack. And
        a stop that was not sent may be the repeat of one that a process before this one sent.
        """
        try:
            stored = await self._ledger.get(live.record.command_id)
        except RoutingUnavailable:
            return  # then what memory knows is all that is known
        if stored is not None and may_move(live.record.state, stored.state):
            live.record = stored
            if live.ended:
                self._end(live)
                self.drop(live)
        elif stored is not None and stored.state not in NEVER_WRITTEN and live.record.state is CommandState.EXPIRED:
            live.record = stored
            self.drop(live)

    def _end(self, live: LiveCommand) -> None:
        record = live.record
        self._finished(record.outcome)
        log.info(
            "command ended",
            extra={
                "command_id": str(record.command_id),
                "command_type": live.command_type,
                "target": str(record.device_uid or record.telescope_uid),
                "service": record.service,
                "outcome": record.outcome.value,
                "seconds": round(trio.current_time() - live.began, 3),
            },
        )

    # What sessions tell (never waits).

    def _written(self, live: LiveCommand, parcel: Parcel) -> None:
        if parcel.state is ParcelState.WRITTEN:
            self.moved(live, CommandState.WRITTEN, Hop.GATEWAY)
        elif parcel.state is ParcelState.WITHDRAWN:
            self.moved(live, CommandState.EXPIRED, Hop.GATEWAY, "the socket ended before it was written")
        elif parcel.state is ParcelState.DOUBTFUL:
            self.moved(live, CommandState.WRITTEN, Hop.GATEWAY, "the socket ended while it was being written")
            self.moved(live, CommandState.UNKNOWN, Hop.GATEWAY, "the socket ended while it was being written")

    def result_arrived(self, install_id: InstallId, result: PublishCommandResult) -> None:
        """Safing is answered from memory, because the database may be away."""
        live = self._live.get(result.command_id)
        if live is not None and live.safing and live.record.install_id == install_id:
            self._apply(live, result)

    def result_committed(self, install_id: InstallId, result: PublishCommandResult) -> None:
        live = self._live.get(result.command_id)
        if live is not None and live.record.install_id == install_id:
            self._apply(live, result)
            if live.may_be_forgotten:
                self.drop(live)

    def session_started(self, install_id: InstallId, epoch: Epoch) -> None:
        """Nothing more comes by the sessions before it; the node is asked what became of what they carried."""
        self.writer.lose_before(install_id, epoch)

    def _ask(self, install_id: InstallId, epoch: Epoch, unknown: Sequence[CommandId]) -> None:
        session = self._registry.current(install_id)
        if unknown and session is not None and session.epoch == epoch:
            session.say(QueryCommand(command_ids=tuple(unknown)))

    def session_ended(self, install_id: InstallId, epoch: Epoch) -> None:
        """What was written to this session and has no end is unknown now; the node will tell when it is back."""
        for live in self:
            if live.record.install_id == install_id and live.record.epoch == epoch:
                self.moved(live, CommandState.UNKNOWN, Hop.GATEWAY, "the link was lost")

    def _apply(self, live: LiveCommand, result: PublishCommandResult) -> None:
        record = live.record
        record.progress = result.progress if result.progress is not None else record.progress
        if not live.ended:
            record.result = result.result.text if result.result is not None else record.result
            record.error = result.error.text if result.error is not None else record.error
            record.proof = result.proof.text if result.proof is not None else record.proof
            record.canceled = result.canceled or record.canceled
        if not live.in_ledger:
            live.results.append(result)
        # The ledger moves by the committed report itself; here only memory does.
        if live.move(CommandState(result.status.value), Hop.NODE) is not None and live.ended:
            self._end(live)

    # Its own tasks.

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Writes to the ledger, and forgets what it holds, until cancelled. Started when the ledger has what gateways
        before this one left on the disk, or is slow: results that a node reports then find their stop.
        """
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self.writer.run)
                if self._spool is not None:
                    nursery.start_soon(self._spool.run)
                    await self._take_over(self._spool)
                task_status.started()
                await self._forget()
        finally:
            if self._spool is not None:
                self._spool.close()

    async def _take_over(self, spool: SafingSpool) -> None:
        left = await trio.to_thread.run_sync(spool.take_over)
        if not left:
            return
        log.warning("stops of a gateway that ended are recorded now", extra={"commands": len(left)})
        for record in left:
            kind = read_value(record.command).get("command_type", "")
            live = LiveCommand(record, command_type=kind, safing=True, in_ledger=False, deadline=trio.current_time())
            self.add(live)
            self.writer.record_again(live)
        with trio.move_on_after(TAKE_OVER_S):
            await self.writer.caught_up()

    async def _forget(self) -> None:
        while True:
            await trio.sleep(FORGET_EVERY_S)
            for live in self:
                if live.may_be_forgotten:
                    self.drop(live)

    def _settled_in_ledger(self, command_id: CommandId) -> None:
        live = self._live.get(command_id)
        if live is not None and live.may_be_forgotten:
            self.drop(live)
