"""Commands: admitted to the ledger, carried to the node once, followed to their end; safing past everything.

Safing (contract §0.1) is routed by what live sessions are bound to and sent before anything is asked of the ledger;
if the ledger is away it is recorded when it comes back.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Literal, Protocol
from uuid import uuid4

import trio

from skygw.control.admissions import Admission, Admissions, Revocation
from skygw.control.command_frames import event_of, send_cancel
from skygw.control.device_conflicts import DeviceConflicts
from skygw.control.guards import Guards
from skygw.control.ledger import (
    ENDS,
    Caller,
    CancelRequest,
    CommandLedger,
    CommandQuery,
    CommandRecord,
    CommandState,
    Transition,
)
from skygw.control.live_command import LiveCommand, overtakes
from skygw.control.live_commands import LiveCommands
from skygw.control.order import CommandOrder
from skygw.control.safing_spool import SafingSpool
from skygw.errors import (
    DeadlineExceeded,
    Draining,
    GatewayError,
    Hop,
    IdReused,
    IllegalTransition,
    LinkLost,
    NodeOffline,
    NotFound,
    RoutingUnavailable,
)
from skygw.ids import CommandId, DeviceUid, InstallId, TelescopeUid
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import Ending
from skygw.nodes.session import NodeSession
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.node_frames import PublishCommandResult
from skygw.protocol.safing import is_safing

FRAME_BYTES = 2_048
"""What a frame has beside its command, at most."""

DRAINING_RETRY_S = 1.0
LEDGER_PATIENCE_S = 0.5
"""How long a cancel waits to be told whose command it is for, before every node is asked."""
ROUTE_PATIENCE_S = 1.0
"""How long a stop waits to be told who controls what no live session is known to."""
CATCH_UP_S = 1.0
"""How long a repeat waits for the ledger to hear that the life before it was never written."""


class Controllers(Protocol):
    """Which installation controls what, by the hub's records. Raises `RoutingUnavailable`."""

    async def controller_of(
        self, *, telescope_uid: TelescopeUid | None, device_uid: DeviceUid | None
    ) -> InstallId | None: ...


@dataclass(frozen=True, slots=True)
class Cancellation:
    """What a cancel met. Without a record nothing is known of the command but what `met` says."""

    met: Literal["asked", "before_start", "ended"]
    record: CommandRecord | None


