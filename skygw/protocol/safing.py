"""Which commands make a telescope safe: they always get through (contract §0.1)."""

from typing import NamedTuple
from uuid import UUID

SAFE_SHUTDOWN = "telescope.safe_shutdown"
_WHOLE_TELESCOPE = "telescope."


def is_safing(command_type: str) -> bool:
    """`*.stop`, `*.abort` and `telescope.safe_shutdown`; a cancel is a frame of its own and always safing."""
    return command_type.endswith((".stop", ".abort")) or command_type == SAFE_SHUTDOWN


class Aim(NamedTuple):
    """What a command does, and to what."""

    command_type: str
    telescope_uid: UUID | None
    device_uid: UUID | None


def is_undone_by(stop: Aim, other: Aim) -> bool:
    """Whether this stop would be undone by `other`, done after it: `mount.stop` by `mount.point`, that of a telescope
    by everything (docs/adr/0007).

    Where one is for a telescope and the other for a device nobody here knows whether they meet: then they do.
    """
    if stop.device_uid is not None and other.device_uid is not None:
        meets = stop.device_uid == other.device_uid
    elif stop.telescope_uid is not None and other.telescope_uid is not None:
        meets = stop.telescope_uid == other.telescope_uid
    else:
        meets = True
    family = f"{stop.command_type.rpartition('.')[0]}."
    return meets and (family == _WHOLE_TELESCOPE or other.command_type.startswith(family))
