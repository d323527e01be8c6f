"""The commands this process follows: what the node, the socket and the ledger say of each, in one place."""

import logging
from collections import Counter
from collections.abc import Callable, Collection, Iterator, Sequence
from datetime import UTC, datetime

import trio

from skygw.control.admissions import Revocation
from skygw.control.ledger import (
    ENDS,
    Caller,
    CancelRequest,
    CommandLedger,
    CommandRecord,
    CommandState,
    Move,
    may_move,
)
from skygw.control.ledger_writer import LedgerWriter
from skygw.control.live_command import LiveCommand
from skygw.control.safing_spool import SafingSpool
from skygw.errors import Busy, Hop, RoutingUnavailable
from skygw.ids import CommandId, Epoch, InstallId
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Parcel, ParcelState
from skygw.nodes.shares import share_of
from skygw.protocol.gateway_frames import QueryCommand
from skygw.protocol.json_text import read_value
from skygw.protocol.never_received import says_never_received
from skygw.protocol.node_frames import CanceledHow, PublishCommandResult

log = logging.getLogger("skygw.control")

MAX_LIVE_COMMANDS = 20_000
"""Commands followed in memory: 20,000 × about 2 KiB. Safing is followed beyond it."""
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
        admitting: Callable[[], Collection[CommandId]],
        spool: SafingSpool | None,
    ) -> None:
        """`admitting` says what is on its way into the ledger, and not followed here yet."""
        self._registry = registry
        self._spool = spool
        self._ledger = ledger
        self._finished = finished
        self._live: dict[CommandId, LiveCommand] = {}
        self._of: Counter[str] = Counter()
        self._admitting = admitting
        self.writer = LedgerWriter(
            ledger, settled=self._settled_in_ledger, lost=self._ask, followed=self._followed, spool=spool
        )

    def __len__(self) -> int:
        return len(self._live)

    def __iter__(self) -> Iterator[LiveCommand]:
        return iter(list(self._live.values()))

    def find(self, command_id: CommandId) -> LiveCommand | None:
        return self._live.get(command_id)

    def require_room(self, service: str) -> None:
        """Raises `Busy` when no more commands, or no more of this service, can be followed (`nodes/shares.py`)."""
        if len(self._live) >= MAX_LIVE_COMMANDS:
            raise Busy(
                f"This gateway follows {len(self._live)} commands, and that is the limit; nothing was sent.",
                retry_after_s=1.0,
                details={"usedUp": "commands"},
            )
        own = self._of[service]
        share = share_of(MAX_LIVE_COMMANDS - (len(self._live) - own))
        if own >= share:
            raise Busy(
                f"This gateway follows {own} commands of {service}, and its share is {share}: the rest is for other "
                "services. Nothing was sent.",
                retry_after_s=1.0,
                details={"usedUp": "commands", "service": service},
            )

    def add(self, live: LiveCommand) -> None:
        """Follows it from now on, instead of an earlier life of the same id."""
        before = self._live.get(live.record.command_id)
        if before is not None:
            self.drop(before)
        self._live[live.record.command_id] = live
        self._of[live.service] += 1

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
            self._of[live.service] -= 1
            if not self._of[live.service]:
                del self._of[live.service]

    def watch(self, live: LiveCommand, parcel: Parcel) -> None:
        """Follows what becomes of its bytes."""
        live.parcel = parcel
        parcel.on_settled = lambda parcel: self._written(live, parcel)

    def _followed(self, install_id: InstallId) -> Collection[CommandId]:
        mine = (live.record for live in self._live.values() if live.record.install_id == install_id)
        return {record.command_id for record in mine}.union(self._admitting())

    def cancel_asked(self, request: CancelRequest) -> None:
        """Shown from now on, and written when the ledger takes it."""
        live = self._live.get(request.command_id)
        if live is not None:
            live.record.cancels.append(request)
        self.writer.cancel(request)

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
        """A result may be in the ledger that memory was never told of: its session was cut between commit and ack."""
        try:
            stored = await self._ledger.get(live.record.command_id)
        except RoutingUnavailable:
            return  # then what memory knows is all that is known
        if stored is not None and may_move(live.record.state, stored.state):
            stored.cancels += [request for request in live.record.cancels if request not in stored.cancels]
            live.record = stored
            live.changed()
            if live.ended:
                self._end(live)
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
        """Safing is answered from memory, because the database may be away. What ended has let go of its devices."""
        live = self._live.get(result.command_id)
        if live is None or live.record.install_id != install_id:
            return
        live.is_released = live.is_released or CommandState(result.status.value) in ENDS
        if live.safing and not says_never_received(result):  # it may have run before its node wrote anything down
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
        """What was written to this session and has no end is unknown now; the node will tell when it is back. What
        becomes of bytes that are not written yet, the socket says.
        """
        for live in self:
            is_its = live.record.install_id == install_id and live.record.epoch == epoch
            if is_its and live.record.state is not CommandState.RECEIVED:
                self.moved(live, CommandState.UNKNOWN, Hop.GATEWAY, "the link was lost")

    def _apply(self, live: LiveCommand, result: PublishCommandResult) -> None:
        live.told(result)
        if not live.in_ledger:
            live.results.append(result)
        # The ledger moves by the committed report itself; here only memory does.
        if live.move(CommandState(result.status.value), Hop.NODE) is None:
            live.changed()  # it may have come further in the same state
        elif live.ended:
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
        if not left and not spool.left_cancels:
            return
        log.warning(
            "stops and cancels of a gateway that ended are recorded now",
            extra={"commands": len(left), "cancels": len(spool.left_cancels)},
        )
        for record in left:
            kind = read_value(record.command).get("command_type", "")
            live = LiveCommand(record, command_type=kind, safing=True, in_ledger=False, deadline=trio.current_time())
            self.add(live)
            self.writer.record_again(live)
        for request in spool.left_cancels:
            self.writer.cancel_again(request)
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
