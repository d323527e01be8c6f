"""Commands: admitted to the ledger, carried to the node once, followed to their end; safing past everything.

Safing (contract §0.1) is routed by what live sessions are bound to and sent before anything is asked of the ledger;
if the ledger is away it is recorded when it comes back.
"""

import logging
from collections.abc import Callable
from contextlib import suppress
from datetime import UTC, datetime
from typing import Protocol

import trio

from skygw.control.ledger import (
    ENDS,
    CommandLedger,
    CommandQuery,
    CommandRecord,
    CommandState,
    Move,
    may_move,
)
from skygw.control.ledger_writer import LedgerWriter
from skygw.control.live_command import LiveCommand, overtakes
from skygw.control.order import CommandOrder
from skygw.control.trace_context import carried_traceparent
from skygw.errors import (
    Busy,
    Draining,
    GatewayError,
    Hop,
    IdReused,
    LinkLost,
    NodeOffline,
    NotFound,
    RoutingUnavailable,
)
from skygw.ids import CommandId, DeviceUid, Epoch, InstallId, TelescopeUid
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Lane, Parcel, ParcelState
from skygw.nodes.session import NodeSession
from skygw.protocol.gateway_frames import CancelCommand, CancelMode, EventCommand
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import CanceledHow, PublishCommandResult
from skygw.protocol.safing import is_safing

log = logging.getLogger("skygw.control")

MAX_LIVE_COMMANDS = 20_000
"""Commands followed in memory: 20,000 × about 2 KiB. Safing is followed beyond it."""

DRAINING_RETRY_S = 1.0
FORGET_EVERY_S = 60.0
LEDGER_PATIENCE_S = 0.5
"""How long a cancel waits to be told whose command it is for, before every node is asked."""


class Controllers(Protocol):
    """Which installation controls what, by the hub's records. Raises `RoutingUnavailable`."""

    async def controller_of(
        self, *, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None
    ) -> InstallId | None: ...


