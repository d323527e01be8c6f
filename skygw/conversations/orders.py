"""Commands published on a socket, and their cancels: taken in the order they came, followed to their ends, and never in
the way of a stop (contract §0.1).

A stop and a cancel are handed on as they are read. Whatever waits here for its turn is listed where a stop looks for
what it would be undone by.
"""

from contextlib import suppress
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import TYPE_CHECKING, Any

import trio

from skygw.auth.principals import Scope, ServicePrincipal
from skygw.control.admissions import Admission
from skygw.control.commands import Cancellation, CommandService
from skygw.control.ledger import ENDS, OUTCOMES, Caller, CommandRecord, CommandState
from skygw.control.order import Budget, CommandOrder, order_of
from skygw.control.published_leases import PublishedLeases
from skygw.control.receipts import receipt_of
from skygw.conversations.callers import caller_of, canceler_of, holder_of
from skygw.conversations.followed import Followed, bare_text, standing_text
from skygw.conversations.refusals import code_of, details_of, refusal
from skygw.conversations.words import Words
from skygw.errors import Busy, GatewayError, Hop, Invalid, RoutingUnavailable
from skygw.ids import CommandId
from skygw.observability.tracing import Trace
from skygw.protocol.codec import encode
from skygw.protocol.commander_frames import (
    CancelPublished,
    CommandReceipt,
    CommandResultEvent,
    CommandValidation,
    PublishCommand,
    PublishStop,
    Refusal,
)
from skygw.protocol.gateway_frames import CancelMode
from skygw.protocol.json_text import Opaque, read_value
from skygw.protocol.order_members import LEASE_FAMILY, misfit
from skygw.telemetry.outlet import SubscriberOutlet

if TYPE_CHECKING:
    from uuid import UUID

MAX_FOLLOWED = 1_024
"""Commands of one socket that are on their way, or without an end that was told: 1,024 × about 4 KiB. One that is
waiting for its turn has its own text beside that, at most 60 KiB: 64 MiB if all are of the largest size and wait."""

MAX_FOLLOWED_STOPS = 1_024
"""Stops beside them. More are sent as ever, and told of once."""

MAX_RECEIPTS = 256
"""Cancels whose commands are waited for. More are sent as ever, and told of as they stand."""

RECEIPT_PATIENCE_S = 60.0
"""How long a receipt waits for the end of its command, beyond the grace."""

LOOK_EVERY_S = 5.0
"""How often the ledger is asked what became of what is unknown: a result may have been stored that nobody was told."""


@dataclass(slots=True)
class _Places:
    """How many there may be of something at once."""

    at_most: int
    taken: int = 0

    def take(self) -> bool:
        if self.taken >= self.at_most:
            return False
        self.taken += 1
        return True

    def give_back(self) -> None:
        self.taken -= 1


