"""Uploads: one store under both dialects, where an offset is acknowledged when its bytes are on the disk, not before.

The newest request about an upload is the one that counts; whoever wrote before is cut at once, and what it had brought
is kept. What was right before a lie stays.
"""

import hashlib
import logging
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from functools import partial
from typing import TYPE_CHECKING
from uuid import uuid4

import trio

from skygw.errors import GatewayError, NotFound, StorageFailed, StorageFull, TooLarge
from skygw.ids import InstallId, UploadUid
from skygw.observing.byte_store import ByteStore, ContentKey
from skygw.observing.intake import HASH_THREADS, Body, Intake
from skygw.observing.pens import Pens
from skygw.observing.upload_errors import (
    AlreadyComplete,
    BodyCut,
    Digest,
    DigestMismatch,
    LengthMismatch,
    OffsetMismatch,
    Superseded,
    UploadFailed,
)
from skygw.observing.upload_store import NewUpload, Quota, Upload, UploadState, UploadStore

if TYPE_CHECKING:
    from hashlib import _Hash

log = logging.getLogger("skygw.observing")

SAVE_WITHIN_S = 5.0
"""What a request that was cut may take to keep what it had brought; the next one waits for it."""
COMPLETE_WITHIN_S = 120.0
"""…to complete an upload, once its last byte is there: what was sent before a restart is read again."""
REMEMBERED_HASHES = 1_024
"""Of uploads between two bodies; of others the bytes are read again when they are complete. Each is under 1 KiB."""

NO_SUCH_UPLOAD = "There is no such upload."


