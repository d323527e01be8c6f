"""The manual control lease: who has control of a telescope or of a shared device, until when, and under which fence."""

import hashlib
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID

from skygw.ids import DeviceUid, LeaseId, LeaseUid, TaskUid, TelescopeUid
from skygw.protocol.gateway_frames import LeaseEnd, OnExpiry
from skygw.resources import Resource, ResourceKind

SHORTEST_S = 1.0
LONGEST_S = 4 * 3600.0
"""A lease is renewed; whoever is gone does not keep a telescope for a night."""


@dataclass(frozen=True, slots=True)
class Holder:
    """A service, and the person behind it if it named one. Both together are who holds a lease."""

    service: str
    actor_uid: str | None = None
    actor_kind: str | None = None

    @property
    def actor(self) -> dict[str, str] | None:
        if self.actor_uid is None or self.actor_kind is None:
            return None
        return {"uid": self.actor_uid, "kind": self.actor_kind}

    def said(self) -> dict[str, Any]:
        """As others are told."""
        return {"service": self.service} if self.actor is None else {"service": self.service, "actor": self.actor}


@dataclass(frozen=True, slots=True)
class Terms:
    """Seconds. The warning comes `warn_s` before the end; `deadman_s` is the longest silence of the holder, if any."""

    duration_s: float
    warn_s: float
    on_expiry: OnExpiry
    deadman_s: float | None = None


class WhileTask(StrEnum):
    """What whoever asks for control wants of a task that runs: no control then, its end awaited, or its abort. Nothing
    is moved under the lease before the task has ended.
    """

    REFUSE = "refuse"
    FINISH = "finish"
    INTERRUPT = "interrupt"


@dataclass(frozen=True, slots=True)
class LeaseWish:
    """What a caller asks for. `lease_uid` is the secret, the caller's own or drawn for it."""

    target: UUID
    kind: ResourceKind
    lease_uid: LeaseUid
    holder: Holder
    terms: Terms
    while_task: WhileTask = WhileTask.REFUSE


@dataclass(frozen=True, slots=True)
class LeaseProof:
    """How a caller shows that a lease is its own."""

    holder: Holder
    lease_uid: LeaseUid


@dataclass(frozen=True, slots=True)
class Ending:
    """How a lease is ended, by whom if by somebody."""

    how: LeaseEnd
    by: Holder | None = None
    reason: str | None = None


@dataclass(frozen=True, slots=True)
class Lease:
    """One lease. `revision` grows with each change of it; `changed_at` is the last one. Times are the ledger's."""

    lease_id: LeaseId
    secret: bytes
    resource: Resource
    holder: Holder
    terms: Terms
    fence: int
    revision: int
    acquired_at: datetime
    expires_at: datetime
    changed_at: datetime
    ended_at: datetime | None = None
    ending: Ending | None = None
    while_task: WhileTask = WhileTask.REFUSE


@dataclass(frozen=True, slots=True)
class Control:
    """What is so of one resource: its newest fence, the latest lease on it, how long that lasts, seconds, and the task
    it waits for, if it was granted while one ran that still does.
    """

    uid: UUID
    fence: int
    lease: Lease | None = None
    left_s: float = 0.0
    waits_for: TaskUid | None = None

    @property
    def held(self) -> Lease | None:
        """The lease, if it holds. One that is below the newest fence does not: a node knew better than a ledger that
        was restored from a backup.
        """
        lease = self.lease
        if lease is None or lease.ended_at is not None or lease.fence != self.fence or self.left_s <= 0:
            return None
        return lease

    @property
    def order(self) -> tuple[int, int]:
        """Of two readings, the higher is the newer."""
        return self.fence, 0 if self.lease is None else self.lease.revision


@dataclass(frozen=True, slots=True)
class Place:
    """A resource among others: of a telescope the enclosures it shares, of what is shared the telescopes under it."""

    resource: Resource
    neighbours: tuple[UUID, ...]


@dataclass(frozen=True, slots=True)
class Need:
    """Something a command moves: whose control that is. `under` are the telescopes under what they share."""

    control: Control
    under: tuple[Control, ...] = ()


@dataclass(frozen=True, slots=True)
class Standing:
    """What decides whether a command may go. The first need is what it is for; `shown` is the lease whose secret came
    with it, whatever that is for and whether or not it holds.
    """

    needs: tuple[Need, ...]
    shown: Control | None = None


@dataclass(frozen=True, slots=True)
class LeaseQuery:
    """A page of leases; `page` counts from 1. `held`: only those that have not ended, or that have."""

    page: int = 1
    size: int = 50
    target: UUID | None = None
    held: bool | None = None


class LeaseLedger(Protocol):
    """Where leases are kept, all by one clock. Everything raises `RoutingUnavailable` when it cannot be asked.

    What changes a resource is one step: of several who want it, one gets it. Fences only grow, at each begin and at
    each end of a lease, so that nothing sent before is obeyed after.
    """

    async def acquire(self, wish: LeaseWish) -> tuple[Control, Sequence[Control]]:
        """Grants it, or finds it granted to the same holder under the same secret. Returns it, and everything that
        changed. Raises `LeaseHeld`, `TaskActive`, `NotFound`, `Invalid`.
        """
        ...

    async def renew(self, lease_id: LeaseId, proof: LeaseProof, terms: Terms | None) -> Control:
        """It lasts its duration from now, on other terms if given. Raises `NotFound`, `Forbidden`, `LeaseExpired`,
        `StaleFence`.
        """
        ...

    async def end(self, lease_id: LeaseId, ending: Ending, proof: LeaseProof | None) -> Control:
        """Ends it, with a proof by its holder alone; one that has ended stays as it ended. Raises `NotFound`,
        `Forbidden`.
        """
        ...

    async def expire(self) -> Sequence[Control]:
        """Ends what is over. Of several who ask at once, one is told of each."""
        ...

    async def get(self, lease_id: LeaseId) -> Control | None: ...

    async def page(self, query: LeaseQuery) -> tuple[Sequence[Control], int]:
        """The newest first, and how many there are in all."""
        ...

    async def controls(self, uids: Collection[UUID] | None) -> Sequence[Control]:
        """Of these resources, as far as there is a fence of them; or of everything that ever had a lease."""
        ...

    async def standing(
        self,
        *,
        telescope_uid: TelescopeUid | None,
        device_uid: DeviceUid | None,
        moves_enclosure: bool,
        secret: bytes | None,
    ) -> Standing | None:
        """What a command for this telescope or device needs; nothing if the hub's records have no such device."""
        ...


def digest(lease_uid: LeaseUid) -> bytes:
    """What is kept of a secret. SHA-256, 32 bytes."""
    return hashlib.sha256(lease_uid.bytes).digest()


def needs_of(moved: Mapping[UUID, Collection[UUID]], controls: Iterable[Control]) -> tuple[Need, ...]:
    """Of what a command moves, each with the telescopes under it if they share it, and of what is known of these."""
    known = {control.uid: control for control in controls}

    def control(uid: UUID) -> Control:
        return known.get(uid) or Control(uid, 0)

    return tuple(Need(control(uid), tuple(map(control, under))) for uid, under in moved.items())
