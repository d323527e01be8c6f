"""What is asked and told of leases: camelCase on the wire, validated once. The secret is told to its holder alone."""

from datetime import datetime, timedelta
from typing import Annotated, Any
from uuid import uuid4

from pydantic import Field, model_validator

from skygw.control.lease import Control, Holder, WhileTask
from skygw.control.lease_terms import AskedTerms, RenewedTerms
from skygw.ids import DeviceUid, LeaseId, LeaseUid, TaskUid, TelescopeUid
from skygw.protocol.gateway_frames import LeaseEnd, OnExpiry
from skygw.resources import ResourceKind
from skygw.routers.schemas import ActorBody, Body, View


class AcquireBody(Body, AskedTerms):
    """A lease of a telescope, or of a device that telescopes share. Whoever may have to repeat the request, because an
    answer can be lost, draws the `leaseUid` itself: a random UUID, and a secret.
    """

    telescope_uid: TelescopeUid | None = None
    device_uid: DeviceUid | None = None
    lease_uid: LeaseUid = Field(default_factory=lambda: LeaseUid(uuid4()))
    actor: ActorBody | None = None

    @model_validator(mode="after")
    def _one_target(self) -> "AcquireBody":
        if (self.telescope_uid is None) == (self.device_uid is None):
            raise ValueError("name either telescopeUid or deviceUid")
        return self


class ProofBody(Body):
    """How its holder shows that a lease is its own."""

    lease_uid: LeaseUid
    actor: ActorBody | None = None


class RenewBody(ProofBody, RenewedTerms):
    """`durationS` counts from now; without it the lease lasts as long as it did at first."""


class BreakBody(Body):
    """Why control is taken from its holder; the holder is told."""

    reason: Annotated[str, Field(min_length=1, max_length=500)]
    actor: ActorBody | None = None


class HolderView(View):
    service: str
    actor: dict[str, str] | None


class TaskView(View):
    uid: TaskUid


class LeaseView(View):
    """A lease as known now. `leaseUid` is null but in the answer to who acquired it; `held` goes by the database's
    clock.
    """

    id: LeaseId
    lease_uid: LeaseUid | None
    telescope_uid: TelescopeUid | None
    device_uid: DeviceUid | None
    holder: HolderView
    fence: int
    held: bool
    acquired_at: datetime
    expires_at: datetime
    expires_in_s: float
    warn_at: datetime
    duration_s: float
    on_expiry: OnExpiry
    deadman_s: float | None
    while_task: WhileTask
    waiting_for_task: TaskView | None
    ended_at: datetime | None
    ended: LeaseEnd | None
    ended_by: HolderView | None
    reason: str | None


class LeasePage(View):
    items: list[LeaseView]
    total: int
    page: int
    size: int
    pages: int


def lease_view(control: Control, *, lease_uid: LeaseUid | None = None) -> LeaseView:
    """`lease_uid` is for its holder alone."""
    lease = control.lease
    if lease is None:
        raise RuntimeError("a lease that is shown is there")
    is_telescope = lease.resource.kind is ResourceKind.TELESCOPE
    target: dict[str, Any] = {"telescope_uid" if is_telescope else "device_uid": control.uid}
    ending = lease.ending
    return LeaseView(
        **{"telescope_uid": None, "device_uid": None, **target},
        id=lease.lease_id,
        lease_uid=lease_uid,
        holder=_holder(lease.holder),
        fence=lease.fence,
        held=control.held is not None,
        acquired_at=lease.acquired_at,
        expires_at=lease.expires_at,
        expires_in_s=0.0 if control.held is None else control.left_s,
        warn_at=lease.expires_at - timedelta(seconds=lease.terms.warn_s),
        duration_s=lease.terms.duration_s,
        on_expiry=lease.terms.on_expiry,
        deadman_s=lease.terms.deadman_s,
        while_task=lease.while_task,
        waiting_for_task=None if control.held is None or control.waits_for is None else TaskView(uid=control.waits_for),
        ended_at=lease.ended_at,
        ended=None if ending is None else ending.how,
        ended_by=None if ending is None or ending.by is None else _holder(ending.by),
        reason=None if ending is None else ending.reason,
    )


def _holder(holder: Holder) -> HolderView:
    return HolderView(service=holder.service, actor=holder.actor)
