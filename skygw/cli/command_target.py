"""Finds out what a command is for: a telescope or a device by its uid, or the telescope of an installation."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal
from uuid import UUID

from skygw.cli.running_gateway import RunningGateway, is_id
from skygw.cli.terminal import CommandFailed, ExitCode

Kind = Literal["telescope", "device"]

DEVICES_TOLD = 10


@dataclass(frozen=True, slots=True)
class Target:
    """A telescope or a device; of a device that is no shared one, its telescope too, where it was looked up."""

    telescope_uid: UUID | None = None
    device_uid: UUID | None = None
    telescope_of_device: UUID | None = None

    @property
    def controlled_by(self) -> "Target":
        """What the lease is of that reaches it."""
        return self if self.telescope_of_device is None else Target(telescope_uid=self.telescope_of_device)


def as_said(which: str, kind: Kind) -> Target | None:
    """Without looking anything up; `None` for what is no uid."""
    try:
        uid = UUID(which)
    except ValueError:
        return None
    return Target(telescope_uid=uid) if kind == "telescope" else Target(device_uid=uid)


async def find_target(which: str, gateway: RunningGateway) -> Target:
    """First among what is connected, which the gateway knows by heart, then in the hub's records. Raises
    `CommandFailed`: nothing was sent then.
    """
    if is_id(which) and not which.isdecimal():
        uid = str(UUID(which))
        found = _among(uid, await gateway.nodes(connected=True)) or _among(uid, await gateway.nodes())
        if found is None:
            raise _not_found(f"No telescope, device or installation has the uid {uid}; “skygw nodes” lists them.")
        return found
    return _telescope_of(await gateway.node(which))


def _among(uid: str, nodes: Iterable[dict[str, Any]]) -> Target | None:
    for node in nodes:
        telescopes = _uids(node, "telescopes")
        if uid in telescopes:
            return Target(telescope_uid=UUID(uid))
        if uid in _uids(node, "devices"):
            return Target(
                device_uid=UUID(uid), telescope_of_device=UUID(telescopes[0]) if len(telescopes) == 1 else None
            )
        if uid == node.get("uid"):
            return _telescope_of(node)
    return None


def _telescope_of(node: dict[str, Any]) -> Target:
    telescopes = _uids(node, "telescopes")
    if len(telescopes) == 1:
        return Target(telescope_uid=UUID(telescopes[0]))
    name = node.get("name") or node.get("uid")
    if telescopes:
        raise _not_found(f"{name} has {len(telescopes)} telescopes, say which: {', '.join(telescopes)}.")
    devices = _uids(node, "devices")
    more = "" if len(devices) <= DEVICES_TOLD else f" and {len(devices) - DEVICES_TOLD} more"
    told = f": {', '.join(devices[:DEVICES_TOLD])}{more}" if devices else ""
    raise _not_found(f"{name} has no telescope; name a device of it by its uid{told}.")


def _uids(node: dict[str, Any], member: str) -> list[str]:
    return [str(uid) for uid in node.get(member) or ()]


def _not_found(text: str) -> CommandFailed:
    return CommandFailed(text, {"code": "not_found", "outcome": "not_sent"}, exit_code=ExitCode.NOT_SENT)
