"""`UploadStore` in memory, a verified fake: one suite holds it and PostgreSQL to the same."""

from collections.abc import Sequence
from dataclasses import replace
from datetime import datetime

from skygw.errors import QuotaExceeded
from skygw.ids import InstallId, UploadUid
from skygw.observing.upload_store import NewUpload, Quota, Upload, UploadState


class MemoryUploads:
    def __init__(self) -> None:
        self.rows: dict[UploadUid, Upload] = {}
        self.reserved: dict[UploadUid, int] = {}

    async def create(self, new: NewUpload, *, quota: Quota) -> Upload:
        if new.uid in self.rows:
            return self.rows[new.uid]
        open_now = [
            uid for uid, row in self.rows.items() if (row.install_id, row.state) == (new.install_id, UploadState.OPEN)
        ]
        total = sum(self.reserved[uid] for uid in open_now) + new.reserved
        if len(open_now) + 1 > quota.uploads or total > quota.bytes:
            raise QuotaExceeded(
                f"With this one the open uploads of this installation would come to {total} bytes in "
                f"{len(open_now) + 1}; it may have {quota.bytes} in {quota.uploads}.",
                details={"bytes": total - new.reserved, "uploads": len(open_now)},
            )
        upload = Upload(
            uid=new.uid,
            install_id=new.install_id,
            size=new.size,
            sha256=new.sha256,
            asset_uid=new.asset_uid,
            offset=0,
            state=UploadState.OPEN,
            writer=0,
            expires_at=new.expires_at,
            metadata=new.metadata,
        )
        self.rows[new.uid] = upload
        self.reserved[new.uid] = new.reserved
        self.changed()
        return upload

    async def find(self, install_id: InstallId, uid: UploadUid) -> Upload | None:
        row = self.rows.get(uid)
        return row if row is not None and row.install_id == install_id else None

    async def claim(self, install_id: InstallId, uid: UploadUid) -> Upload | None:
        row = await self.find(install_id, uid)
        return None if row is None else self._set(replace(row, writer=row.writer + 1))

    async def advance(
        self, uid: UploadUid, writer: int, *, offset: int, size: int | None, expires_at: datetime
    ) -> bool:
        row = self._writable(uid, writer)
        if row is None:
            return False
        offset, size = max(offset, row.offset), row.size if size is None else size
        self._set(replace(row, offset=offset, size=size, expires_at=expires_at))
        return True

    async def complete(self, uid: UploadUid, writer: int, *, size: int, sha256: str) -> bool:
        row = self._writable(uid, writer)
        if row is None:
            return False
        self._set(replace(row, offset=size, size=size, sha256=sha256, state=UploadState.COMPLETE))
        return True

    async def fail(self, uid: UploadUid, writer: int, *, reason: str) -> bool:
        row = self._writable(uid, writer)
        if row is None:
            return False
        self._set(replace(row, state=UploadState.FAILED, failure=reason))
        return True

    async def forget(self, install_id: InstallId, uid: UploadUid) -> bool:
        if await self.find(install_id, uid) is None:
            return False
        del self.rows[uid]
        self.changed()
        return True

    async def expired(self, *, now: datetime, limit: int) -> Sequence[Upload]:
        over = [
            row
            for row in self.rows.values()
            if row.expires_at <= now and (row.state is UploadState.OPEN or row.asset_uid is None)
        ]
        return sorted(over, key=lambda row: row.expires_at)[:limit]

    def changed(self) -> None:
        """After each change; for a store that outlives its process."""

    def _writable(self, uid: UploadUid, writer: int) -> Upload | None:
        row = self.rows.get(uid)
        return row if row is not None and (row.writer, row.state) == (writer, UploadState.OPEN) else None

    def _set(self, row: Upload) -> Upload:
        self.rows[row.uid] = row
        self.changed()
        return row
