"""Who gets a lease, who may change one, and whether a command may go under one: pure, the same for every ledger."""

from collections.abc import Mapping
from datetime import datetime
from hmac import compare_digest
from uuid import UUID

from skygw.control.lease import (
    Control,
    Ending,
    Holder,
    Lease,
    LeaseProof,
    LeaseWish,
    Need,
    Place,
    Standing,
    digest,
)
from skygw.errors import Forbidden, Invalid, LeaseExpired, LeaseHeld, LeaseRequired, StaleFence
from skygw.protocol.gateway_frames import LeaseEnd
from skygw.resources import ResourceKind


def granted_before(wish: LeaseWish, place: Place, controls: Mapping[UUID, Control]) -> Lease | None:
    """The lease this wish was granted before, or nothing if it may be granted now. Raises `LeaseHeld`, `Invalid`."""
    resource = place.resource
    if resource.kind is ResourceKind.DEVICE and resource.telescope_uid is not None:
        raise Invalid(
            f"This device belongs to the telescope {resource.telescope_uid}: whoever has the lease of that controls it."
        )
    control = controls[resource.uid]
    if control.held is not None:
        if control.held.holder == wish.holder and compare_digest(control.held.secret, digest(wish.lease_uid)):
            return control.held
        raise _held(control)
    if resource.kind is ResourceKind.DEVICE:
        under = tuple(controls[uid] for uid in place.neighbours)
        if _holder_of_all(under) not in (None, wish.holder):
            raise _held(min(under, key=lambda one: one.left_s))
    return None


def remains_of(control: Control) -> Ending | None:
    """How a lease ends that nobody has ended and that does not hold any more."""
    if control.lease is None or control.lease.ended_at is not None or control.held is not None:
        return None
    return Ending(LeaseEnd.SUPERSEDED if control.left_s > 0 else LeaseEnd.EXPIRED)


def check_renewal(control: Control, proof: LeaseProof) -> None:
    """Raises `Forbidden`, `StaleFence`, `LeaseExpired`."""
    _check_owner(control, proof)
    if control.held is None:
        raise _over(
            control, is_given_away=control.lease is not None and control.lease.ended_at is None and control.left_s > 0
        )


def may_end(control: Control, proof: LeaseProof | None) -> bool:
    """Whether there is something to end. With a proof it has to be the holder's. Raises `Forbidden`."""
    if proof is not None:
        _check_owner(control, proof)
    return control.lease is not None and control.lease.ended_at is None


def fence_for(caller: Holder, standing: Standing, *, shows_lease: bool) -> tuple[UUID, int]:
    """The resource and the fence a command goes under. Raises `LeaseRequired`, `LeaseHeld`, `LeaseExpired`,
    `StaleFence`.
    """
    everything = [control for need in standing.needs for control in (need.control, *need.under)]
    others = [control for control in everything if control.held is not None and control.held.holder != caller]
    if not shows_lease:
        if others:
            raise _held(others[0])
        if any(control.held is not None for control in everything):
            raise LeaseRequired("You have the lease of this: send its leaseUid with the command.")
        raise LeaseRequired("Whoever moves this needs its manual control lease: acquire it, and send its leaseUid.")
    _check_shown(caller, standing.shown, everything)
    for need in standing.needs:
        if not _is_entitled(caller, need):
            if others:
                raise _held(others[0])
            raise LeaseRequired(
                f"Your lease does not reach the enclosure {need.control.uid}: acquire its own lease, or those of all "
                "telescopes under it."
            )
    meant = standing.needs[0].control
    return meant.uid, meant.fence


def _check_shown(caller: Holder, shown: Control | None, everything: list[Control]) -> None:
    if shown is None or shown.lease is None or shown.lease.holder != caller:
        raise LeaseRequired("You have no lease with this leaseUid.")
    now = next((control for control in everything if control.uid == shown.uid), None)
    if now is None:
        what = shown.lease.resource.kind.value
        raise LeaseRequired(f"The lease that was shown is for the {what} {shown.uid}, and does not reach this.")
    if shown.held is None:
        raise _over(shown, is_given_away=now.held is not None)


def _is_entitled(caller: Holder, need: Need) -> bool:
    """By a lease of its own; where nobody has one, by those of all telescopes under it."""
    if need.control.held is not None:
        return need.control.held.holder == caller
    return _holder_of_all(need.under) == caller


def _holder_of_all(controls: tuple[Control, ...]) -> Holder | None:
    holders = {None if control.held is None else control.held.holder for control in controls}
    return holders.pop() if len(holders) == 1 else None


def _check_owner(control: Control, proof: LeaseProof) -> None:
    lease = control.lease
    if lease is None or lease.holder != proof.holder or not compare_digest(lease.secret, digest(proof.lease_uid)):
        raise Forbidden("This lease is not yours: its holder shows its leaseUid.")


def _held(control: Control) -> LeaseHeld:
    lease = control.held
    if lease is None:
        raise RuntimeError("a lease is in the way that does not hold")
    who = lease.holder.service if lease.holder.actor is None else f"{lease.holder.service} for {lease.holder.actor_uid}"
    return LeaseHeld(
        f"The {lease.resource.kind.value} {control.uid} is under the control of {who} for {control.left_s:.0f} s more, "
        "unless the lease is renewed.",
        retry_after_s=control.left_s,
        details={"holder": lease.holder.said(), "uid": str(control.uid), "expiresAt": _moment(lease.expires_at)},
    )


def _over(control: Control, *, is_given_away: bool) -> LeaseExpired | StaleFence:
    lease = control.lease
    how = "expired" if lease is None or lease.ending is None else lease.ending.how.value
    if is_given_away:
        return StaleFence(f"This lease has ended ({how}), and another has been given since.")
    why = "" if lease is None or lease.ending is None or lease.ending.reason is None else f": {lease.ending.reason}"
    return LeaseExpired(f"This lease has ended ({how}){why}.")


def _moment(at: datetime) -> str:
    return at.isoformat()
