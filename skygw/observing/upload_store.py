"""What is known of uploads, apart from their bytes: whose they are, how far they have come, what became of them.

The bytes lie behind `byte_store`. An offset is written here after its bytes are on the disk, so what this says was
acknowledged is there; a file may be longer, by what a crash kept anybody from acknowledging.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import Protocol
from uuid import UUID

from skygw.ids import InstallId, UploadUid


class UploadState(StrEnum):
    """Moves forward alone: what is complete or has failed takes no more bytes."""

    OPEN = "open"
    COMPLETE = "complete"
    """All bytes are on the disk and their SHA-256 is known, and is what was declared if anything was."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Upload:
    """One upload as it stands. Sizes and offsets are bytes, digests are lower-case hex."""

    uid: UploadUid
    install_id: InstallId
    size: int | None
    """`None` until its client says where it ends."""
    sha256: str | None
    """Of the whole: as declared, if it was; of a complete one, as computed."""
    asset_uid: UUID | None
    """The asset whose bytes these are; `None` of bytes that were sent before they were declared."""
    offset: int
    """Acknowledged: these bytes are on the disk."""
    state: UploadState
    writer: int
    """Counts who has had the pen; whoever holds a smaller one writes no more."""
    expires_at: datetime
    """When it is removed unless more of it comes."""
    failure: str | None = None
    """Of a failed one: why, as a sentence of 250 characters at most."""
    metadata: str | None = None
    """tus's `Upload-Metadata` as its client wrote it, printable ASCII: it is told the same again."""


@dataclass(frozen=True, slots=True)
class NewUpload:
    """What is asked for. `reserved` counts against the installation's quota until the upload has ended: its size, or
    the most it may grow to where that is not known.
    """

    uid: UploadUid
    install_id: InstallId
    size: int | None
    sha256: str | None
    reserved: int
    expires_at: datetime
    asset_uid: UUID | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class Quota:
    """What the open uploads of one installation may come to."""

    bytes: int
    uploads: int


class UploadStore(Protocol):
    """Each method is one transaction and may be repeated. Raises `RoutingUnavailable` when it cannot be asked."""

    async def create(self, new: NewUpload, *, quota: Quota) -> Upload:
        """Offset 0, writer 0, open. Raises `QuotaExceeded` if the installation's open uploads and this one are over the
        quota, also when several are created at once.
        """
        ...

    async def find(self, install_id: InstallId, uid: UploadUid) -> Upload | None:
        """`None` for another installation's, as for one that does not exist."""
        ...

    async def claim(self, install_id: InstallId, uid: UploadUid) -> Upload | None:
        """The pen for a new writer: `writer` is one more than before, whatever the state. Who had it before may not
        `advance`, `complete` or `fail` any more. `None` as in `find`.
        """
        ...

    async def advance(
        self, uid: UploadUid, writer: int, *, offset: int, size: int | None, expires_at: datetime
    ) -> bool:
        """These bytes are on the disk now; an offset never gets smaller. A `size` that was not known before is kept.
        False, and nothing happens, if another has the pen or the upload is not open.
        """
        ...

    async def complete(self, uid: UploadUid, writer: int, *, size: int, sha256: str) -> bool:
        """Everything is on the disk, and agrees with what was declared; whoever verifies finds it from now on, also
        after a restart. False as in `advance`.
        """
        ...

    async def fail(self, uid: UploadUid, writer: int, *, reason: str) -> bool:
        """It will never be complete: too many bytes, or others than declared, or bytes that were lost. In the same
        transaction its asset, if it has one, is marked failed with the reason. False as in `advance`.
        """
        ...

    async def forget(self, install_id: InstallId, uid: UploadUid) -> bool:
        """The row is gone, as its client asked or because it expired; called once its part is deleted. An asset it was
        for stays, canceled if it was not there yet. Its content stays, too, until nobody names it. False if there was
        none of this installation's.
        """
        ...

    async def expired(self, *, now: datetime, limit: int) -> Sequence[Upload]:
        """Some whose time is over, oldest first; never one that is complete or failed and that an asset names."""
        ...