class Orders:
    """Of one socket. With `extensions` cancels are answered by receipts, and dry runs are answered at all."""

    def __init__(
        self,
        commands: CommandService,
        leases: PublishedLeases,
        outlet: SubscriberOutlet,
        *,
        budget: Budget,
        extensions: bool,
    ) -> None:
        self._commands = commands
        self._leases = leases
        self._outlet = outlet
        self._budget = budget
        self._extensions = extensions
        self._followed: dict[CommandId, Followed] = {}
        self._places = _Places(MAX_FOLLOWED)
        self._stop_places = _Places(MAX_FOLLOWED_STOPS)
        self._receipt_places = _Places(MAX_RECEIPTS)
        self._behind: dict[UUID | None, trio.Event] = {}
        """By target: set when the newest order for it has been admitted or refused."""
        self._cancel_when_gone: dict[trio.Event | None, tuple[CommandId, Caller]] = {}
        """By what stands for the publishing, since an id may be published again, and be refused."""
        self._has_ended = False
        self._waiting: set[trio.CancelScope] = set()

    # What is published.

    def publish(self, said: PublishCommand, principal: ServicePrincipal, lasting: trio.Nursery) -> None:
        """Never waits. Raises what refuses it at once."""
        is_stop = isinstance(said, PublishStop)
        principal.require_for_safing(Scope.NODES_COMMAND)
        caller = caller_of(principal, said.actor)
        if not is_stop:
            principal.require(Scope.NODES_COMMAND)
        order = order_of(said, caller, budget=self._budget, traceparent=Trace.parent(said.traceparent).traceparent)
        if is_stop:
            lasting.start_soon(self._stop, order)
        elif order.command_type.startswith(LEASE_FAMILY):
            self._take_place()
            ahead, done = self._line_up(order)
            lasting.start_soon(self._lease, said, principal, ahead, done)
        elif said.validate_only:
            if not self._extensions:
                raise Invalid("There is no word for the answer to a dry run here: offer skynet.internal.v1.")
            self._take_place()
            lasting.start_soon(self._validate, order)
        else:
            wrong = misfit(said.command, "command")
            if wrong is not None:
                raise wrong
            self._take_place()
            ahead, done = self._line_up(order)
            if said.on_caller_gone == "cancel":
                self._cancel_when_gone[done] = order.command_id, caller
            lasting.start_soon(self._carry, order, self._commands.expect(order), ahead, done)

    def _take_place(self) -> None:
        if not self._places.take():
            raise Busy(
                f"{self._places.taken} commands of this socket have no end that was told, and {self._places.at_most} "
                "is the limit; nothing was sent. A stop still goes.",
                retry_after_s=1.0,
            )

    def _line_up(self, order: CommandOrder) -> tuple[trio.Event | None, trio.Event]:
        """What an order waits for, and what those behind it do: for one target they are admitted as they came."""
        target = order.device_uid or order.telescope_uid
        ahead, done = self._behind.get(target), trio.Event()
        self._behind[target] = done
        return ahead, done

    def _leave_line(self, done: trio.Event) -> None:
        done.set()
        for target in [target for target, newest in self._behind.items() if newest is done]:
            del self._behind[target]

    async def _carry(
        self, order: CommandOrder, expected: Admission, ahead: trio.Event | None, done: trio.Event
    ) -> None:
        try:
            record, is_duplicate = await self._commands.submit(order, expected=expected, behind=ahead)
        except GatewayError as error:
            self._cancel_when_gone.pop(done, None)
            self._answer(encode(refusal(error, str(order.command_id))), self._places)
        else:
            self._follow(record, done, is_duplicate=is_duplicate, places=self._places)
        finally:
            self._leave_line(done)

    async def _stop(self, order: CommandOrder) -> None:
        try:
            record, is_duplicate = await self._commands.submit(order)
        except GatewayError as error:
            self._outlet.say(encode(refusal(error, str(order.command_id))))
            return
        if self._stop_places.take():
            self._follow(record, None, is_duplicate=is_duplicate, places=self._stop_places)
        else:
            self._outlet.say(standing_text(record, is_duplicate=is_duplicate))

    async def _validate(self, order: CommandOrder) -> None:
        refusals, is_duplicate = await self._commands.validate(order)
        wrong = misfit(order.command, "command")
        found = [*([] if wrong is None else [wrong]), *refusals]
        frame = CommandValidation(
            command_id=order.command_id,
            valid=not found,
            duplicate=is_duplicate,
            refusals=tuple(
                Refusal(code=code_of(one), message=one.message[:2_000], details=details_of(one)) for one in found
            ),
        )
        self._answer(encode(frame), self._places)

    async def _lease(
        self, said: PublishCommand, principal: ServicePrincipal, ahead: trio.Event | None, done: trio.Event
    ) -> None:
        try:
            if ahead is not None:
                await ahead.wait()
            result = await self._leases.run(said, holder_of(principal, said.actor))
        except GatewayError as error:
            answer = encode(refusal(error, str(said.command_id)))
        else:
            answer = _completed(said.command_id, result)
        finally:
            self._leave_line(done)
        self._answer(answer, self._places)

    def _answer(self, text: str, places: _Places) -> None:
        """Keeps its place until it is on its way."""
        Words(self._outlet, urgent=True, when_said=places.give_back).end(text)

    # What is followed.

    def _follow(
        self, record: CommandRecord, published: trio.Event | None, *, is_duplicate: bool, places: _Places
    ) -> None:
        if self._has_ended:
            return
        before = self._followed.get(record.command_id)
        if before is not None and is_duplicate:  # which goes on
            self._cancel_when_gone.pop(published, None)
            self._answer(standing_text(before.record, is_duplicate=True), places)
            return
        if before is not None:
            before.drop()

        def over() -> None:
            self._followed.pop(record.command_id)
            self._cancel_when_gone.pop(published, None)
            places.give_back()

        live = self._commands.follow(record)
        self._followed[record.command_id] = one = Followed(
            self._outlet, record, live, is_duplicate=is_duplicate, when_over=over
        )
        one.begin()

    async def look_again(self) -> None:
        """Asks the ledger, as long as the socket is open, of what has no end that was told: not all that is stored is
        heard of.
        """
        while True:
            await trio.sleep(LOOK_EVERY_S)
            for one in list(self._followed.values()):
                if one.live is not None and one.record.state is CommandState.UNKNOWN:
                    await self._commands.look_again(one.live)

    # What is canceled.

    def cancel(self, said: CancelPublished, principal: ServicePrincipal, lasting: trio.Nursery) -> None:
        """Never waits, and is refused for nothing but the scope."""
        principal.require_for_safing(Scope.NODES_COMMAND)
        lasting.start_soon(self._cancel, said, canceler_of(principal, said.actor))

    async def _cancel(self, said: CancelPublished, by: Caller) -> None:
        grace_s = None if said.grace_ms is None else said.grace_ms / 1_000
        try:
            met = await self._commands.cancel(said.command_id, mode=said.mode, grace_s=grace_s, by=by)
        except GatewayError as error:
            self._outlet.say(encode(refusal(error, str(said.command_id))))
            return
        record = met.record
        has_place = self._receipt_places.take()
        if has_place and record is not None and record.state not in ENDS and not self._has_ended:
            record = await self._awaited(record, RECEIPT_PATIENCE_S + (grace_s or 0.0))
        text = self._receipt(said.command_id, met, record)
        if has_place and text is not None:
            self._answer(text, self._receipt_places)
            return
        if has_place:
            self._receipt_places.give_back()
        if text is not None:
            self._outlet.say(text)

    async def _awaited(self, record: CommandRecord, wait_s: float) -> CommandRecord:
        """As it stands when it has ended, or the wait, or the socket."""
        with trio.CancelScope() as waiting:
            self._waiting.add(waiting)
            try:
                with suppress(RoutingUnavailable):
                    return await self._commands.wait(record.command_id, wait_s)
            finally:
                self._waiting.discard(waiting)
        return record

    def _receipt(self, command_id: CommandId, met: Cancellation, record: CommandRecord | None) -> str | None:
        """As published there are no receipts: a command tells of itself, if it is followed here."""
        receipt = receipt_of(met, record)
        if self._extensions:
            proof = None if receipt.proof is None else Opaque(receipt.proof, read_value(receipt.proof))
            return encode(CommandReceipt(command_id=command_id, receipt=receipt.word, state=receipt.state, proof=proof))
        if command_id in self._followed:
            return None
        if record is not None:
            return standing_text(record)
        return bare_text(command_id, receipt.state, canceled="before_start" if met.met == "before_start" else None)

    def ended(self, lasting: trio.Nursery) -> None:
        """The socket has ended: its commands go on, but for those that are not to without it."""
        self._has_ended = True
        for waiting in list(self._waiting):
            waiting.cancel()
        for command_id, caller in list(self._cancel_when_gone.values()):
            lasting.start_soon(self._cancel_quietly, command_id, caller)
        for one in list(self._followed.values()):
            one.drop()

    async def _cancel_quietly(self, command_id: CommandId, by: Caller) -> None:
        with suppress(GatewayError):  # then the node runs its link-loss policy
            await self._commands.cancel(command_id, mode=CancelMode.GRACEFUL, grace_s=None, by=by)


def _completed(command_id: CommandId, result: dict[str, Any]) -> str:
    """A command that the gateway itself has carried out."""
    return encode(
        CommandResultEvent(
            command_id=command_id,
            status=CommandState.COMPLETED,
            outcome=OUTCOMES[CommandState.COMPLETED],
            result=Opaque.of(result),
            hop=Hop.GATEWAY,
            at=datetime.now(UTC),
        )
    )
