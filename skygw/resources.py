"""What the hub's records say a uid is: by this, not by what a payload says of itself, telemetry is filtered."""

from dataclasses import dataclass
from enum import StrEnum
from uuid import UUID

from skygw.ids import InstallId


class ResourceKind(StrEnum):
    DEVICE = "device"
    TELESCOPE = "telescope"
    INSTRUMENT = "instrument"
    CONSTRAINT = "constraint"
    OBSERVATORY = "observatory"
    INSTALLATION = "installation"


@dataclass(frozen=True, slots=True, eq=False)
class Resource:
    """One thing telemetry can be about. `telescope_uid` is null for what an observatory's telescopes share.

    `parts` are the uids of the devices an instrument is made of. Compared by identity: a binding that is read anew has
    new ones.
    """

    uid: UUID
    kind: ResourceKind
    install_id: InstallId
    observatory_uid: UUID
    telescope_uid: UUID | None = None
    device_type: str | None = None
    parts: tuple[UUID, ...] = ()

    @property
    def device_uid(self) -> UUID | None:
        return self.uid if self.kind is ResourceKind.DEVICE else None


UNWANTED_REASONS = ("invalid", "not_found", "forbidden", "out_of_order", "quota_exceeded")
"""`not_found` is no resource of this node, `forbidden` is not a node's to publish."""


@dataclass(frozen=True, slots=True)
class Unwanted:
    """Why a snapshot was not taken: a word of `UNWANTED_REASONS` for programs and counters, a sentence for people."""

    reason: str
    message: str