class CommandService:
    """Carries commands. Its `run` writes to the ledger what the gateway itself learns."""

    def __init__(
        self,
        *,
        registry: ConnectionRegistry,
        ledger: CommandLedger,
        controllers: Controllers,
        guards: Guards,
        finished: Callable[[str], None],
        spool: SafingSpool | None = None,
    ) -> None:
        """With a `spool`, a stop that the ledger has not heard of is known to the next process, too."""
        self._registry = registry
        self._ledger = ledger
        self._controllers = controllers
        self._guards = guards
        self._admissions = Admissions()
        self._conflicts = DeviceConflicts()
        self._live = LiveCommands(
            registry=registry,
            ledger=ledger,
            finished=finished,
            admitting=self._admissions.command_ids,
            spool=spool,
        )
        self._draining = False

    @property
    def followed(self) -> int:
        """Commands held in memory."""
        return len(self._live)

    def drain(self) -> None:
        """Takes nothing new but safing."""
        self._draining = True

    async def flush(self) -> None:
        """Waits until the ledger has what is known so far. The caller brings the deadline."""
        await self._live.writer.caught_up()

    # Callers.

    def expect(self, order: CommandOrder) -> Admission:
        """An order that is no safing and will be submitted, whatever happens: a stop or a cancel reaches it from now
        on, and its time runs. Raises `Invalid` for one without a type.
        """
        return self._admissions.expect(order)

    async def submit(
        self, order: CommandOrder, *, expected: Admission | None = None, behind: trio.Event | None = None
    ) -> tuple[CommandRecord, bool]:
        """Takes a command and sends it. Returns its record and whether it is a duplicate of an earlier one. What is no
        safing waits for `behind`.
        """
        if is_safing(order.command_type):
            return await self._submit_safing(order)
        with self._admissions.enter(order, expected) as admission:
            if self._draining:
                raise _draining()
            if behind is not None:
                await behind.wait()
            await admission.turn()
            return await self._submit(order, admission)

    async def validate(self, order: CommandOrder) -> tuple[list[GatewayError], bool]:
        """All that would refuse this command now, and whether it is a repeat. Sends and stores nothing."""
        found: list[GatewayError] = [_draining()] if self._draining else []
        install_id: InstallId | None = None
        duplicate = False
        try:
            install_id = await self._installation_of(order)
        except (NotFound, RoutingUnavailable) as error:
            found.append(error)
        try:
            stored = await self._stored(order)
            duplicate = stored is not None and not self._begins_anew(stored)
        except (IdReused, RoutingUnavailable) as error:
            if all(other.reason != error.reason for other in found):
                found.append(error)
        if install_id is not None and not duplicate:
            found += await self._guards.examine(order, install_id)
            found += self._refusals(order, self._registry.current(install_id))
        return found, duplicate

    async def wait(self, command_id: CommandId, wait_s: float, *, for_cancel: bool = False) -> CommandRecord:
        """The record when the command has ended, or as it stands after `wait_s`; `for_cancel` also when the node says
        that it cannot be canceled. Raises `NotFound`.
        """
        live = self._live.find(command_id)
        if live is not None:
            with trio.move_on_after(wait_s):
                await live.settled(or_not_cancelable=for_cancel)
            return live.record
        return await self.get(command_id)

    def follow(self, record: CommandRecord) -> LiveCommand | None:
        """Where what becomes of it is heard first; nowhere if it has ended and is forgotten."""
        if self._live.find(record.command_id) is None and record.state not in ENDS:
            self._live.add_again(record)  # sent before a restart
        return self._live.find(record.command_id)

    async def look_again(self, live: LiveCommand) -> None:
        """Asks the ledger of what nothing was heard of here. One that is away says nothing."""
        if live.in_ledger:
            await self._live.resolve(live)

    async def get(self, command_id: CommandId) -> CommandRecord:
        """What is known of a command. Raises `NotFound`, `RoutingUnavailable`."""
        live = self._live.find(command_id)
        if live is None:
            record = await self._ledger.get(command_id)
            if record is None:
                raise NotFound(f"No command {command_id} is known.")
            return record
        if live.in_ledger and live.record.state is CommandState.UNKNOWN:
            await self._live.resolve(live)
        return live.record

    async def page(self, query: CommandQuery) -> tuple[list[CommandRecord], int]:
        return await self._ledger.page(query)

    async def cancel(
        self, command_id: CommandId, *, mode: CancelMode, grace_s: float | None, by: Caller
    ) -> Cancellation:
        """Asks the node to cancel; safing. Needs no ledger for a command this process sent; for another one, with the
        ledger away, every connected node is asked. Raises `NodeOffline`, `NotFound`.

        A command that is being admitted, or waits here, is taken back instead: a cancel would overtake it. Who asked is
        recorded when the ledger takes it, and not waited for.
        """
        asked = CancelRequest(uuid4(), command_id, datetime.now(UTC), mode, grace_s, by)
        canceled = Revocation("canceled before it was written", by, asked)
        admissions = self._admissions.of(command_id)
        for admission in admissions:
            admission.revoke(canceled)
        live = self._live.find(command_id)
        if live is not None and self._live.take_back(live, canceled):
            self._live.cancel_asked(asked)
            return Cancellation("before_start", live.record)
        if live is not None and not live.ended:
            return await self._cancel_live(live, asked)
        record: CommandRecord | None = None
        with trio.move_on_after(LEDGER_PATIENCE_S), suppress(RoutingUnavailable):
            if admissions:
                await admissions[0].looked_up.wait()
                if admissions[0].is_new:
                    return Cancellation("before_start", None)
            try:
                record = await self.get(command_id)
            except NotFound:
                if admissions:  # which ended without it
                    return Cancellation("before_start", None)
                raise
        return self._cancel_stored(record, asked)

    async def _cancel_live(self, live: LiveCommand, asked: CancelRequest) -> Cancellation:
        session = self._registry.current(live.record.install_id)
        if session is not None:
            send_cancel(session, asked)  # before anything is asked of the ledger
            live.is_released = True
        self._live.cancel_asked(asked)
        if live.record.state is CommandState.UNKNOWN:
            with trio.move_on_after(LEDGER_PATIENCE_S):
                await self._live.resolve(live)
        if live.ended:
            return Cancellation("ended", live.record)
        if session is None:
            raise _offline()
        return Cancellation("asked", live.record)

    def _cancel_stored(self, record: CommandRecord | None, asked: CancelRequest) -> Cancellation:
        if record is None:
            self._live.cancel_asked(asked)
            # Nobody here knows whose command it was. A node that does not know the id only remembers not to run it.
            for connected in self._registry:
                with suppress(LinkLost):
                    send_cancel(connected, asked)
            return Cancellation("asked", None)
        session = self._registry.current(record.install_id)
        if record.state not in ENDS:
            if session is None:
                self._live.cancel_asked(asked)
                raise _offline()
            send_cancel(session, asked)
            if self._live.find(record.command_id) is None:  # sent before a restart: follow it again
                self._live.add_again(record)
        self._live.cancel_asked(asked)
        return Cancellation("ended" if record.state in ENDS else "asked", record)

    async def resolve(self, command_id: CommandId, end: CommandState, *, reason: str, by: Caller) -> CommandRecord:
        """Closes what is unknown by an administrator's word: its node cannot tell any more. Raises `NotFound`,
        `IllegalTransition` if it is not unknown, `RoutingUnavailable`.
        """
        record = await self.get(command_id)
        if record.state is CommandState.UNKNOWN:
            with trio.move_on_after(CATCH_UP_S):
                await self._live.writer.caught_up()  # that it is unknown may not be written yet
            step = Transition(datetime.now(UTC), end, Hop.GATEWAY, reason, by)
            if await self._ledger.resolve(command_id, step):
                return await self.get(command_id)
            record = await self.get(command_id)
        raise IllegalTransition(f"This command is {record.state}: only what is unknown can be resolved.")

    # Admission.

    async def _installation_of(self, order: CommandOrder) -> InstallId:
        """Raises `NotFound`, `RoutingUnavailable`."""
        install_id = await self._controllers.controller_of(
            telescope_uid=order.telescope_uid, device_uid=order.device_uid
        )
        if install_id is None:
            raise NotFound("No installation controls this telescope or device.")
        return install_id

    def _refusals(self, order: CommandOrder, session: NodeSession | None) -> Iterator[GatewayError]:
        """What at this session refuses the command, the first first."""
        if session is None or session.ending is not None:
            yield _not_connected()
            return
        try:
            session.require_more_than_safing()
        except GatewayError as error:
            yield error
        try:
            self._live.require_room(order.service)
            session.require_room(len(order.command.text.encode()) + FRAME_BYTES, order.service)
        except GatewayError as error:
            yield error
        if (busy := self._conflicts.in_the_way(order, session.binding)) is not None:
            yield busy

    async def _submit(self, order: CommandOrder, admission: Admission) -> tuple[CommandRecord, bool]:
        install_id = await self._installation_of(order)
        stored = await self._stored(order)
        again = stored is not None and self._begins_anew(stored)
        admission.found(is_new=stored is None or again)
        if stored is not None and not again:
            return stored, True
        fence = await self._guards.admit(order, install_id)
        session = self._registry.current(install_id)
        record = order.record(
            install_id, None if session is None else session.epoch, left_s=admission.deadline - trio.current_time()
        )
        if fence is not None:
            record.fence, record.fence_uid = fence.fence, fence.uid
        live = LiveCommand(
            record, command_type=admission.command_type, safing=False, in_ledger=True, deadline=admission.deadline
        )
        if admission.revoked is not None:
            live.in_ledger = False
            self._live.add(live)
            self._live.writer.record(live)
            self._revoked(live, admission, admission.revoked)
            return record, False
        if session is None:
            raise _not_connected()
        for refusal in self._refusals(order, session):
            raise refusal
        hold = self._conflicts.claim(record, admission.command_type, session.binding, by=admission)
        try:
            stored, duplicate = await self._admit(record, stored)
        except RoutingUnavailable:
            # It may be stored all the same. It was not sent, and the ledger hears that before a repeat is looked up.
            self._live.add(live)
            if admission.revoked is not None:
                self._revoked(live, admission, admission.revoked)
            else:
                self._live.moved(live, CommandState.EXPIRED, Hop.GATEWAY, "the ledger did not say that it has it")
            raise
        if duplicate:
            return stored, True
        hold.by = live
        self._live.add(live)
        if admission.revoked is not None:
            self._revoked(live, admission, admission.revoked)
        else:
            self._send(live, order, session, Lane.DATA)
        return record, False

    async def _admit(self, record: CommandRecord, stored: CommandRecord | None) -> tuple[CommandRecord, bool]:
        """Stores a new command, or a new life of one that was never written."""
        if stored is None:
            return await self._ledger.admit(record)
        if await self._ledger.readmit(record, seen=stored):
            return record, False
        return await self._ledger.get(record.command_id) or stored, True

    def _revoked(self, live: LiveCommand, admission: Admission, revocation: Revocation) -> None:
        for asked in admission.cancels:
            self._live.cancel_asked(asked)
        self._live.end_before_start(live, revocation)

    async def _stored(self, order: CommandOrder) -> CommandRecord | None:
        """A repeat gets the stored record even when the node is away. Raises `IdReused`."""
        live = self._live.find(order.command_id)
        if live is not None and live.record.state in (CommandState.EXPIRED, CommandState.CANCELED):
            with trio.move_on_after(CATCH_UP_S) as patience:
                await self._live.writer.caught_up()
            if patience.cancelled_caught:
                raise RoutingUnavailable("The ledger has not heard yet that this was not sent.", retry_after_s=1.0)
        record = await self._ledger.get(order.command_id)
        if record is not None and record.identity != order.identity:
            raise IdReused(f"The command id {order.command_id} belongs to another command.")
        return record

    def _begins_anew(self, stored: CommandRecord) -> bool:
        """Whether it was never written, and nobody here is about to write it. What was received and is followed by
        nobody may have been written by a gateway that ended: its node is asked.
        """
        live = self._live.find(stored.command_id)
        is_followed = live is not None and live.record.state is not CommandState.EXPIRED
        return stored.state is CommandState.EXPIRED and not is_followed

    # Safing.

    async def _submit_safing(self, order: CommandOrder) -> tuple[CommandRecord, bool]:
        """No wait between the caller's request and the node's lane, but for a target no live session is known to
        control: it may have been bound after the node's `hello`.
        """
        if (repeated := self._repeated_safing(order)) is not None:
            return repeated, True
        self._overtake(order)
        target = order.device_uid or order.telescope_uid
        session = None if target is None else self._registry.controlling(target)
        if session is None:
            session = await self._session_by_the_records(order)
            if (repeated := self._repeated_safing(order)) is not None:
                return repeated, True
        deadline = trio.current_time() + order.timeout_s
        record = order.record(session.binding.install_id, session.epoch, left_s=order.timeout_s)
        live = LiveCommand(record, command_type=order.command_type, safing=True, in_ledger=False, deadline=deadline)
        self._live.add(live)
        self._conflicts.claim(record, order.command_type, session.binding, by=live)
        try:
            self._send(live, order, session, Lane.SAFING)
        except GatewayError:
            self._live.drop(live)
            raise
        self._live.writer.record(live)
        return record, False

    def _repeated_safing(self, order: CommandOrder) -> CommandRecord | None:
        """A stop that was withdrawn unwritten is sent again. Raises `IdReused`."""
        live = self._live.find(order.command_id)
        if live is None:
            return None
        if live.record.identity != order.identity:
            raise IdReused(f"The command id {order.command_id} belongs to another command.")
        return None if live.record.state is CommandState.EXPIRED else live.record

    def _overtake(self, order: CommandOrder) -> None:
        """What would undo the stop and is not on the wire yet does not get there (docs/adr/0007)."""
        stopped = Revocation(f"{order.command_type} came before it was written", Caller(order.service, order.actor))
        for admission in self._admissions:
            if overtakes(order, admission):
                admission.revoke(stopped)
        for live in self._live:
            if overtakes(order, live):
                live.is_released = True
                self._live.take_back(live, stopped)

    async def _session_by_the_records(self, order: CommandOrder) -> NodeSession:
        """Raises `NodeOffline`."""
        install_id: InstallId | None = None
        with trio.move_on_after(ROUTE_PATIENCE_S), suppress(RoutingUnavailable):
            install_id = await self._controllers.controller_of(
                telescope_uid=order.telescope_uid, device_uid=order.device_uid
            )
        session = None if install_id is None else self._registry.current(install_id)
        if session is None or session.ending is not None:
            raise NodeOffline(
                "No connected installation controls this telescope or device; a node without a link runs its "
                "link-loss policy by itself.",
                retry_after_s=1.0,
            )
        return session

    def _send(self, live: LiveCommand, order: CommandOrder, session: NodeSession, lane: Lane) -> None:
        record = live.record
        left_s = live.deadline - trio.current_time()
        try:
            if not live.safing and left_s <= 0:
                raise DeadlineExceeded("The time for this command ran out before it could be sent.")
            left = None if live.safing else left_s
            parcel = session.put(lane, event_of(order, record, session, left_s=left), order.service)
        except GatewayError as error:
            # Admitted and never written: the ledger says so, and the caller is told why.
            self._live.moved(live, CommandState.EXPIRED, Hop.GATEWAY, error.reason)
            raise
        self._live.watch(live, parcel)

    # What sessions tell (never waits).

    def result_arrived(self, install_id: InstallId, result: PublishCommandResult) -> None:
        self._live.result_arrived(install_id, result)

    def result_committed(self, install_id: InstallId, result: PublishCommandResult) -> None:
        self._live.result_committed(install_id, result)

    def session_began(self, session: NodeSession) -> None:
        self._live.session_started(session.binding.install_id, session.epoch)

    def session_ended(self, session: NodeSession, ending: Ending) -> None:  # noqa: ARG002 - how it ended is no matter
        self._live.session_ended(session.binding.install_id, session.epoch)

    async def run(self, *, task_status: trio.TaskStatus[None] = trio.TASK_STATUS_IGNORED) -> None:
        """Writes to the ledger, and forgets what it holds, until cancelled. Started when nodes may come."""
        await self._live.run(task_status=task_status)


def _draining() -> Draining:
    return Draining("This gateway is draining; only safing passes.", retry_after_s=DRAINING_RETRY_S)


def _not_connected() -> NodeOffline:
    return NodeOffline("The installation that controls this is not connected.", retry_after_s=5.0)


def _offline() -> NodeOffline:
    return NodeOffline("This installation is not connected; its node runs its link-loss policy by itself.")
