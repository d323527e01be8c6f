"""Control of a telescope as its holder has it: a lease is acquired, kept from running out, and given back."""

import logging
import math
from collections.abc import Awaitable, Callable
from uuid import UUID, uuid4

import trio

from skygw.client import internal_api as api
from skygw.client.internal_api import Call, Record
from skygw.errors import Forbidden, GatewayError, LeaseExpired, LinkLost, NotFound, Outcome, StaleFence
from skygw.ids import LeaseId, LeaseUid
from skygw.protocol.gateway_frames import OnExpiry

log = logging.getLogger("skygw.client")

DURATION_S = 300.0
PART = 3.0
"""A lease is renewed when this part of its time, or of its holder's longest silence, is over."""

RETRY_S = 1.0
"""After a renewal that got no answer: the next one, while the lease still lasts."""

PATIENCE_S = 10.0
"""The longest that acquiring a lease and giving one back take; neither can be cancelled."""

LOST = (LeaseExpired, StaleFence, NotFound, Forbidden)
"""Refusals of a renewal that no other try changes."""

Ask = Callable[[Call], Awaitable[Record]]


class ControlLease:
    """A lease that is held. Its secret is for its holder alone; `record` is the lease as it was granted."""

    def __init__(self, record: Record, lease_uid: LeaseUid, actor: Record | None, *, until: float) -> None:
        self.record = record
        self.lease_id = LeaseId(UUID(record["id"]))
        self.lease_uid = lease_uid
        self.actor = actor
        self.fence: int = record["fence"]
        self.duration_s: float = record["durationS"]
        self.until = until
        """By the clock of trio: it lasts so long at least, unless somebody takes it."""
        self.lost: GatewayError | None = None
        """Why control is gone, if it is."""

    async def keep(self, ask: Ask, block: trio.CancelScope) -> None:
        """Renews it until that is refused, or it has run out unanswered: then cancels the block that needs it."""
        every_s = min(self.duration_s, self.record["deadmanS"] or math.inf) / PART
        renewal = api.renew_lease_call(self.lease_id, self.lease_uid, actor=self.actor)
        wait_s = every_s
        while self.lost is None:
            await trio.sleep(wait_s)
            asked_at = trio.current_time()
            try:
                with trio.fail_at(self.until):
                    await ask(renewal)
            except LOST as error:
                self.lost = error
            except (GatewayError, trio.TooSlowError) as error:
                wait_s = min(every_s, RETRY_S)
                if trio.current_time() + wait_s >= self.until:
                    self.lost = LeaseExpired(f"The lease could not be renewed in time: {str(error) or 'no answer'}")
            else:
                self.until, wait_s = asked_at + self.duration_s, every_s
        block.cancel()

    async def give_back(self, ask: Ask) -> None:
        """Ends it, also when cancelled; nothing if it is lost. Where that fails the log says so: it will run out."""
        if self.lost is not None:
            return
        problem = f"no answer in {PATIENCE_S:.0f} s."
        with trio.move_on_after(PATIENCE_S, shield=True):
            try:
                await ask(api.release_lease_call(self.lease_id, self.lease_uid, actor=self.actor))
            except GatewayError as error:
                problem = str(error)
            else:
                return
        left_s = max(0.0, self.until - trio.current_time())
        log.warning(
            "a lease was not given back (%s): it runs out in %.0f s, and the node does what its on_expiry, %s, says",
            problem,
            left_s,
            self.record["onExpiry"],
        )


async def acquire(
    ask: Ask,
    *,
    telescope_uid: UUID | None,
    device_uid: UUID | None,
    duration_s: float,
    on_expiry: OnExpiry | None,
    deadman_s: float | None,
    actor: Record | None,
) -> ControlLease:
    """Takes control; asks again where an answer was lost. Cancelling waits for the answer: of a lease that nobody knows
    of there is only the end. Raises `LeaseHeld`, `LinkLost`, and whatever else the gateway says.
    """
    lease_uid = LeaseUid(uuid4())
    call = api.lease_call(
        lease_uid,
        telescope_uid=telescope_uid,
        device_uid=device_uid,
        duration_s=duration_s,
        on_expiry=on_expiry,
        deadman_s=deadman_s,
        actor=actor,
    )
    with trio.move_on_after(PATIENCE_S, shield=True):
        while True:
            asked_at = trio.current_time()
            try:
                record = await ask(call)
            except LinkLost as error:
                if error.outcome is not Outcome.UNKNOWN:
                    raise
                await trio.sleep(RETRY_S)
            else:
                return ControlLease(record, lease_uid, actor, until=asked_at + duration_s)
    raise LinkLost(
        f"No answer in {PATIENCE_S:.0f} s: if the lease was given, it runs out by itself.", outcome=Outcome.UNKNOWN
    )
