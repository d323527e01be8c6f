"""From an accepted socket to a running session: `hello`, instance rule, epoch, takeover, goodbye."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from typing import Protocol

import trio

from skygw.errors import RoutingUnavailable
from skygw.ids import Epoch
from skygw.nodes.arrivals import AT_ONCE, PAUSE_TURNS, ArrivalLine
from skygw.nodes.connection_registry import ConnectionRegistry, Refusal
from skygw.nodes.link import NodeLink, say_goodbye
from skygw.nodes.ports import Binding, Claim, Ending, EpochLedger, SessionPorts
from skygw.nodes.rates import InboundRates
from skygw.nodes.session import NodeSession, SessionRules
from skygw.protocol.close_codes import CloseCode, fitted_reason
from skygw.protocol.codec import BadFrame, ProtocolViolation, from_node
from skygw.protocol.node_frames import Hello
from skygw.turnstile import Turnstile
from skygw.websocket import LinkClosed

log = logging.getLogger("skygw.nodes")


@dataclass(frozen=True, slots=True)
class Arrival:
    """An authenticated socket that has not said `hello` yet. `token_expires_at`: seconds of the epoch.

    `token_to_recheck` is set for a token that only its issuer can vouch for: the session asks about it again and again.
    """

    link: NodeLink
    binding: Binding
    token_expires_at: float
    address: str
    token_to_recheck: str | None = field(default=None, repr=False)


class _TurnedAway(Exception):
    def __init__(self, code: CloseCode, reason: str) -> None:
        super().__init__(reason)
        self.code = code
        self.reason = reason


class SessionWitness(Protocol):
    """Is told of every session that was admitted. Never waits."""

    def session_began(self, session: NodeSession) -> None:
        """Comes before anything the node says."""
        ...

    def session_ended(self, session: NodeSession, ending: Ending) -> None:
        """Of a session that was superseded it comes after the newer one's begin."""
        ...


