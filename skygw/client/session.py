"""One life of a node's socket, from `hello` to its end: one reader, one writer, a heartbeat, and what they feed."""

import logging
import math
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import TypeVar

import trio

from skygw.client.arrival import Arrivals, MonotonicMs, TooLate
from skygw.client.commands import Commands, TooManyCommands, command_type
from skygw.client.config import Token, TokenProvider
from skygw.client.direct import Calls, Operations, direct_error
from skygw.client.durable_sender import DurableSender
from skygw.client.following import Followings
from skygw.client.hardware import Hardware
from skygw.client.lanes import ControlLaneFull, Lanes, Snapshots
from skygw.client.leases import NodeLeases
from skygw.client.link import Link, LinkEnded
from skygw.client.outbox import Outbox
from skygw.client.round_trip import RoundTrip
from skygw.client.tasks import TaskNews
from skygw.client.upload_pace import UploadPace
from skygw.ids import CommandId
from skygw.protocol.codec import BadFrame, ProtocolViolation, encode, from_gateway
from skygw.protocol.gateway_frames import (
    Ack,
    CancelCommand,
    DirectCancel,
    DirectCredit,
    DirectRequest,
    EventCommand,
    EventGraphChanged,
    EventManualControlLease,
    EventTaskChanged,
    EventTasksAvailable,
    EventToken,
    FollowedSnapshot,
    GatewayFrame,
    Goaway,
    Nack,
    QueryCommand,
    Welcome,
)
from skygw.protocol.json_text import Opaque
from skygw.protocol.node_frames import AuthRefresh, Error, ErrorCode, Hello, Ping, Pong
from skygw.protocol.safing import is_safing
from skygw.protocol.streams import EventLive, EventSubscriptionEnded
from skygw.websocket import LinkClosed

log = logging.getLogger("skygw.client")

WELCOME_S = 20.0
DEAD_AFTER_BEATS = 2.5
DEAD_AFTER_S = 25.0
"""At the latest, however slowly a gateway beats: the link asks for a sign of life long before."""

SHORTEST_BEAT_S, LONGEST_BEAT_S = 0.05, 60.0
GOAWAY_S = 30.0
"""How long after the time it asked for a gateway that said goaway may still hold the link. Until then the node stays:
its answers are finished, and a stop still gets through."""

RENEW_AT = 0.75
"""The part of a token's life after which it is renewed."""

RENEW_AGAIN_S = 5.0


async def greet(link: Link, hello: Hello) -> Welcome:
    """Says hello and waits for the welcome. Raises `LinkClosed`, and `LinkEnded` when there is none."""
    with trio.move_on_after(WELCOME_S):
        await link.send((encode(hello),))
        while True:
            message = await link.receive_one()
            if isinstance(message, bytes):
                continue
            try:
                reads = from_gateway.decode(message)
            except ProtocolViolation as error:
                raise LinkEnded(f"The gateway answered hello with something else: {error}.") from None
            for read in reads:
                if not isinstance(read, BadFrame) and isinstance(read.frame, Welcome):
                    return read.frame
                log.warning("instead of a welcome: %s", read.message if isinstance(read, BadFrame) else read.text)
    raise LinkEnded(f"The gateway did not answer hello within {WELCOME_S:.0f} s.")


@dataclass(frozen=True, slots=True, kw_only=True)
class SessionNeeds:
    """What a session works with; all of it belongs to the client and outlives the session."""

    outbox: Outbox
    commands: Commands
    operations: Operations
    snapshots: Snapshots
    followings: Followings
    token_provider: TokenProvider
    full_state: Callable[[], Awaitable[None]]
    leases: NodeLeases
    tasks: TaskNews
    round_trip: RoundTrip
    pace: UploadPace
    is_locked_out: Callable[[], bool]
    hardware: Hardware
    graph_revision: Callable[[], int | None]
    now_ms: MonotonicMs


