"""Leases in the published way: `publish_command` with `lease.*`, on the same table as the HTTP routes (contract §6).

They are for the gateway itself. Nothing goes to a node, and nothing to the ledger of commands, which would keep the
secret.
"""

from collections.abc import Mapping
from datetime import timedelta
from hmac import compare_digest
from typing import Any, Literal
from uuid import UUID, uuid4

from pydantic import BaseModel, ConfigDict, ValidationError
from pydantic.alias_generators import to_camel

from skygw.control.lease import Control, Holder, Lease, LeaseProof, LeaseQuery, LeaseWish, digest
from skygw.control.lease_terms import AskedTerms, RenewedTerms
from skygw.control.leases import LeaseService
from skygw.errors import Invalid, NotFound
from skygw.ids import LeaseUid
from skygw.protocol.order_members import CommandMembers
from skygw.resources import ResourceKind
from skygw.telemetry.value import utc

LOOKED_THROUGH = 20
"""Leases of a target, the newest first, among which the one whose secret was shown is looked for."""


class _LeaseCommand(BaseModel):
    """Members in either spelling; one that is not known is refused, as by HTTP."""

    model_config = ConfigDict(
        frozen=True,
        extra="forbid",
        alias_generator=to_camel,
        populate_by_name=True,
        loc_by_alias=False,
        hide_input_in_errors=True,
    )

    command_type: Literal["lease.acquire", "lease.renew", "lease.release"]
    lease_uid: LeaseUid | None = None


class _Acquire(AskedTerms, _LeaseCommand):
    """Whoever may have to repeat it draws the `lease_uid`: a random UUID, and a secret."""


class _Renew(RenewedTerms, _LeaseCommand):
    """By the `lease_uid` of the target's lease."""


_MODELS: Mapping[str, type[_LeaseCommand]] = {
    "lease.acquire": _Acquire,
    "lease.renew": _Renew,
    "lease.release": _LeaseCommand,
}


class PublishedLeases:
    """Does what `lease.*` commands say."""

    def __init__(self, leases: LeaseService) -> None:
        self._leases = leases

    async def run(self, said: CommandMembers, holder: Holder) -> dict[str, Any]:
        """The lease as it then stands, to be told to its holder alone. Raises `Invalid`, and what the ledger of leases
        raises: `LeaseHeld`, `LeaseExpired`, `StaleFence`, `Forbidden`, `NotFound`, `RoutingUnavailable`.
        """
        command = _read(said)
        target = said.telescope_uid or said.device_uid
        if target is None:
            raise RuntimeError("a command without a target is invalid")
        kind = ResourceKind.DEVICE if said.telescope_uid is None else ResourceKind.TELESCOPE
        shown = _shown(said, command)
        if isinstance(command, _Acquire):
            secret = shown or LeaseUid(uuid4())
            control, _ = await self._leases.acquire(LeaseWish(target, kind, secret, holder, command.terms))
            return _told(control) | {"lease_uid": str(secret)}
        if shown is None:
            raise Invalid(f"{command.command_type} needs the lease_uid that lease.acquire was answered with.")
        lease = await self._lease_of(target, kind, shown)
        proof = LeaseProof(holder, shown)
        if isinstance(command, _Renew):
            return _told(await self._leases.renew(lease.lease_id, proof, command.terms(lease.terms)))
        return _told(await self._leases.release(lease.lease_id, proof))

    async def _lease_of(self, target: UUID, kind: ResourceKind, shown: LeaseUid) -> Lease:
        """The target's lease with this secret; else its newest, whose holder will turn out to be another."""
        found, _ = await self._leases.page(LeaseQuery(target=target, size=LOOKED_THROUGH))
        leases = [control.lease for control in found if control.lease and control.lease.resource.kind is kind]
        if not leases:
            raise NotFound(f"There is no lease of a {kind.value} {target}.")
        return next((one for one in leases if compare_digest(one.secret, digest(shown))), leases[0])


def _read(said: CommandMembers) -> _LeaseCommand:
    model = _MODELS.get(said.command.value.get("command_type"))
    if model is None:
        raise Invalid(f"Of leases only {', '.join(_MODELS)} can be published.")
    if said.validate_only or said.on_caller_gone != "continue":
        raise Invalid("A lease has no dry run, and does not end with its socket: it is released, or expires.")
    try:
        return model.model_validate(dict(said.command.value))
    except ValidationError as error:
        fields = [
            {"type": item["type"], "loc": ["command", *item["loc"]], "msg": item["msg"]}
            for item in error.errors(include_url=False, include_input=False, include_context=False)
        ]
        where = ".".join(str(step) for step in fields[0]["loc"])
        raise Invalid(f"{where}: {fields[0]['msg']}", fields=fields) from None


def _shown(said: CommandMembers, command: _LeaseCommand) -> LeaseUid | None:
    """The secret, in the command or beside it."""
    if command.lease_uid is not None and said.lease_uid is not None and command.lease_uid != said.lease_uid:
        raise Invalid("One lease_uid stands in the command and another beside it; send one of them.")
    return command.lease_uid or said.lease_uid


def _told(control: Control) -> dict[str, Any]:
    lease = control.lease
    if lease is None:
        raise RuntimeError("a lease that is shown is there")
    is_telescope = lease.resource.kind is ResourceKind.TELESCOPE
    ending = lease.ending
    return {
        "lease_id": str(lease.lease_id),
        "telescope_uid" if is_telescope else "device_uid": str(control.uid),
        "holder": lease.holder.said(),
        "fence": lease.fence,
        "held": control.held is not None,
        "acquired_at": utc(lease.acquired_at),
        "expires_at": utc(lease.expires_at),
        "expires_in_s": 0.0 if control.held is None else control.left_s,
        "warn_at": utc(lease.expires_at - timedelta(seconds=lease.terms.warn_s)),
        "duration_s": lease.terms.duration_s,
        "on_expiry": lease.terms.on_expiry.value,
        "deadman_s": lease.terms.deadman_s,
        "ended_at": None if lease.ended_at is None else utc(lease.ended_at),
        "ended": None if ending is None else ending.how.value,
    }