class NodeDoor:
    """Admits node sockets. One per process."""

    def __init__(
        self,
        *,
        registry: ConnectionRegistry,
        epochs: EpochLedger,
        rules: SessionRules,
        ports: SessionPorts,
        witnesses: Sequence[SessionWitness],
    ) -> None:
        self._registry = registry
        self._epochs = epochs
        self._rules = rules
        self._ports = ports
        self._rates = InboundRates(frames_per_s=rules.frames_per_s, bytes_per_s=rules.bytes_per_s)
        self._witnesses = witnesses
        self._draining = False
        self.handshakes = ArrivalLine()
        """Where a node stands until its token is looked at."""
        self._welcomes = Turnstile(pause_turns=PAUSE_TURNS, at_once=AT_ONCE)

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """Admits nobody from now on."""
        self._draining = True

    async def serve(self, arrival: Arrival) -> None:
        """Runs one socket to its end. Never raises for what the node does; cancelled, the connection is dropped."""
        try:
            hello = await self._hello(arrival)
            session = await self._open(arrival, hello)
        except _TurnedAway as refusal:
            self._ports.metrics.node_refused(refusal.code.name.lower())
            self._registry.refused(
                arrival.binding.install_id,
                Refusal(datetime.now(UTC), int(refusal.code), refusal.reason, arrival.address),
            )
            log.info("node turned away", extra={"code": int(refusal.code), "reason": refusal.reason})
            await say_goodbye(arrival.link, int(refusal.code), fitted_reason(refusal.reason))
            return
        except LinkClosed:
            return
        except BaseException:
            arrival.link.abort()
            raise
        self._ports.metrics.session_started()
        for witness in self._witnesses:
            witness.session_began(session)
        try:
            await session.run()
        finally:
            ending = session.ending_or_lost()
            self._registry.release(session, ending)
            for witness in self._witnesses:
                witness.session_ended(session, ending)
            self._ports.metrics.session_ended(ending.code)
            log.info("node gone", extra={"epoch": session.epoch, "code": ending.code, "reason": ending.reason})

    async def _hello(self, arrival: Arrival) -> Hello:
        with trio.move_on_after(self._rules.hello_timeout_s):
            message = await arrival.link.receive_one()
            if isinstance(message, bytes):
                raise _TurnedAway(CloseCode.PROTOCOL_VIOLATION, "`hello` comes first, and it is text")
            try:
                frames = from_node.decode(message)
            except ProtocolViolation as violation:
                raise _TurnedAway(CloseCode.PROTOCOL_VIOLATION, str(violation)) from None
            first = frames[0] if len(frames) == 1 else None
            if isinstance(first, BadFrame):
                raise _TurnedAway(CloseCode.PROTOCOL_VIOLATION, first.message)
            if first is None or not isinstance(first.frame, Hello):
                raise _TurnedAway(CloseCode.PROTOCOL_VIOLATION, "`hello` comes first and alone")
            return first.frame
        raise _TurnedAway(CloseCode.PROTOCOL_VIOLATION, f"no `hello` within {self._rules.hello_timeout_s:g} s")

    async def _open(self, arrival: Arrival, hello: Hello) -> NodeSession:
        binding = arrival.binding
        if hello.install_id != binding.install_id:
            raise _TurnedAway(CloseCode.FORBIDDEN, "`hello.install_id` is not the installation of the token")
        if hello.node_type != binding.node_type:
            raise _TurnedAway(CloseCode.FORBIDDEN, f"this installation is registered as {binding.node_type}")
        self._refuse_rival(hello)
        try:
            claim = await self._epochs.claim(
                install_id=binding.install_id,
                instance_uid=hello.instance_uid,
                last_epoch=hello.last_epoch,
                last_fences={uid: fence for uid, fence in hello.last_fences.items() if uid in binding.controls},
            )
            acked_seq = await self._ports.reports.acked_seq(binding.install_id, hello.outbox_uid)
        except RoutingUnavailable:
            claim, acked_seq = self._claim_from_memory(hello)
        await self._welcomes.passed()  # those who were claimed for together would all begin, and take over, at once
        # Meanwhile another machine may have come in.
        self._refuse_rival(hello)
        if self._draining:
            raise _TurnedAway(CloseCode.DRAINING, "the gateway is draining")
        session = NodeSession(
            link=arrival.link,
            hello=hello,
            binding=binding,
            claim=claim,
            acked_seq=acked_seq,
            token_expires_at=arrival.token_expires_at,
            token_to_recheck=arrival.token_to_recheck,
            address=arrival.address,
            rules=self._rules,
            ports=self._ports,
            rate=self._rates.of(binding.install_id),
        )
        if not self._registry.take_over(session):
            raise _TurnedAway(CloseCode.SUPERSEDED, "a newer connection of this installation took over")
        log.info(
            "node connected",
            extra={"install_id": str(binding.install_id), "epoch": claim.epoch, "version": hello.software_version},
        )
        return session

    def _claim_from_memory(self, hello: Hello) -> tuple[Claim, int]:
        """Lets the machine that was here before back in without the database, which may not keep a stop from it.

        The epoch is above all that this process and the node know of; the ledger learns of it from the node's next
        `hello`. What the node reports waits for the database like everybody's.
        """
        standing = self._registry.standing(hello.install_id)
        known = standing is not None and (standing.instance_uid, standing.outbox_uid) == (
            hello.instance_uid,
            hello.outbox_uid,
        )
        if standing is None or not known:
            raise _TurnedAway(CloseCode.DRAINING, "the gateway's database is away; come back")
        epoch = Epoch(max(standing.claim.epoch, hello.last_epoch) + 1)
        log.warning("node admitted without the database", extra={"epoch": epoch})
        return Claim(epoch, standing.claim.registry_uid), standing.acked_seq

    def _refuse_rival(self, hello: Hello) -> None:
        rival = self._registry.rival(hello.install_id, hello.instance_uid)
        if rival is not None:
            raise _TurnedAway(
                CloseCode.DUPLICATE_INSTANCE,
                f"duplicate_instance: another machine holds this installation, from {rival.address}",
            )