class Session:
    """Made after the welcome; `run` ends with the link."""

    def __init__(self, link: Link, welcome: Welcome, *, arrivals: Arrivals, token: Token, needs: SessionNeeds) -> None:
        """`arrivals` has measured the welcome when it came: what is done with it before this may take its time."""
        self._link = link
        self._needs = needs
        self._token = token
        self._beat_s = min(max(welcome.heartbeat_s, SHORTEST_BEAT_S), LONGEST_BEAT_S)
        self._arrivals = arrivals
        self._lanes = Lanes(needs.snapshots)
        self._durable = DurableSender(needs.outbox, self._lanes, welcome.limits, hub_has=welcome.acked_seq)
        self._calls = Calls(needs.operations, limits=welcome.limits, lanes=self._lanes)
        self._reconnect_after_s = 0.0
        self._leave_at = math.inf

    def wake_writer(self) -> None:
        """There is a snapshot to send."""
        self._lanes.wake()

    def command_undone(self, command_id: CommandId) -> None:
        """A command could not be written down, and so was not run."""
        self._error(ErrorCode.INTERNAL, "storage_full", "The node's disk takes nothing; not run.", str(command_id))

    async def run(self) -> LinkEnded:
        """Works until the link ends and says how. Cancelled, a message may have been cut: the link has ended then."""
        ends: list[LinkEnded] = []
        try:
            async with trio.open_nursery() as nursery:
                nursery.start_soon(self._link.keep)
                nursery.start_soon(self._read)
                nursery.start_soon(self._write)
                nursery.start_soon(self._watch)
                nursery.start_soon(self._renew_token)
                nursery.start_soon(self._durable.run)
                nursery.start_soon(self._calls.run)
                nursery.start_soon(self._needs.followings.keep, self._lanes.control)
                nursery.start_soon(self._needs.pace.keep, self._lanes.control)
                self._needs.snapshots.all_due()
                self._lanes.wake()
                nursery.start_soon(self._needs.full_state)
        except* LinkClosed as group:
            ends += map(LinkEnded.of, leaves(group))
        except* LinkEnded as group:
            ends += leaves(group)
        except* ControlLaneFull:
            ends.append(LinkEnded("The gateway asks and does not read the answers."))
        end = next((end for end in ends if end.code is not None), ends[0])
        end.retry_after_s = max(end.retry_after_s, self._reconnect_after_s)
        return end

    async def _write(self) -> None:
        """The only task that sends; a write has the link's own deadline."""
        while True:
            batch = self._lanes.take()
            if not batch:
                await self._lanes.wait()
                continue
            began = trio.current_time()
            await self._link.send(batch)
            self._lanes.pieces.wrote(sum(map(len, batch)), took_s=trio.current_time() - began)

    async def _watch(self) -> None:
        """A gateway that beats faster than the link asks for life is missed sooner, and one that leaves is left."""
        dead_after_s = min(self._beat_s * DEAD_AFTER_BEATS, DEAD_AFTER_S)
        while True:
            now = trio.current_time()
            dead_at = self._link.last_received_at + dead_after_s
            if now >= self._leave_at:  # asked first: who said goodbye has a reason to be silent
                raise LinkEnded("The gateway said that it goes away, and stayed.")
            if now >= dead_at:
                raise LinkEnded(f"Nothing came from the gateway for {dead_after_s:.1f} s.")
            await trio.sleep_until(min(dead_at, self._leave_at))

    async def _renew_token(self) -> None:
        lifetime_s = self._token.lifetime_s
        while lifetime_s is not None:
            await trio.sleep(lifetime_s * RENEW_AT)
            try:
                token = as_token(await self._needs.token_provider())
            except Exception as error:  # noqa: BLE001 - not ours; the token we have still holds for a while
                log.warning("no newer token: %s", error)
                lifetime_s = max(lifetime_s * (1 - RENEW_AT), RENEW_AGAIN_S)
                continue
            self._lanes.control(encode(AuthRefresh(token=token.value)))
            lifetime_s = token.lifetime_s

    async def _read(self) -> None:
        while True:
            for message in await self._link.receive():
                self._take(message)

    def _take(self, message: str | bytes) -> None:
        if isinstance(message, bytes):
            self._error(ErrorCode.INVALID, "invalid", "A gateway sends no binary messages.", None)
            return
        try:
            reads = from_gateway.decode(message)
        except ProtocolViolation as error:
            self._error(ErrorCode.INVALID, "invalid", f"Not a frame: {error}.", None)
            return
        for read in reads:
            if isinstance(read, BadFrame):
                self._error(ErrorCode.INVALID, "invalid", read.message, read.id)
            else:
                self._dispatch(read.frame)

    def _dispatch(self, frame: GatewayFrame) -> None:
        match frame:
            case EventCommand():
                self._command(frame)
            case EventManualControlLease():
                self._needs.leases.take(frame, age_ms=self._arrivals.measure(frame.t_ms))
            case EventTaskChanged():
                self._arrivals.measure(frame.t_ms)
                self._needs.tasks.take(frame)
            case EventTasksAvailable():
                self._arrivals.measure(frame.t_ms)
                self._needs.tasks.take_offer(frame)
            case EventGraphChanged():
                self._needs.hardware.told(frame.revision)
            case CancelCommand():
                self._arrivals.measure(frame.t_ms)
                self._or_busy(lambda: self._needs.commands.cancel(frame), str(frame.command_id))
            case QueryCommand():
                self._or_busy(lambda: self._needs.commands.tell(frame.command_ids), None)
            case DirectRequest():
                self._direct(frame)
            case DirectCredit():
                self._calls.credit(frame.id, frame.bytes)
            case DirectCancel():
                self._calls.cancel(frame.id)
            case Ack():
                if frame.outbox_uid == self._needs.outbox.outbox_uid:
                    self._durable.acked(frame.seq)
            case Nack():
                if frame.outbox_uid == self._needs.outbox.outbox_uid:
                    self._durable.nacked(frame.seq, frame.reason)
            case Ping():
                if frame.t_ms is not None:
                    self._arrivals.measure(frame.t_ms)
                self._lanes.control(encode(Pong(id=frame.id)))
            case FollowedSnapshot():
                self._needs.followings.take(frame, self._arrivals)
            case EventLive():
                self._needs.followings.became_live(frame)
            case EventSubscriptionEnded():
                self._needs.followings.ended(frame)
            case Goaway():
                self._reconnect_after_s = frame.reconnect_after_ms / 1000
                self._leave_at = trio.current_time() + self._reconnect_after_s + GOAWAY_S
                log.info("the gateway is about to close: %s", frame.reason)
            case EventToken():
                log.info("the gateway says of the token: %s", frame.state.value)
            case Error():
                self._told_of_error(frame)
            case Pong():
                self._needs.round_trip.answered(frame.id)
            case Welcome():
                pass  # a second one means nothing

    def _command(self, frame: EventCommand) -> None:
        commands = self._needs.commands
        if is_safing(command_type(frame)):
            self._arrivals.measure(frame.t_ms)
            self._or_busy(lambda: commands.take(frame, remaining_s=None), str(frame.command_id))
            return
        remaining = self._arrivals.judge(t_ms=frame.t_ms, epoch=frame.epoch, deadline_ms=frame.deadline_ms)
        judge = partial(self._judge, frame)
        if isinstance(remaining, TooLate):
            self._refuse(frame, self._locked_out() or remaining)
        elif (refused := judge()) is not None:
            self._refuse(frame, refused)
        else:
            remaining_s = remaining
            self._or_busy(lambda: commands.take(frame, remaining_s=remaining_s, judge=judge), str(frame.command_id))

    def _refuse(self, frame: EventCommand, why: TooLate) -> None:
        log.warning("command refused: %s", why.message, extra={"command_id": str(frame.command_id)})
        refuse = partial(self._needs.commands.refuse, frame, reason=why.reason, message=why.message)
        self._or_busy(refuse, str(frame.command_id))

    def _locked_out(self) -> TooLate | None:
        if not self._needs.is_locked_out():
            return None
        return TooLate("local_control", "Somebody on site has taken control: only a stop gets through.")

    def _judge(self, frame: EventCommand) -> TooLate | None:
        """Why this is not run, whatever time it has, in the order of the protocol."""
        if (locked_out := self._locked_out()) is not None:
            return locked_out
        uid = frame.fence_uid or frame.device_uid or frame.telescope_uid
        if frame.fence is not None and uid is not None and (stale := self._needs.leases.judge(uid, frame.fence)):
            return stale
        mine, meant = self._needs.graph_revision(), frame.graph_revision
        if mine is not None and meant is not None and mine != meant:
            return TooLate("configuration_changed", f"The hardware is at revision {mine} here, not at {meant}.")
        return None

    def _direct(self, frame: DirectRequest) -> None:
        remaining = self._arrivals.judge(t_ms=frame.t_ms, epoch=frame.epoch, deadline_ms=frame.deadline_ms)
        if isinstance(remaining, TooLate):
            self._lanes.control(
                direct_error(frame.id, ErrorCode.CONFLICT, remaining.message, {"reason": remaining.reason})
            )
        elif remaining is not None:
            self._calls.take(frame, remaining_s=remaining)

    def _told_of_error(self, frame: Error) -> None:
        log.warning("the gateway says: %s", frame.message, extra={"code": frame.code.value, "about": frame.id})
        if frame.details is not None and frame.details.value.get("reason") == "out_of_order":
            raise LinkEnded("The gateway waits for another report than was sent; starting over from its cursor.")
        if frame.id is not None:
            self._needs.followings.refused(frame.id, frame.message)

    def _or_busy(self, take: Callable[[], None], about: str | None) -> None:
        try:
            take()
        except TooManyCommands:
            self._error(ErrorCode.CONFLICT, "busy", "The node has too many commands going on.", about)

    def _error(self, code: ErrorCode, reason: str, message: str, about: str | None) -> None:
        details = Opaque.of({"reason": reason})
        self._lanes.control(
            encode(Error(code=code, message=message[:2_000], details=details, id=about and about[:250]))
        )


ErrorT = TypeVar("ErrorT", bound=Exception)


def leaves(group: ExceptionGroup[ErrorT]) -> list[ErrorT]:
    """The errors in a group and in the groups inside it."""
    found: list[ErrorT] = []
    for error in group.exceptions:
        found += leaves(error) if isinstance(error, ExceptionGroup) else [error]
    return found


def as_token(given: str | Token) -> Token:
    return given if isinstance(given, Token) else Token(given)