@dataclass(frozen=True, slots=True)
class UploadRules:
    """Sizes in bytes, times in seconds."""

    max_bytes: int
    unsized_max_bytes: int
    """Of an upload whose client does not say how long it will be: so much is reserved for it."""
    quota: Quota
    keep_s: float
    """From the last byte that came until it is removed."""
    spare_bytes: int
    """What stays free on the disk, for everything else that lives there."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """An upload that its client asks for."""

    size: int | None = None
    sha256: str | None = None
    metadata: str | None = None


@dataclass(frozen=True, slots=True)
class Append:
    """What a request says of its body."""

    offset: int
    length: int | None
    """Of the body; `None` where it says so itself, at its end."""
    size: int | None = None
    """Of the whole."""
    is_last: bool | None = None
    """Whether the upload is complete with it; `None`: it is when it reaches its size."""
    digests: Sequence[Digest] = ()
    whole: Digest | None = None
    """The SHA-256 of the whole, if the request tells it."""


Check = Callable[[], Awaitable[object]]
"""Raises a `GatewayError` if its caller may not go on."""


class Uploads:
    """`completed` is told of each upload that became complete, and must not wait; `now` is the clock on the wall."""

    def __init__(
        self,
        *,
        store: UploadStore,
        files: ByteStore,
        rules: UploadRules,
        now: Callable[[], datetime],
        completed: Callable[[Upload], None],
    ) -> None:
        self._store = store
        self._files = files
        self.rules = rules
        self.now = now
        self._completed = completed
        self._pens = Pens()
        self._hashes: OrderedDict[UploadUid, tuple[int, _Hash]] = OrderedDict()
        self._hashing = trio.CapacityLimiter(HASH_THREADS)

    async def create(self, install_id: InstallId, wanted: Wanted) -> Upload:
        """Raises `TooLarge`, `QuotaExceeded`, `StorageFull`, `StorageFailed`, `RoutingUnavailable`."""
        limit = self.rules.unsized_max_bytes if wanted.size is None else self.rules.max_bytes
        reserved = limit if wanted.size is None else wanted.size
        if reserved > limit:
            raise TooLarge(f"An upload has {limit} bytes at most, and this one would have {wanted.size}.")
        await self._check_room(wanted.size or 0)
        uid = UploadUid(uuid4())
        await self._files.create(uid)
        new = NewUpload(
            uid=uid,
            install_id=install_id,
            size=wanted.size,
            sha256=wanted.sha256,
            reserved=reserved,
            expires_at=self._expiry(),
            metadata=wanted.metadata,
        )
        try:
            upload = await self._store.create(new, quota=self.rules.quota)
        except GatewayError:
            await self._files.delete_part(uid)
            raise
        log.info("upload created", extra={"upload": str(uid), "install_id": str(install_id), "bytes": wanted.size})
        return upload

    async def look(self, install_id: InstallId, uid: UploadUid) -> Upload:
        """As it stands: whoever was writing has stopped, so that the offset holds until somebody writes again. Raises
        `NotFound`, `UploadFailed`, `Superseded`, `StorageFailed`, `RoutingUnavailable`.
        """
        await self._own(install_id, uid)
        async with self._pens.held(uid):
            return await self._claimed(install_id, uid)

    async def append(
        self, install_id: InstallId, uid: UploadUid, what: Append, body: Body, *, still_allowed: Check
    ) -> Upload:
        """The upload with as much of the body as was taken. `still_allowed` is asked before it becomes complete.

        Cancelled, or with the body cut, it keeps what came, unless the body has a digest. Raises what `look` does, and
        `OffsetMismatch`, `LengthMismatch`, `AlreadyComplete`, `TooLarge` and `StorageFull` before a byte is taken;
        `LengthMismatch`, `DigestMismatch`, `StorageFull` and `BodyCut` behind it.
        """
        await self._own(install_id, uid)
        async with self._pens.held(uid):
            upload = await self._claimed(install_id, uid)
            size = self._agreed_size(upload, what)
            if upload.state is UploadState.COMPLETE:
                return upload
            await self._check_room(_still_to_come(upload, what, size))
            return await self._take(upload, what, size, body, still_allowed)

    async def end(self, install_id: InstallId, uid: UploadUid) -> None:
        """Given up by its client, and gone. Raises `NotFound`, `Superseded`, `StorageFailed`, `RoutingUnavailable`."""
        upload = await self._own(install_id, uid)
        async with self._pens.held(uid):
            await self._remove(upload)
        log.info("upload given up", extra={"upload": str(uid), "install_id": str(install_id)})

    async def settle(self, upload: Upload) -> None:
        """The bytes of a complete upload are a content now; may be repeated. Raises `StorageFailed`, `NotFound`."""
        await self._files.finish(upload.uid, content_of(upload))

    async def remove_expired(self, *, limit: int) -> int:
        """Some of those whose time is over; how many there were. Raises `StorageFailed`, `RoutingUnavailable`."""
        expired = await self._store.expired(now=self.now(), limit=limit)
        for upload in expired:
            async with self._pens.held(upload.uid):
                await self._remove(upload)
        return len(expired)

    # One upload.

    async def _own(self, install_id: InstallId, uid: UploadUid) -> Upload:
        """Before its pen is taken: nobody cuts another's writer."""
        upload = await self._store.find(install_id, uid)
        if upload is None:
            raise NotFound(NO_SUCH_UPLOAD)
        return upload

    async def _claimed(self, install_id: InstallId, uid: UploadUid) -> Upload:
        upload = await self._store.claim(install_id, uid)
        if upload is None or (upload.state is UploadState.OPEN and upload.expires_at <= self.now()):
            raise NotFound(NO_SUCH_UPLOAD)
        if upload.state is UploadState.OPEN and await self._files.size(uid) < upload.offset:
            await self._give_up(upload, "Bytes that were acknowledged are no longer on the disk.")
            log.error("acknowledged bytes of an upload are lost", extra={"upload": str(uid), "offset": upload.offset})
            raise UploadFailed("Bytes of this upload were lost here; it must be sent again.")
        if upload.state is UploadState.FAILED:
            raise UploadFailed(f"This upload has failed: {upload.failure}")
        return upload

    def _agreed_size(self, upload: Upload, what: Append) -> int | None:
        """How long the whole is, as far as everybody agrees. Raises what `append` raises before a byte is taken."""
        is_complete = upload.state is UploadState.COMPLETE
        if what.offset != upload.offset:
            raise OffsetMismatch(expected=upload.offset, provided=what.offset, is_complete=is_complete)
        if is_complete:
            if what.length != 0:
                raise LengthMismatch("This upload is complete and takes no more bytes.")
            if what.is_last is not None:
                raise AlreadyComplete("This upload is complete already.")
        said = [upload.size, what.size]
        if what.is_last and what.length is not None:
            said.append(what.offset + what.length)
        sizes = {size for size in said if size is not None}
        if len(sizes) > 1:
            told = " and ".join(str(size) for size in sorted(sizes))
            raise LengthMismatch(f"The length of this upload is said to be {told} bytes.")
        size = sizes.pop() if sizes else None
        limit = self.rules.unsized_max_bytes if upload.size is None else self.rules.max_bytes
        end = what.offset + (what.length or 0)
        if upload.size is None and max(end, size or 0) > limit:
            raise TooLarge(f"An upload whose length was not known at first has {limit} bytes at most.")
        if size is not None and end > size:
            raise LengthMismatch(f"This body would end at {end}, and the upload has {size} bytes.")
        return size

    async def _take(self, upload: Upload, what: Append, size: int | None, body: Body, still_allowed: Check) -> Upload:
        uid = upload.uid
        before = self._hash_before(upload)
        async with self._files.append(uid, offset=upload.offset) as writer:
            intake = Intake(
                writer,
                offset=upload.offset,
                at_most=self.rules.unsized_max_bytes if size is None else size,
                whole=before,
                digests=what.digests,
                acknowledge=partial(self._acknowledge, upload, size),
                hashing=self._hashing,
            )
            try:
                await intake.take(body)
                intake.check()
            except LengthMismatch as error:
                await self._give_up(upload, error.message)
                raise
            except (BodyCut, StorageFull, trio.Cancelled):
                if not what.digests:
                    await self._save(uid, intake)
                raise
            is_through = intake.reached == size if what.is_last is None else what.is_last
            if not is_through:
                return replace(upload, offset=await self._saved(uid, intake), size=size, expires_at=self._expiry())
            if size is not None and intake.reached != size:
                await self._saved(uid, intake)
                raise LengthMismatch(f"The last body ended at {intake.reached}, and the upload has {size} bytes.")
            with trio.CancelScope(shield=True, deadline=trio.current_time() + COMPLETE_WITHIN_S):
                return await self._complete(upload, what, intake, still_allowed)
        raise StorageFailed("The last bytes of this upload took too long to be written down.")

    async def _complete(self, upload: Upload, what: Append, intake: Intake, still_allowed: Check) -> Upload:
        await still_allowed()
        size = await intake.end()
        whole = intake.whole
        if whole is not None and whole[0] == size:
            sha256 = whole[1].hexdigest()
        else:
            sha256 = await self._read_again(upload.uid, size)
        told = what.whole.value.hex() if what.whole is not None else sha256
        for declared in (upload.sha256 or sha256, told):
            if declared != sha256:
                await self._give_up(upload, f"The SHA-256 of what came is {sha256}, which is not what was declared.")
                sentence = "These are not the bytes whose SHA-256 was declared; the upload has failed."
                digest = Digest("sha256", bytes.fromhex(declared), "sha-256", "Repr-Digest")
                raise DigestMismatch(sentence, digest=digest, is_of_whole=True)
        if not await self._store.complete(upload.uid, upload.writer, size=size, sha256=sha256):
            raise Superseded
        self._hashes.pop(upload.uid, None)
        done = replace(upload, state=UploadState.COMPLETE, offset=size, size=size, sha256=sha256)
        try:
            await self.settle(done)
        except GatewayError as error:  # whoever verifies it does this again
            log.warning("a complete upload lies where it came", extra={"upload": str(done.uid), "why": error.message})
        log.info("upload complete", extra={"upload": str(done.uid), "bytes": size, "sha256": sha256})
        self._completed(done)
        return done

    async def _save(self, uid: UploadUid, intake: Intake) -> None:
        """Of a body that will not go on: as much as there is, if that can be done soon."""
        with trio.CancelScope(shield=True, deadline=trio.current_time() + SAVE_WITHIN_S):
            try:
                await self._saved(uid, intake)
            except (GatewayError, Superseded) as error:
                log.warning("the last bytes of a body were not kept", extra={"upload": str(uid), "why": str(error)})

    async def _saved(self, uid: UploadUid, intake: Intake) -> int:
        offset = await intake.save()
        if intake.whole is not None:
            self._hashes[uid] = intake.whole
            self._hashes.move_to_end(uid)
            if len(self._hashes) > REMEMBERED_HASHES:
                self._hashes.popitem(last=False)
        return offset

    async def _acknowledge(self, upload: Upload, size: int | None, offset: int) -> None:
        if not await self._store.advance(
            upload.uid, upload.writer, offset=offset, size=size, expires_at=self._expiry()
        ):
            raise Superseded

    async def _give_up(self, upload: Upload, reason: str) -> None:
        await self._store.fail(upload.uid, upload.writer, reason=reason[:250])
        self._hashes.pop(upload.uid, None)
        log.warning("upload failed", extra={"upload": str(upload.uid), "why": reason})

    async def _remove(self, upload: Upload) -> None:
        await self._files.delete_part(upload.uid)
        await self._store.forget(upload.install_id, upload.uid)
        self._hashes.pop(upload.uid, None)

    def _hash_before(self, upload: Upload) -> "_Hash | None":
        """Of everything before the offset, to go on with; `None` if that is to be read again at the end."""
        if upload.offset == 0:
            return hashlib.sha256()
        at, found = self._hashes.get(upload.uid, (0, None))
        return found.copy() if found is not None and at == upload.offset else None

    async def _read_again(self, uid: UploadUid, size: int) -> str:
        found = hashlib.sha256()
        length = 0
        async with self._files.read_part(uid, start=0, length=size) as pieces:
            async for piece in pieces:
                await trio.to_thread.run_sync(found.update, piece, limiter=self._hashing)
                length += len(piece)
        if length != size:
            raise StorageFailed(f"Only {length} of {size} bytes of an upload can be read.")
        return found.hexdigest()

    async def _check_room(self, size: int) -> None:
        free = await self._files.free_bytes()
        if free is not None and size > free - self.rules.spare_bytes:
            raise StorageFull(f"There is no room for {size} bytes now.")

    def _expiry(self) -> datetime:
        return self.now() + timedelta(seconds=self.rules.keep_s)


def content_of(upload: Upload) -> ContentKey:
    """What a complete upload has become."""
    if upload.sha256 is None or upload.size is None:
        raise ValueError(f"upload {upload.uid} is not complete")
    return ContentKey(upload.sha256, upload.size)


def _still_to_come(upload: Upload, what: Append, size: int | None) -> int:
    if what.length is not None:
        return what.length
    return 0 if size is None else size - upload.offset
