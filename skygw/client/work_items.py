"""What waits to be brought to the hub over HTTP, as words: reports about tasks, and the files of assets."""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from pathlib import Path
from uuid import UUID

from skygw.ids import TaskUid


class ItemKind(StrEnum):
    """What is said to the hub. Of one task they are said in the order in which they were kept."""

    PROGRESS = "progress"
    RESULTS = "results"
    COMPLETE = "complete"
    DECLARE = "declare"
    """A file, by its size and digest; its bytes follow beside the reports."""


class AssetState(StrEnum):
    """How far a file has come."""

    KEPT = "kept"
    """Known here; the hub has not been told."""
    REMOTE = "remote"
    """The hub knows of it and reads it from here, until it asks for the bytes."""
    UPLOADING = "uploading"
    UPLOADED = "uploaded"
    """The hub has all bytes and looks at them. The file must stay."""
    VERIFIED = "verified"
    """The hub has the file: it may be deleted here."""
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class WorkItem:
    """One request to be made. `body` is sent as it stands, byte for byte each time."""

    id: int
    uid: UUID
    """The `reportUid` by which the hub knows it again; of a declaration the asset's uid."""
    kind: ItemKind
    task_uid: TaskUid | None
    body: str
    awaits: tuple[UUID, ...]
    """Assets by our uids whose uids at the hub have still to be put into the body."""


@dataclass(frozen=True, slots=True)
class Asset:
    """A file on its way to the hub. `uid` is ours; `hub_uid` the hub's, once it has been declared."""

    uid: UUID
    path: Path
    size: int
    sha256: str
    content_type: str
    task_uid: TaskUid | None
    state: AssetState
    hub_uid: UUID | None = None
    upload_url: str | None = None
    offset: int = 0
    """Bytes the hub has acknowledged."""
    reason: str | None = None
    """Why it failed."""

    @property
    def name(self) -> str:
        return self.path.name


@dataclass(frozen=True, slots=True)
class FailedItem:
    """What the hub will never take as it is, set aside with the reason. It is kept until somebody decides."""

    uid: UUID
    kind: str
    """An `ItemKind`, or `upload`."""
    task_uid: TaskUid | None
    reason: str
    at: datetime
