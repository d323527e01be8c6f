"""What assets look like over HTTP: as an installation declares them, and as they are shown."""

from datetime import datetime
from typing import Annotated, Any
from uuid import UUID

from pydantic import AfterValidator, Field

from skygw.ids import AssetUid, TaskUid
from skygw.observing.assets import Asset, AssetRole, Declaration, TransferState
from skygw.protocol.frame import MAX_SEQ, Sha256
from skygw.routers.schemas import Body, View
from skygw.routers.upload_dialects import upload_url


def _a_name(text: str) -> str:
    if any(not char.isprintable() or char in "/\\" for char in text) or not text.strip(" ."):
        raise ValueError("must be the name of a file: no path, and nothing that cannot be printed")
    return text


FileName = Annotated[str, Field(min_length=1, max_length=250), AfterValidator(_a_name)]
MediaType = Annotated[
    str,
    # RFC 9110 §8.3.1, without parameters.
    Field(max_length=100, pattern=r"^[A-Za-z0-9!#$%&'*+.^_`|~-]+/[A-Za-z0-9!#$%&'*+.^_`|~-]+$"),
    AfterValidator(str.lower),
]


class AssetBody(Body):
    """A file that an installation has. `isRemote`: its bytes stay there until somebody asks for them."""

    task_uid: TaskUid | None = None
    observation_uid: UUID
    instrument_uid: UUID
    role: AssetRole
    file_name: Annotated[FileName, Field(description="For people to read; no file of the hub's is called by it.")]
    size: Annotated[int, Field(strict=True, ge=1, le=MAX_SEQ)]
    sha256: Sha256
    content_type: MediaType
    is_remote: Annotated[bool, Field(strict=True)] = False

    def declaration(self) -> Declaration:
        return Declaration(
            observation_uid=self.observation_uid,
            instrument_uid=self.instrument_uid,
            role=self.role,
            file_name=self.file_name,
            size=self.size,
            sha256=self.sha256,
            content_type=self.content_type,
            task_uid=self.task_uid,
            is_remote=self.is_remote,
        )


class UploadView(View):
    """Where the bytes are to go, relative to this listener, and how many of them are here for good."""

    url: str
    offset: int
    expires_at: datetime


class SkyBoxView(View):
    """Where the first image of a FITS file lies on the sky: degrees, ICRS, right ascension first. `corners` are the
    outer corners of its pixels (1, 1), (nx, 1), (nx, ny) and (1, ny).
    """

    center: tuple[float, float]
    corners: list[tuple[float, float]]


class AssetView(View):
    """An asset as it stands. `transferState` is `completed` when its bytes are here and verified."""

    id: int
    uid: AssetUid
    task_uid: TaskUid | None
    observation_uid: UUID
    instrument_uid: UUID
    role: AssetRole
    file_name: str
    size: int
    sha256: str
    content_type: str
    is_remote: bool
    transfer_state: TransferState
    transfer_progress: Annotated[float | None, Field(description="0 to 1.")]
    transfer_error: str | None
    last_transfer_attempt: datetime | None
    declared_at: datetime
    verified_at: datetime | None
    wcs_box: SkyBoxView | None


class OwnAssetView(AssetView):
    """As its installation sees it; `upload` is there while bytes are wanted."""

    upload: UploadView | None


class HubAssetView(AssetView):
    """As hub services see it."""

    install_id: UUID
    telescope_uid: UUID | None
    result_uids: list[UUID]
    content_url: str


class DeclaredView(View):
    """Without `upload` there is nothing to send."""

    asset: OwnAssetView
    upload: UploadView | None


class OwnAssetPage(View):
    items: list[OwnAssetView]
    total: int
    page: int
    size: int
    pages: int


class HubAssetPage(View):
    items: list[HubAssetView]
    total: int
    page: int
    size: int
    pages: int


def content_url(uid: AssetUid) -> str:
    return f"/internal/assets/{uid}/content"


def declared_view(asset: Asset) -> DeclaredView:
    return DeclaredView(asset=own_view(asset), upload=_upload(asset))


def own_view(asset: Asset) -> OwnAssetView:
    return OwnAssetView(**_shown(asset), upload=_upload(asset))


def hub_view(asset: Asset) -> HubAssetView:
    return HubAssetView(
        **_shown(asset),
        install_id=asset.install_id,
        telescope_uid=asset.telescope_uid,
        result_uids=list(asset.result_uids),
        content_url=content_url(asset.uid),
    )


def _upload(asset: Asset) -> UploadView | None:
    upload = asset.upload
    if upload is None:
        return None
    return UploadView(url=upload_url(upload), offset=upload.offset, expires_at=upload.expires_at)


def _shown(asset: Asset) -> dict[str, Any]:
    declared = asset.declared
    return {
        "id": asset.id,
        "uid": asset.uid,
        "task_uid": declared.task_uid,
        "observation_uid": declared.observation_uid,
        "instrument_uid": declared.instrument_uid,
        "role": declared.role,
        "file_name": declared.file_name,
        "size": declared.size,
        "sha256": declared.sha256,
        "content_type": declared.content_type,
        "is_remote": declared.is_remote,
        "transfer_state": asset.state,
        "transfer_progress": asset.progress,
        "transfer_error": asset.error,
        "last_transfer_attempt": asset.last_attempt,
        "declared_at": asset.declared_at,
        "verified_at": asset.verified_at,
        "wcs_box": asset.box,
    }
