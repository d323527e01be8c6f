"""Leases: acquired, renewed, ended; each change is told to subscribers and to the node, which acts on its own clock.

The ledger decides. What is told is told after the commit, and again to every node that comes: a frame that is lost with
a link is not missed.
"""

import logging
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Any

import trio

from skygw.control.allow_list import AllowList
from skygw.control.lease import (
    Control,
    Ending,
    Holder,
    Lease,
    LeaseLedger,
    LeaseProof,
    LeaseQuery,
    LeaseWish,
    Terms,
)
from skygw.control.task_aborts import TaskAborts
from skygw.errors import LinkLost, NotFound, RoutingUnavailable
from skygw.ids import InstallId, LeaseId, TelescopeUid
from skygw.nodes.connection_registry import ConnectionRegistry
from skygw.nodes.outbox import Lane
from skygw.nodes.ports import Ending as SessionEnding
from skygw.nodes.session import NodeSession
from skygw.protocol.gateway_frames import EventManualControlLease, LeaseEnd
from skygw.protocol.json_text import Opaque, compact
from skygw.protocol.streams import StreamName
from skygw.telemetry.retained import RetainedValues
from skygw.telemetry.value import utc

if TYPE_CHECKING:
    from uuid import UUID

log = logging.getLogger("skygw.control")

LOOK_EVERY_S = 1.0
"""How long a lease that is over may stand. It holds no longer for that: it is by the clock that it is judged."""
RETRY_S = 1.0
SESSIONS_AT_ONCE = 50
"""Nodes that came together are looked up together."""


class LeaseService:
    """Its `run` ends what is over, and tells nodes that came what is held. Told of every session."""

    def __init__(
        self,
        *,
        ledger: LeaseLedger,
        registry: ConnectionRegistry,
        retained: RetainedValues,
        aborts: TaskAborts,
        allowed: AllowList,
    ) -> None:
        self._ledger = ledger
        self._registry = registry
        self._retained = retained
        self._aborts = aborts
        self._allowed = allowed
        self._newest: dict[UUID, tuple[int, int]] = {}
        """Of each resource, the newest that was told: a reading that was under way meanwhile is older."""
        self._came: dict[InstallId, NodeSession] = {}
        self._somebody_came = trio.Event()

    # Callers. Each raises what the ledger raises, and `Forbidden` if the service may not act there.

    async def acquire(self, wish: LeaseWish) -> tuple[Control, bool]:
        """The lease, and whether it is a new one."""
        await self._allowed.require(wish.holder.service, wish.kind, wish.target)
        asked_at = trio.current_time()
        control, changed = await self._ledger.acquire(wish)
        self._tell(changed, asked_at)
        if changed and control.lease is not None:
            self._aborts.lease_granted(control.lease)
        return control, bool(changed)

    async def renew(self, lease_id: LeaseId, proof: LeaseProof, terms: Terms | None) -> Control:
        await self._require(proof.holder, lease_id)
        asked_at = trio.current_time()
        control = await self._ledger.renew(lease_id, proof, terms)
        self._tell([control], asked_at)
        return control

    async def release(self, lease_id: LeaseId, proof: LeaseProof) -> Control:
        """For whoever holds it, wherever that is: it is given back."""
        return await self._end(lease_id, Ending(LeaseEnd.RELEASED), proof)

    async def break_off(self, lease_id: LeaseId, by: Holder, reason: str) -> Control:
        """Takes control from its holder; what runs goes on until somebody stops it."""
        await self._require(by, lease_id)
        return await self._end(lease_id, Ending(LeaseEnd.BROKEN, by, reason), None)

    async def get(self, lease_id: LeaseId) -> Control:
        control = await self._ledger.get(lease_id)
        if control is None:
            raise NotFound(f"No lease {lease_id} is known.")
        return control

    async def page(self, query: LeaseQuery) -> tuple[Sequence[Control], int]:
        return await self._ledger.page(query)

    async def _require(self, who: Holder, lease_id: LeaseId) -> None:
        if not self._allowed.names(who.service):
            return
        lease = (await self.get(lease_id)).lease
        if lease is not None:
            await self._allowed.require(who.service, lease.resource.kind, lease.resource.uid)

    async def _end(self, lease_id: LeaseId, ending: Ending, proof: LeaseProof | None) -> Control:
        asked_at = trio.current_time()
        control = await self._ledger.end(lease_id, ending, proof)
        self._tell([control], asked_at)
        return control

    # What is told.

    def _tell(self, controls: Iterable[Control], asked_at: float) -> None:
        """To subscribers, and to the nodes they are about. `asked_at`: on trio's clock, before the ledger was asked."""
        for control in controls:
            if not self._is_news(control):
                continue
            self._say(control.lease)
            session = self._registry.controlling(TelescopeUid(control.uid))
            if session is not None:
                _send(session, control, asked_at)

    def _is_news(self, control: Control) -> bool:
        if control.order < self._newest.get(control.uid, (0, 0)):
            return False
        self._newest[control.uid] = control.order
        return True

    def _say(self, lease: Lease | None) -> None:
        if lease is not None:
            self._retained.say(
                StreamName.MANUAL_CONTROL_LEASE,
                lease.resource,
                compact.encode(_told(lease)),
                order=(lease.fence, lease.revision),
            )

    # What sessions tell (never waits).

    def session_began(self, session: NodeSession) -> None:
        self._came[session.binding.install_id] = session
        self._somebody_came.set()

    def session_ended(self, session: NodeSession, ending: SessionEnding) -> None:  # noqa: ARG002 - how is no matter
        self._is_told(session)

    # Its own tasks.

    async def run(self) -> None:
        """Until cancelled. Waits out a ledger that is away: what is over does not hold meanwhile."""
        async with trio.open_nursery() as nursery:
            nursery.start_soon(self._end_what_is_over)
            nursery.start_soon(self._tell_who_came)

    async def _end_what_is_over(self) -> None:
        is_begun = False
        while True:
            asked_at = trio.current_time()
            try:
                if not is_begun:
                    self._tell(await self._ledger.controls(None), asked_at)
                    is_begun = True
                ended = await self._ledger.expire()
            except RoutingUnavailable as error:
                await trio.sleep(error.retry_after_s or RETRY_S)
                continue
            for control in ended:
                log.info("lease is over", extra={"uid": str(control.uid), "fence": control.fence})
            self._tell(ended, asked_at)
            await trio.sleep(LOOK_EVERY_S)

    async def _tell_who_came(self) -> None:
        while True:
            await self._somebody_came.wait()
            self._somebody_came = trio.Event()
            while self._came:
                some = list(self._came.values())[:SESSIONS_AT_ONCE]
                asked_at = trio.current_time()
                try:
                    controls = await self._ledger.controls({uid for one in some for uid in one.binding.controls})
                except RoutingUnavailable as error:
                    await trio.sleep(error.retry_after_s or RETRY_S)
                    continue
                for session in some:
                    self._is_told(session)
                for control in controls:
                    if self._is_news(control):
                        for session in some:
                            if control.uid in session.binding.controls:
                                _send(session, control, asked_at)

    def _is_told(self, session: NodeSession) -> None:
        if self._came.get(session.binding.install_id) is session:
            del self._came[session.binding.install_id]