class CommandService:
    """Carries commands. Its `run` writes to the ledger what the gateway itself learns."""

    def __init__(
        self,
        *,
        registry: ConnectionRegistry,
        ledger: CommandLedger,
        controllers: Controllers,
        finished: Callable[[str], None],
    ) -> None:
        self._registry = registry
        self._ledger = ledger
        self._controllers = controllers
        self._finished = finished
        self._live: dict[CommandId, LiveCommand] = {}
        self._writer = LedgerWriter(ledger, settled=self._settled_in_ledger)
        self._being_admitted: dict[CommandId, trio.Event] = {}
        self._draining = False

    def drain(self) -> None:
        """Takes nothing new but safing."""
        self._draining = True

    # Callers.

    async def submit(self, order: CommandOrder) -> tuple[CommandRecord, bool]:
        """Takes a command and sends it. Returns its record and whether it is a duplicate of an earlier one."""
        if is_safing(order.command_type):
            return self._submit_safing(order)
        return await self._submit(order)

    async def wait(self, command_id: CommandId, wait_s: float) -> CommandRecord:
        """The record when the command has ended, or as it stands after `wait_s`. Raises `NotFound`."""
        live = self._live.get(command_id)
        if live is not None:
            with trio.move_on_after(wait_s):
                await live.settled()
            return live.record
        return await self.get(command_id)

    async def get(self, command_id: CommandId) -> CommandRecord:
        """What is known of a command. Raises `NotFound`, `RoutingUnavailable`."""
        live = self._live.get(command_id)
        if live is None:
            record = await self._ledger.get(command_id)
            if record is None:
                raise NotFound(f"No command {command_id} is known.")
            return record
        if live.in_ledger and live.record.state is CommandState.UNKNOWN:
            await self._resolve(live)
        return live.record

    async def _resolve(self, live: LiveCommand) -> None:
        """A result may be in the ledger that memory was never told of: its session was cut between commit and ack."""
        try:
            stored = await self._ledger.get(live.record.command_id)
        except RoutingUnavailable:
            return  # then what memory knows is all that is known
        if stored is not None and may_move(live.record.state, stored.state):
            live.record = stored
            if live.ended:
                self._finished(stored.outcome)
                self._live.pop(stored.command_id, None)

    async def page(self, query: CommandQuery) -> tuple[list[CommandRecord], int]:
        return await self._ledger.page(query)

    async def cancel(self, command_id: CommandId, *, mode: CancelMode, grace_s: float | None) -> CommandRecord | None:
        """Asks the node to cancel; safing. Needs no ledger for a command this process sent; for another one, with the
        ledger away, every connected node is asked, and `None` says that nothing is known of it. Raises `NodeOffline`.

        A command that still waits here is taken back instead: a cancel would overtake it, and the node run it after.
        """
        if (admitted := self._being_admitted.get(command_id)) is not None:
            await admitted.wait()
        live = self._live.get(command_id)
        if live is not None and self._take_back(live, "canceled before it was written"):
            return live.record
        record: CommandRecord | None = None
        with trio.move_on_after(LEDGER_PATIENCE_S), suppress(RoutingUnavailable):
            record = await self.get(command_id)
        if record is None:
            # Nobody here knows whose command it was. A node that does not know the id only remembers not to run it.
            for connected in self._registry:
                with suppress(LinkLost):
                    _send_cancel(connected, command_id, mode, grace_s)
            return None
        if record.state in ENDS:
            return record
        session = self._registry.current(record.install_id)
        if session is None:
            raise NodeOffline("This installation is not connected; its node runs its link-loss policy by itself.")
        _send_cancel(session, command_id, mode, grace_s)
        if command_id not in self._live:  # sent before a restart: follow it again
            live = LiveCommand(record, safing=False)
            self._live[command_id] = live
        return record

    async def _submit(self, order: CommandOrder) -> tuple[CommandRecord, bool]:
        if self._draining:
            raise Draining("This gateway is draining; only safing passes.", retry_after_s=DRAINING_RETRY_S)
        install_id = await self._controllers.controller_of(
            telescope_uid=order.telescope_uid, device_uid=order.device_uid
        )
        if install_id is None:
            raise NotFound("No installation controls this telescope or device.")
        session = self._registry.current(install_id)
        stored = await self._stored(order)
        if stored is not None:
            return stored, True
        if session is None or session.ending is not None:
            raise NodeOffline("The installation that controls this is not connected.", retry_after_s=5.0)
        session.require_more_than_safing()
        if len(self._live) >= MAX_LIVE_COMMANDS or not session.has_room(len(order.command.text.encode()) + 2_048):
            raise Busy("This node does not take what it is sent; nothing was sent.", retry_after_s=1.0)
        admitted = self._being_admitted.setdefault(order.command_id, trio.Event())
        try:
            record, duplicate = await self._ledger.admit(order.record(install_id, session.epoch))
            if duplicate:
                return record, True
            live = LiveCommand(record, safing=False, command_type=order.command_type)
            self._live[record.command_id] = live
            self._send(live, order, session, Lane.DATA)
        finally:
            self._being_admitted.pop(order.command_id, None)
            admitted.set()
        return record, False

    async def _stored(self, order: CommandOrder) -> CommandRecord | None:
        """A repeat gets the stored record even when the node is away. Raises `IdReused`."""
        record = await self._ledger.get(order.command_id)
        if record is not None and record.identity != order.identity:
            raise IdReused(f"The command id {order.command_id} belongs to another command.")
        return record

    def _submit_safing(self, order: CommandOrder) -> tuple[CommandRecord, bool]:
        """No await between the caller's request and the node's lane: nothing can delay it."""
        live = self._live.get(order.command_id)
        if live is not None:
            if live.record.identity != order.identity:
                raise IdReused(f"The command id {order.command_id} belongs to another command.")
            return live.record, True
        target = order.device_uid or order.telescope_uid
        session = None if target is None else self._registry.controlling(target)
        if session is None:
            raise NodeOffline(
                "No connected installation controls this telescope or device; a node without a link runs its "
                "link-loss policy by itself.",
                retry_after_s=1.0,
            )
        live = LiveCommand(order.record(session.binding.install_id, session.epoch), safing=True)
        self._live[order.command_id] = live
        try:
            self._send(live, order, session, Lane.SAFING)
        except GatewayError:
            del self._live[order.command_id]
            raise
        self._writer.record(live)
        for other in list(self._live.values()):
            if overtakes(other, order.command_type, order.telescope_uid, order.device_uid):
                self._take_back(other, f"{order.command_type} came before it was written")
        return live.record, False

    def _take_back(self, live: LiveCommand, why: str) -> bool:
        """Ends a command of which not a byte was handed over. Returns whether that is certain."""
        if live.parcel is None or live.parcel.state is not ParcelState.WAITING:
            return False
        live.record.canceled = CanceledHow.BEFORE_START
        self._moved(live, CommandState.CANCELED, Hop.GATEWAY, why)
        live.parcel.withdraw()
        return True

    def _send(self, live: LiveCommand, order: CommandOrder, session: NodeSession, lane: Lane) -> None:
        record = live.record
        left_s = (record.deadline_at - datetime.now(UTC)).total_seconds()
        try:
            parcel = session.put(
                lane,
                EventCommand(
                    command_id=record.command_id,
                    telescope_uid=record.telescope_uid,
                    device_uid=record.device_uid,
                    command=order.command,
                    origin=order.origin,
                    actor=None if record.actor is None else Opaque.of(record.actor),
                    deadline_ms=None if live.safing else max(0, int(left_s * 1000)),
                    epoch=session.epoch,
                    t_ms=session.t_ms(),
                    graph_revision=order.graph_revision,
                    issued_at=record.created_at,
                    traceparent=carried_traceparent(order.traceparent),
                ),
            )
        except GatewayError as error:
            # Admitted and never written: the ledger says so, and the caller is told why.
            self._moved(live, CommandState.EXPIRED, Hop.GATEWAY, error.reason)
            raise
        live.parcel = parcel
        parcel.on_settled = lambda parcel: self._written(live, parcel)

    # What sessions tell (never waits).

    def _written(self, live: LiveCommand, parcel: Parcel) -> None:
        if parcel.state is ParcelState.WRITTEN:
            self._moved(live, CommandState.WRITTEN, Hop.GATEWAY)
        elif parcel.state is ParcelState.WITHDRAWN:
            self._moved(live, CommandState.EXPIRED, Hop.GATEWAY, "the socket ended before it was written")
        else:
            self._moved(live, CommandState.WRITTEN, Hop.GATEWAY, "the socket ended while it was being written")
            self._moved(live, CommandState.UNKNOWN, Hop.GATEWAY, "the socket ended while it was being written")

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
                del self._live[result.command_id]

    def session_ended(self, install_id: InstallId, epoch: Epoch) -> None:
        """What was written to this session and has no end is unknown now; the node will tell when it is back."""
        for live in list(self._live.values()):
            if live.record.install_id == install_id and live.record.epoch == epoch:
                self._moved(live, CommandState.UNKNOWN, Hop.GATEWAY, "the link was lost")

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
            self._finished(record.outcome)

    def _moved(self, live: LiveCommand, state: CommandState, hop: Hop, detail: str | None = None) -> None:
        step = live.move(state, hop, detail)
        if step is None:
            return
        if live.ended:
            self._finished(live.record.outcome)
        self._writer.note(Move(live.record.command_id, step))

    # Its own tasks.

    async def run(self) -> None:
        """Writes to the ledger, and forgets what it holds, until cancelled."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._writer.run)
            while True:
                await trio.sleep(FORGET_EVERY_S)
                self._forget()

    def _settled_in_ledger(self, command_id: CommandId) -> None:
        live = self._live.get(command_id)
        if live is not None and live.may_be_forgotten:
            del self._live[command_id]

    def _forget(self) -> None:
        for command_id, live in list(self._live.items()):
            if live.may_be_forgotten:
                del self._live[command_id]


def _send_cancel(session: NodeSession, command_id: CommandId, mode: CancelMode, grace_s: float | None) -> None:
    session.put(
        Lane.SAFING,
        CancelCommand(
            command_id=command_id,
            mode=mode,
            grace_ms=None if grace_s is None else int(grace_s * 1000),
            epoch=session.epoch,
            t_ms=session.t_ms(),
        ),
    )
