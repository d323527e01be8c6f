"""What an installation says it has, and what becomes of it here: it is declared, its bytes come, it is verified."""

from collections.abc import Callable, Collection, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import StrEnum
from typing import Any, Protocol
from uuid import UUID, uuid4

from skygw.errors import NotFound, TooLarge
from skygw.ids import AssetUid, InstallId, TaskUid, TelescopeUid, UploadUid
from skygw.observing.byte_store import ContentKey
from skygw.observing.upload_store import NewUpload, Quota, Upload
from skygw.observing.uploads import UploadRules

FITS_TYPES = frozenset({"image/fits", "application/fits"})
"""What is called so is looked at as FITS before it is verified (RFC 4047)."""


class AssetRole(StrEnum):
    """As published by the platform."""

    SCIENCE_LIGHT = "SCIENCE_LIGHT"
    BIAS = "BIAS"
    DARK = "DARK"
    FLAT = "FLAT"
    RADIO_TRACK = "RADIO_TRACK"
    RADIO_TRACK_TABLE = "RADIO_TRACK_TABLE"
    RADIO_MAP = "RADIO_MAP"


class TransferState(StrEnum):
    """As published by the platform. `active`: bytes have come. `completed`: they are all here, and verified."""

    PENDING = "pending"
    ACTIVE = "active"
    COMPLETED = "completed"
    FAILED = "failed"
    CANCELED = "canceled"


@dataclass(frozen=True, slots=True)
class Declaration:
    """What an installation says of one of its files. The same again is the same asset."""

    observation_uid: UUID
    instrument_uid: UUID
    role: AssetRole
    file_name: str
    """For people to read; no file is ever called by it."""
    size: int
    sha256: str
    """Lower-case hex."""
    content_type: str
    task_uid: TaskUid | None = None
    is_remote: bool = False
    """The bytes stay where they are until somebody asks for them."""


@dataclass(frozen=True, slots=True)
class Asset:
    """An asset as it stands. `id` is the platform's integer key."""

    id: int
    uid: AssetUid
    install_id: InstallId
    telescope_uid: TelescopeUid | None
    declared: Declaration
    """As declared, but for `is_remote`, which is as it is now."""
    result_uids: Sequence[UUID]
    state: TransferState
    progress: float | None
    error: str | None
    last_attempt: datetime | None
    declared_at: datetime
    arrived_at: datetime | None
    """All bytes are here, and their digest is the declared one."""
    verified_at: datetime | None
    stored: bool
    """They can be read here."""
    box: Any
    """Where its first image lies on the sky, as JSON."""
    upload: Upload | None
    """Where its bytes are to go, while they are wanted."""

    @property
    def content(self) -> ContentKey:
        return ContentKey(self.declared.sha256, self.declared.size)

    @property
    def must_be_fits(self) -> bool:
        return self.declared.content_type in FITS_TYPES


@dataclass(frozen=True, slots=True)
class Declared:
    """The asset, whether it is new, and whether anything is left to be sent."""

    asset: Asset
    is_new: bool

    @property
    def is_to_be_sent(self) -> bool:
        return self.asset.upload is not None


@dataclass(frozen=True, slots=True)
class AssetQuery:
    """Which assets; `page` from 1. Without an installation, those of all."""

    page: int
    size: int
    install_id: InstallId | None = None
    task_uid: UUID | None = None
    observation_uid: UUID | None = None
    result_uid: UUID | None = None
    role: AssetRole | None = None
    state: TransferState | None = None
    created_after: datetime | None = None


class AssetStore(Protocol):
    """Where assets are recorded, each method in one transaction. Raises `RoutingUnavailable` if it cannot be asked."""

    async def declare(
        self,
        install_id: InstallId,
        telescopes: Collection[TelescopeUid],
        declaration: Declaration,
        upload: NewUpload,
        *,
        quota: Quota,
    ) -> Declared:
        """Raises `NotFound` for a task, observation or instrument that is not of these telescopes, `Invalid` if they do
        not belong together, `IdReused` if it was declared otherwise, `QuotaExceeded`. `upload` is used if bytes are
        wanted and none is open.
        """
        ...

    async def find(self, id_or_uid: str, *, install_id: InstallId | None = None) -> Asset | None:
        """By integer key or uid; of that installation alone, if one is given."""
        ...

    async def page(self, query: AssetQuery) -> tuple[Sequence[Asset], int]:
        """The newest first, and how many there are in all."""
        ...

    async def want(self, uid: AssetUid, upload: NewUpload, *, quota: Quota) -> Asset | None:
        """Opens an upload for an asset whose bytes are not here, if none is open. Raises `QuotaExceeded`."""
        ...


class Parts(Protocol):
    """As of `ByteStore`."""

    async def create(self, part: UploadUid) -> None: ...


class AssetService:
    """Declares, finds and lists. `arrived` is told that there may be something to verify, and must not wait."""

    def __init__(
        self,
        *,
        store: AssetStore,
        parts: Parts,
        rules: UploadRules,
        now: Callable[[], datetime],
        arrived: Callable[[], None],
    ) -> None:
        self._store = store
        self._parts = parts
        self._rules = rules
        self._now = now
        self._arrived = arrived

    async def declare(
        self, install_id: InstallId, telescopes: Collection[TelescopeUid], declaration: Declaration
    ) -> Declared:
        """Raises what `AssetStore.declare` does, `TooLarge`, `StorageFull` and `StorageFailed`."""
        if declaration.size > self._rules.max_bytes and not declaration.is_remote:
            raise TooLarge(
                f"An asset that is sent has {self._rules.max_bytes} bytes at most, and this one has {declaration.size}."
            )
        declared = await self._store.declare(
            install_id,
            telescopes,
            declaration,
            self._upload(install_id, declaration),
            quota=self._rules.quota,
        )
        await self._make_room(declared.asset)
        if declared.asset.arrived_at is not None:
            self._arrived()
        return declared

    async def get(self, id_or_uid: str, *, install_id: InstallId | None = None) -> Asset:
        """Raises `NotFound`, for another installation's as for one that does not exist."""
        found = await self._store.find(id_or_uid, install_id=install_id)
        if found is None:
            raise NotFound(f"No asset has the uid or key {id_or_uid[:64]!r}.")
        return found

    async def page(self, query: AssetQuery) -> tuple[Sequence[Asset], int]:
        return await self._store.page(query)

    async def want(self, asset: Asset) -> Asset:
        """As it stands with an upload open for it, unless its bytes are here. Raises `QuotaExceeded`, `TooLarge`,
        `NotFound`.
        """
        if asset.arrived_at is not None:
            return asset
        if asset.declared.size > self._rules.max_bytes:
            raise TooLarge(f"It has {asset.declared.size} bytes, and {self._rules.max_bytes} are taken at most.")
        upload = self._upload(asset.install_id, asset.declared)
        wanted = await self._store.want(asset.uid, upload, quota=self._rules.quota)
        if wanted is None:
            raise NotFound(f"The asset {asset.uid} is no longer there.")
        await self._make_room(wanted)
        return wanted

    async def _make_room(self, asset: Asset) -> None:
        """Whoever was interrupted here asks again, and then it is made."""
        if asset.upload is not None and asset.upload.offset == 0:
            await self._parts.create(asset.upload.uid)

    def _upload(self, install_id: InstallId, declaration: Declaration) -> NewUpload:
        return NewUpload(
            uid=UploadUid(uuid4()),
            install_id=install_id,
            size=declaration.size,
            sha256=declaration.sha256,
            reserved=declaration.size,
            expires_at=self._now() + timedelta(seconds=self._rules.keep_s),
        )