def _told(lease: Lease) -> dict[str, object]:
    """What everybody may know of a lease; its secret is not among it."""
    ending = lease.ending
    by = None if ending is None else ending.by
    return {
        "uid": str(lease.resource.uid),
        "lease_id": str(lease.lease_id),
        "state": "held" if ending is None else ending.how.value,
        "holder": lease.holder.said() if ending is None else None,
        "former_holder": None if ending is None else lease.holder.said(),
        "fence": lease.fence,
        "acquired_at": utc(lease.acquired_at),
        "expires_at": utc(lease.expires_at),
        "warn_at": utc(lease.expires_at - timedelta(seconds=lease.terms.warn_s)),
        "on_expiry": lease.terms.on_expiry.value,
        "deadman_s": lease.terms.deadman_s,
        "while_task": lease.while_task.value,
        "ended_at": None if lease.ended_at is None else utc(lease.ended_at),
        "ended_by": None if by is None else by.said(),
        "reason": None if ending is None else ending.reason,
    }


def _send(session: NodeSession, control: Control, asked_at: float) -> None:
    """Before whatever command goes under it: a lease overtakes all but safing."""
    is_telescope = control.uid in session.binding.telescopes
    said: dict[str, Any] = {"telescope_uid" if is_telescope else "enclosure_uid": control.uid}
    held = control.held
    if held is not None:
        left_s = max(0.0, control.left_s - (trio.current_time() - asked_at))
        said |= {
            "holder": Opaque.of(held.holder.said()),
            "expires_in_ms": int(left_s * 1000),
            "warn_in_ms": int(max(0.0, left_s - held.terms.warn_s) * 1000),
            "on_expiry": held.terms.on_expiry,
            "deadman_ms": None if held.terms.deadman_s is None else int(held.terms.deadman_s * 1000),
        }
    elif control.lease is not None and control.lease.ending is not None:
        said["ended"] = control.lease.ending.how
    try:
        session.put(
            Lane.SAFETY,
            EventManualControlLease(**said, fence=control.fence, revision=control.order[1], t_ms=session.t_ms()),
        )
    except LinkLost:
        log.debug("not told to a session that is ending: a lease of %s", control.uid)
