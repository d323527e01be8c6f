"""What every memory of uploads must do: inherit `UploadStoreContract`, give it a store and an installation it knows."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta
from uuid import uuid4

import pytest
import trio

from skygw.errors import QuotaExceeded
from skygw.ids import InstallId, UploadUid
from skygw.observing.upload_store import NewUpload, Quota, Upload, UploadState, UploadStore

LATER = datetime(2031, 5, 1, 12, tzinfo=UTC)
"""After any clock of a test."""
ROOMY = Quota(bytes=10_000, uploads=100)
DIGEST = "0a" * 32


def new_upload(install_id: InstallId, *, size: int | None = 100, reserved: int = 100) -> NewUpload:
    return NewUpload(
        uid=UploadUid(uuid4()),
        install_id=install_id,
        size=size,
        sha256=None,
        reserved=reserved,
        expires_at=LATER,
    )


class UploadStoreContract:
    async def test_what_was_created_is_found_as_it_was_asked_for(
        self, store: UploadStore, install_id: InstallId
    ) -> None:
        new = replace(new_upload(install_id), sha256=DIGEST, metadata="filename bTEz")
        created = await store.create(new, quota=ROOMY)
        assert created == Upload(
            uid=new.uid,
            install_id=install_id,
            size=100,
            sha256=DIGEST,
            asset_uid=None,
            offset=0,
            state=UploadState.OPEN,
            writer=0,
            expires_at=LATER,
            failure=None,
            metadata="filename bTEz",
        )
        assert await store.find(install_id, new.uid) == created

    async def test_another_installation_finds_claims_and_forgets_nothing(
        self, store: UploadStore, install_id: InstallId
    ) -> None:
        upload = await store.create(new_upload(install_id), quota=ROOMY)
        stranger = InstallId(uuid4())
        assert await store.find(stranger, upload.uid) is None
        assert await store.claim(stranger, upload.uid) is None
        assert not await store.forget(stranger, upload.uid)
        assert await store.find(install_id, upload.uid) == upload

    async def test_who_has_an_older_pen_writes_no_more(self, store: UploadStore, install_id: InstallId) -> None:
        uid = (await store.create(new_upload(install_id), quota=ROOMY)).uid
        old = await store.claim(install_id, uid)
        new = await store.claim(install_id, uid)
        assert old is not None
        assert new is not None
        assert (old.writer, new.writer) == (1, 2)
        assert not await store.advance(uid, old.writer, offset=10, size=None, expires_at=LATER)
        assert not await store.complete(uid, old.writer, size=100, sha256=DIGEST)
        assert not await store.fail(uid, old.writer, reason="Nothing.")
        assert await store.advance(uid, new.writer, offset=10, size=None, expires_at=LATER + timedelta(hours=1))
        found = await store.find(install_id, uid)
        assert found == replace(new, offset=10, expires_at=LATER + timedelta(hours=1))

    async def test_a_length_that_becomes_known_stays_known(self, store: UploadStore, install_id: InstallId) -> None:
        uid = (await store.create(new_upload(install_id, size=None), quota=ROOMY)).uid
        for size in (None, 70, None):
            assert await store.advance(uid, 0, offset=5, size=size, expires_at=LATER)
        found = await store.find(install_id, uid)
        assert found is not None
        assert (found.size, found.offset) == (70, 5)

    async def test_an_offset_never_gets_smaller(self, store: UploadStore, install_id: InstallId) -> None:
        uid = (await store.create(new_upload(install_id), quota=ROOMY)).uid
        for offset in (50, 20):
            await store.advance(uid, 0, offset=offset, size=None, expires_at=LATER)
        found = await store.find(install_id, uid)
        assert found is not None
        assert found.offset == 50

    async def test_what_is_complete_or_failed_stays_so(self, store: UploadStore, install_id: InstallId) -> None:
        complete = (await store.create(new_upload(install_id), quota=ROOMY)).uid
        failed = (await store.create(new_upload(install_id), quota=ROOMY)).uid
        assert await store.complete(complete, 0, size=100, sha256=DIGEST)
        assert await store.fail(failed, 0, reason="Too many bytes came.")
        for uid in (complete, failed):
            assert not await store.advance(uid, 0, offset=1, size=None, expires_at=LATER)
            assert not await store.complete(uid, 0, size=1, sha256="ff" * 32)
            assert not await store.fail(uid, 0, reason="Something else.")
        done, lost = await store.claim(install_id, complete), await store.claim(install_id, failed)
        assert done is not None
        assert lost is not None
        assert (done.state, done.offset, done.size, done.sha256) == (UploadState.COMPLETE, 100, 100, DIGEST)
        assert (lost.state, lost.failure) == (UploadState.FAILED, "Too many bytes came.")

    async def test_the_quota_counts_what_is_open_of_one_installation(
        self, store: UploadStore, install_id: InstallId
    ) -> None:
        first = await store.create(new_upload(install_id, reserved=60), quota=Quota(bytes=100, uploads=2))
        with pytest.raises(QuotaExceeded) as refusal:
            await store.create(new_upload(install_id, reserved=41), quota=Quota(bytes=100, uploads=2))
        assert refusal.value.details == {"bytes": 60, "uploads": 1}
        await store.create(new_upload(install_id, reserved=40), quota=Quota(bytes=100, uploads=2))
        with pytest.raises(QuotaExceeded):
            await store.create(new_upload(install_id, reserved=0), quota=Quota(bytes=100, uploads=2))
        await store.complete(first.uid, 0, size=60, sha256=DIGEST)
        await store.create(new_upload(install_id, reserved=60), quota=Quota(bytes=100, uploads=2))

    async def test_the_quota_holds_when_many_are_created_at_once(
        self, store: UploadStore, install_id: InstallId
    ) -> None:
        refused: list[QuotaExceeded] = []

        async def create() -> None:
            try:
                await store.create(new_upload(install_id, reserved=10), quota=Quota(bytes=35, uploads=100))
            except QuotaExceeded as error:
                refused.append(error)

        async with trio.open_nursery() as nursery:
            for _ in range(8):
                nursery.start_soon(create)
        assert len(refused) == 5

    async def test_what_has_expired_is_listed_oldest_first_and_forgotten_once(
        self, store: UploadStore, install_id: InstallId
    ) -> None:
        uids = []
        for hours in (2, 1, 30):
            new = replace(new_upload(install_id), expires_at=LATER + timedelta(hours=hours))
            uids.append((await store.create(new, quota=ROOMY)).uid)
        found = await store.expired(now=LATER + timedelta(hours=3), limit=10)
        assert [upload.uid for upload in found if upload.uid in uids] == [uids[1], uids[0]]
        assert len(await store.expired(now=LATER + timedelta(hours=3), limit=1)) == 1
        assert await store.forget(install_id, uids[0])
        assert not await store.forget(install_id, uids[0])
        assert await store.find(install_id, uids[0]) is None
