"""Who has control here, and what the node does by itself when nobody has any more: on its own clock, link or no link.

A lease is known from the hub's frames and held in memory; its fence is on the disk. A program that starts begins
without leases: what it finds moving then is its own to judge.
"""

import logging
import math
from collections.abc import Awaitable, Callable, Iterator
from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

import trio

from skygw.client.arrival import TooLate
from skygw.ids import DeviceUid, TelescopeUid
from skygw.protocol.gateway_frames import EventManualControlLease, LeaseEnd, OnExpiry
from skygw.protocol.json_text import Opaque

log = logging.getLogger("skygw.client")


class WhyOver(StrEnum):
    """Why the node acts by itself."""

    EXPIRED = "expired"
    SILENT = "silent"
    """The dead-man's time: neither a command under the lease came, nor a renewal of it."""


@dataclass(frozen=True, slots=True)
class LeaseOver:
    """What is to be done now, by whom it is not done any more, and where: exactly one of the uids is set."""

    telescope_uid: TelescopeUid | None
    enclosure_uid: DeviceUid | None
    policy: OnExpiry
    why: WhyOver
    holder: Opaque


LeaseHandler = Callable[[LeaseOver], Awaitable[None]]


class HeldLease:
    """One lease as the node knows it. The moments are on trio's clock; infinite is never."""

    def __init__(self, uid: UUID, frame: EventManualControlLease, holder: Opaque, *, age_s: float) -> None:
        now = trio.current_time()
        self.uid = uid
        self.fence = frame.fence
        self.revision = frame.revision
        self.holder = holder
        self.policy = frame.on_expiry or OnExpiry.SAFE_SHUTDOWN
        self.expires_at = now + frame.expires_in_ms / 1000 - age_s
        self.warn_at = math.inf if frame.warn_in_ms is None else now + frame.warn_in_ms / 1000 - age_s
        self.deadman_s = math.inf if frame.deadman_ms is None else frame.deadman_ms / 1000
        self.silent_at = now + self.deadman_s
        self.is_over = False
        self._frame = frame

    def heard(self) -> None:
        """A command came under it."""
        self.silent_at = trio.current_time() + self.deadman_s

    @property
    def next_at(self) -> float:
        return math.inf if self.is_over else min(self.expires_at, self.warn_at, self.silent_at)

    def over(self, why: WhyOver) -> LeaseOver:
        return LeaseOver(self._frame.telescope_uid, self._frame.enclosure_uid, self.policy, why, self.holder)


class NodeLeases:
    """All leases of a node; belongs to the client and outlives its links. Only `run` waits."""

    def __init__(self, accept_fence: Callable[[UUID, int], bool], handler: LeaseHandler | None) -> None:
        """`accept_fence` says whether a fence is the highest of its telescope or device, and keeps a higher one."""
        self._accept_fence = accept_fence
        self._handler = handler
        self._held: dict[UUID, HeldLease] = {}
        self._changed = trio.Event()

    def __iter__(self) -> Iterator[HeldLease]:
        return iter(list(self._held.values()))

    def take(self, frame: EventManualControlLease, *, age_ms: float) -> None:
        """A begin, a renewal or an end, `age_ms` after it was said. One that is older than what is known is ignored."""
        uid = frame.telescope_uid or frame.enclosure_uid
        if uid is None or not self._accept_fence(uid, frame.fence):
            return
        held = self._held.get(uid)
        self._changed.set()
        if frame.holder is not None:
            # Told again after a welcome, it is no sign of life of its holder.
            if held is None or (held.fence, held.revision) < (frame.fence, frame.revision):
                self._held[uid] = HeldLease(uid, frame, frame.holder, age_s=age_ms / 1000)
            return
        if held is not None and frame.ended is LeaseEnd.EXPIRED and not held.is_over:
            held.expires_at = trio.current_time()  # it is kept until its policy has been followed
        elif held is not None:
            del self._held[uid]

    def judge(self, uid: UUID, fence: int) -> TooLate | None:
        """Why a command under this fence is not run, if it is not. One that is run is a sign of life of the holder."""
        if not self._accept_fence(uid, fence):
            return TooLate("stale_fence", f"The fence {fence} is not the newest of {uid}.")
        held = self._held.get(uid)
        if held is None or held.fence != fence:
            return None
        if held.is_over or held.expires_at <= trio.current_time():
            return TooLate("lease_expired", f"The lease of {uid} has expired here.")
        held.heard()
        self._changed.set()
        return None

    async def run(self) -> None:
        """Follows the policies in time, until cancelled; what was begun then is cancelled too."""
        async with trio.open_nursery() as nursery:
            while True:
                due = [held for held in self if held.next_at <= trio.current_time()]
                for held in due:
                    self._act(held, nursery)
                self._changed = trio.Event()
                with trio.move_on_at(min((held.next_at for held in self), default=math.inf)):
                    await self._changed.wait()

    def _act(self, held: HeldLease, nursery: trio.Nursery) -> None:
        now = trio.current_time()
        if held.expires_at <= now:
            held.is_over = True
            nursery.start_soon(self._follow, held.over(WhyOver.EXPIRED))
        elif held.silent_at <= now:
            held.silent_at = math.inf  # once, until the holder is heard again
            nursery.start_soon(self._follow, held.over(WhyOver.SILENT))
        else:
            held.warn_at = math.inf
            log.warning("the lease of %s ends in %.0f s unless it is renewed", held.uid, held.expires_at - now)

    async def _follow(self, over: LeaseOver) -> None:
        about = over.telescope_uid or over.enclosure_uid
        log.warning("the holder of %s is gone (%s); following the policy %s", about, over.why, over.policy)
        if self._handler is None:
            return
        try:
            await self._handler(over)
        except Exception:  # the handler is not ours: it ends this attempt and nothing else
            log.exception("following the policy of a lease failed")
