"""The one store under both dialects: what is acknowledged is there, the newest request counts, a lie costs the liar."""

import logging
import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta
from hashlib import sha1, sha256
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.errors import Forbidden, NotFound, QuotaExceeded, StorageFailed, StorageFull, TooLarge
from skygw.ids import InstallId, UploadUid
from skygw.observing import intake
from skygw.observing.byte_store import MIB, PIECE_BYTES
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
from skygw.observing.upload_store import Quota, Upload, UploadState
from skygw.observing.uploads import Append, UploadRules, Uploads, Wanted, content_of
from skygw.storage.local import LocalPart, LocalStore
from tests.fakes.memory_uploads import MemoryUploads
from tests.storage.contract import all_of, pattern

PATIENCE_S = 20.0
NOW = datetime(2031, 5, 1, 12, tzinfo=UTC)
SITE = InstallId(uuid4())
RULES = UploadRules(
    max_bytes=64 * MIB,
    unsized_max_bytes=4 * MIB,
    quota=Quota(bytes=100 * MIB, uploads=10),
    keep_s=3_600.0,
    spare_bytes=0,
)
PIECE = 64 * 1024


class Sent:
    """A body that comes in pieces as a socket brings them; then it ends, is cut, or hangs."""

    def __init__(self, data: bytes, *, then: str = "end") -> None:
        self._pieces = [data[at : at + PIECE] for at in range(0, len(data), PIECE)]
        self._then = then
        self.hangs = trio.Event()

    async def next(self) -> bytes:
        await trio.lowlevel.checkpoint()
        if self._pieces:
            return self._pieces.pop(0)
        if self._then == "cut":
            raise BodyCut
        if self._then == "hang":
            self.hangs.set()
            await trio.sleep_forever()
        return b""


class FullDisk(LocalStore):
    """Says how much is free, and has no room behind so many bytes of a part."""

    free: int | None = None

    async def free_bytes(self) -> int | None:
        return self.free


@dataclass
class World:
    folder: Path
    store: MemoryUploads = field(default_factory=MemoryUploads)
    completed: list[Upload] = field(default_factory=list)
    now: datetime = NOW

    def __post_init__(self) -> None:
        self.files = LocalStore(self.folder)
        self.uploads = self.a_process()

    def a_process(self, files: LocalStore | None = None, rules: UploadRules = RULES) -> Uploads:
        """Another one on the same store and the same disk: after a restart, or beside this one."""
        return Uploads(
            store=self.store,
            files=files or LocalStore(self.folder),
            rules=rules,
            now=lambda: self.now,
            completed=self.completed.append,
        )

    async def create(self, size: int | None, *, sha256: str | None = None) -> UploadUid:
        return (await self.uploads.create(SITE, Wanted(size=size, sha256=sha256))).uid

    async def append(
        self,
        uid: UploadUid,
        body: Sent | bytes,
        offset: int = 0,
        *,
        uploads: Uploads | None = None,
        still_allowed: Callable[[], object] = lambda: None,
        **said: Any,
    ) -> Upload:
        async def allowed() -> None:
            still_allowed()

        length = len(body) if isinstance(body, bytes) else None
        sent = Sent(body) if isinstance(body, bytes) else body
        what = replace(Append(offset, length), **said)
        with trio.fail_after(PATIENCE_S):
            return await (uploads or self.uploads).append(SITE, uid, what, sent, still_allowed=allowed)

    async def offset(self, uid: UploadUid) -> int:
        return (await self.uploads.look(SITE, uid)).offset

    async def content(self, upload: Upload) -> bytes:
        key = content_of(upload)
        found = await all_of(self.files.read(key, start=0, length=key.size))
        assert sha256(found).hexdigest() == key.sha256
        return found

    def on_disk(self, uid: UploadUid) -> bytes:
        return (self.folder / "parts" / str(uid)).read_bytes()


@pytest.fixture
def world(tmp_path: Path) -> World:
    return World(tmp_path / "files")


def digest_of(data: bytes) -> Digest:
    return Digest("sha1", sha1(data, usedforsecurity=False).digest(), "sha1", "Upload-Checksum")


async def test_an_upload_in_one_body_is_complete_and_named_by_what_it_is(world: World) -> None:
    data = pattern(3 * MIB + 17)
    done = await world.append(await world.create(len(data)), data)
    assert (done.state, done.offset, done.sha256) == (UploadState.COMPLETE, len(data), sha256(data).hexdigest())
    assert await world.content(done) == data
    assert world.completed == [done]
    assert await world.uploads.look(SITE, done.uid) == replace(done, writer=done.writer + 1)


async def test_a_cut_body_counts_as_far_as_it_came_and_the_rest_makes_it_whole(world: World) -> None:
    data = pattern(3 * MIB)
    uid = await world.create(len(data))
    came = 2 * MIB + 3 * PIECE + 11
    with pytest.raises(BodyCut):
        await world.append(uid, Sent(data[:came], then="cut"))
    assert await world.offset(uid) == came
    assert world.on_disk(uid) == data[:came]
    done = await world.append(uid, data[came:], came)
    assert await world.content(done) == data


async def test_an_offset_is_written_down_only_after_its_bytes_are_on_the_disk(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(intake, "FLUSH_BYTES", PIECE_BYTES)
    data = pattern(4 * MIB)
    uid = await world.create(len(data) + 1)
    on_disk, acknowledged = [0], []
    sync = os.fdatasync

    def synced(file: int) -> None:
        size = os.fstat(file).st_size
        sync(file)
        on_disk.append(size)

    def look() -> None:
        row = world.store.rows[uid]
        assert row.offset <= on_disk[-1]
        acknowledged.append(row.offset)

    monkeypatch.setattr(os, "fdatasync", synced)
    monkeypatch.setattr(world.store, "changed", look)
    await world.append(uid, data)
    assert sorted(set(acknowledged)) == [0, *range(PIECE_BYTES, len(data) + 1, PIECE_BYTES)]
    await world.append(uid, b"!", len(data))
    assert (acknowledged[-1], on_disk[-1]) == (len(data) + 1, len(data) + 1)


async def test_the_next_process_goes_on_where_the_last_one_was_killed(world: World) -> None:
    """The disk may have more than was acknowledged; the digest is of bytes that are read again."""
    data = pattern(2 * MIB + 5)
    uid = await world.create(len(data))
    await world.append(uid, data[:MIB])
    with (world.folder / "parts" / str(uid)).open("ab") as part:
        part.write(b"of a body that nobody acknowledged")
    after = world.a_process()
    assert (await after.look(SITE, uid)).offset == MIB
    done = await world.append(uid, data[MIB:], MIB, uploads=after)
    assert done.sha256 == sha256(data).hexdigest()
    assert await world.content(done) == data


async def test_bytes_that_were_acknowledged_and_are_lost_end_the_upload(
    world: World, caplog: pytest.LogCaptureFixture
) -> None:
    uid = await world.create(100)
    await world.append(uid, b"x" * 50)
    (world.folder / "parts" / str(uid)).write_bytes(b"x" * 20)
    for _ in range(2):
        with pytest.raises(UploadFailed):
            await world.uploads.look(SITE, uid)
    assert [record.message for record in caplog.records if record.levelno >= logging.ERROR] == [
        "acknowledged bytes of an upload are lost"
    ]


async def test_the_newest_request_goes_on_at_once_and_what_the_older_one_brought_is_kept(world: World) -> None:
    data = pattern(MIB + 4 * PIECE)
    uid = await world.create(len(data))
    half_open = Sent(data[: MIB + PIECE], then="hang")
    ended: list[BaseException] = []

    async def older() -> None:
        try:
            await world.append(uid, half_open)
        except Superseded as error:
            ended.append(error)

    async with trio.open_nursery() as nursery:
        nursery.start_soon(older)
        with trio.fail_after(PATIENCE_S):
            await half_open.hangs.wait()
            assert await world.offset(uid) == MIB + PIECE
    assert [type(error) for error in ended] == [Superseded]
    done = await world.append(uid, data[MIB + PIECE :], MIB + PIECE)
    assert await world.content(done) == data


async def test_of_many_at_once_only_the_newest_is_answered(world: World) -> None:
    data = pattern(PIECE)
    uid = await world.create(len(data))
    outcomes: list[str] = []

    async def one(body: Sent) -> None:
        try:
            await world.append(uid, body)
            outcomes.append("done")
        except Superseded:
            outcomes.append("superseded")

    async with trio.open_nursery() as nursery:
        for _ in range(5):
            nursery.start_soon(one, Sent(b"", then="hang"))
            await trio.testing.wait_all_tasks_blocked()
        nursery.start_soon(one, Sent(data))
    assert outcomes == ["superseded"] * 5 + ["done"]


async def test_a_newer_writer_of_another_process_ends_the_older_one(world: World) -> None:
    data = pattern(3 * MIB)
    uid = await world.create(len(data))
    beside = world.a_process()
    older = Sent(data[:MIB], then="hang")
    outcome: list[str] = []

    async def write() -> None:
        try:
            await world.append(uid, older)
        except Superseded:
            outcome.append("superseded")

    async with trio.open_nursery() as nursery:
        nursery.start_soon(write)
        with trio.fail_after(PATIENCE_S):
            await older.hangs.wait()
        assert (await beside.look(SITE, uid)).offset == 0
        await world.append(uid, data[: 2 * MIB], uploads=beside)
        assert await world.offset(uid) == 2 * MIB
    assert outcome == ["superseded"]
    assert world.on_disk(uid)[: 2 * MIB] == data[: 2 * MIB]


async def test_another_installation_sees_nothing_and_cuts_nobody(world: World) -> None:
    uid = await world.create(MIB)
    body = Sent(pattern(PIECE), then="hang")
    stranger = InstallId(uuid4())
    with trio.CancelScope() as writing:
        async with trio.open_nursery() as nursery:
            nursery.start_soon(world.append, uid, body)
            with trio.fail_after(PATIENCE_S):
                await body.hangs.wait()
            for attempt in (world.uploads.look, world.uploads.end):
                with pytest.raises(NotFound, match="There is no such upload"):
                    await attempt(stranger, uid)
            with pytest.raises(NotFound, match="There is no such upload"):
                await world.uploads.append(
                    stranger, uid, Append(0, 1), Sent(b"x"), still_allowed=trio.lowlevel.checkpoint
                )
            assert world.store.rows[uid].writer == 1
            writing.cancel()
    assert await world.offset(uid) == PIECE


async def test_a_body_with_a_wrong_digest_leaves_everything_as_it_was(world: World) -> None:
    data = pattern(3 * MIB)
    uid = await world.create(len(data))
    await world.append(uid, data[:MIB])
    with pytest.raises(DigestMismatch):
        await world.append(uid, b"!" * 2 * MIB, MIB, digests=[digest_of(data[MIB:])])
    assert await world.offset(uid) == MIB
    done = await world.append(uid, data[MIB:], MIB, digests=[digest_of(data[MIB:])])
    assert await world.content(done) == data


async def test_of_a_body_with_a_digest_that_is_cut_nothing_counts(world: World) -> None:
    data = pattern(2 * MIB)
    uid = await world.create(len(data))
    await world.append(uid, data[:PIECE])
    with pytest.raises(BodyCut):
        await world.append(uid, Sent(data[PIECE:MIB], then="cut"), PIECE, digests=[digest_of(data[PIECE:])])
    assert await world.offset(uid) == PIECE
    done = await world.append(uid, data[PIECE:], PIECE, digests=[digest_of(data[PIECE:])])
    assert done.sha256 == sha256(data).hexdigest()


async def test_a_whole_that_is_not_what_was_declared_fails_and_stays_on_the_disk(world: World) -> None:
    data = pattern(MIB)
    uid = await world.create(len(data), sha256=sha256(b"something else").hexdigest())
    with pytest.raises(DigestMismatch) as error:
        await world.append(uid, data)
    assert error.value.is_of_whole
    assert world.on_disk(uid) == data
    assert world.store.rows[uid].state is UploadState.FAILED
    assert sha256(data).hexdigest() in (world.store.rows[uid].failure or "")
    with pytest.raises(UploadFailed):
        await world.append(uid, b"", len(data))
    assert world.completed == []


async def test_more_bytes_than_declared_fail_the_upload(world: World) -> None:
    uid = await world.create(MIB)
    with pytest.raises(LengthMismatch):
        await world.append(uid, Sent(pattern(MIB + 1)))
    with pytest.raises(UploadFailed, match="More bytes came"):
        await world.uploads.look(SITE, uid)


@pytest.mark.parametrize(
    ("said", "expected"),
    [
        ({"offset": 11}, OffsetMismatch),
        ({"offset": 9}, OffsetMismatch),
        ({"length": 91}, LengthMismatch),
        ({"size": 101}, LengthMismatch),
        ({"length": 89, "is_last": True}, LengthMismatch),
        ({"length": 90, "size": 99, "is_last": True}, LengthMismatch),
    ],
)
async def test_a_lie_told_beforehand_is_refused_and_costs_nothing(
    world: World, said: dict[str, Any], expected: type[Exception]
) -> None:
    uid = await world.create(100)
    await world.append(uid, b"0123456789")
    body = Sent(b"never read", then="hang")
    with pytest.raises(expected):
        await world.append(uid, body, **{"offset": 10, "length": 5, **said})
    assert not body.hangs.is_set()
    assert await world.offset(uid) == 10


async def test_an_upload_of_unknown_length_ends_where_its_client_says(world: World) -> None:
    uid = await world.create(None)
    await world.append(uid, b"one ", is_last=False)
    seen = await world.append(uid, b"two ", 4, is_last=False, size=11)
    assert (seen.size, seen.state) == (11, UploadState.OPEN)
    await world.append(uid, b"six", 8, is_last=False)
    done = await world.append(uid, b"", 11, is_last=True)
    assert await world.content(done) == b"one two six"
    with pytest.raises(AlreadyComplete):
        await world.append(uid, b"", 11, is_last=True)
    with pytest.raises(LengthMismatch, match="complete"):
        await world.append(uid, b"more", 11, is_last=False)


async def test_a_last_body_that_is_too_short_does_not_complete_the_upload(world: World) -> None:
    uid = await world.create(100)
    with pytest.raises(LengthMismatch, match="ended at 40"):
        await world.append(uid, Sent(b"x" * 40), is_last=True)
    assert await world.offset(uid) == 40


async def test_an_upload_of_unknown_length_grows_no_further_than_was_reserved(world: World) -> None:
    uid = await world.create(None)
    too_much: list[dict[str, Any]] = [{"length": 4 * MIB + 1}, {"size": 4 * MIB + 1}]
    for said in too_much:
        with pytest.raises(TooLarge):
            await world.append(uid, Sent(b""), is_last=False, **said)
    with pytest.raises(LengthMismatch):
        await world.append(uid, Sent(bytes(4 * MIB + 1)), is_last=False)
    with pytest.raises(UploadFailed):
        await world.uploads.look(SITE, uid)


async def test_size_quota_and_room_are_looked_at_before_anything_is_made(world: World) -> None:
    with pytest.raises(TooLarge):
        await world.create(64 * MIB + 1)
    await world.create(64 * MIB)
    with pytest.raises(QuotaExceeded):
        await world.create(37 * MIB)
    files = FullDisk(world.folder)
    files.free = 1_000
    crowded = world.a_process(files, replace(RULES, spare_bytes=100))
    with pytest.raises(StorageFull):
        await crowded.create(SITE, Wanted(size=901))
    uid = (await crowded.create(SITE, Wanted(size=900))).uid
    files.free = 999
    with pytest.raises(StorageFull):
        await world.append(uid, Sent(b"", then="hang"), length=900, uploads=crowded)
    assert len(list((world.folder / "parts").iterdir())) == len(world.store.rows) == 2


async def test_a_disk_that_fills_up_keeps_what_came_before(world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    data = pattern(3 * MIB)
    uid = await world.create(len(data))
    write = LocalPart.write

    async def full(self: LocalPart, piece: bytes | bytearray) -> None:
        if await world.files.size(uid) >= 2 * PIECE_BYTES:
            raise StorageFull("There is no room for these bytes now.")
        await write(self, piece)

    monkeypatch.setattr(LocalPart, "write", full)
    with pytest.raises(StorageFull):
        await world.append(uid, data)
    assert await world.offset(uid) == 2 * PIECE_BYTES
    monkeypatch.undo()
    done = await world.append(uid, data[2 * PIECE_BYTES :], 2 * PIECE_BYTES)
    assert await world.content(done) == data


async def test_whoever_lost_the_right_while_sending_does_not_complete_it(world: World) -> None:
    def refuse() -> None:
        raise Forbidden("This installation is no longer active.")

    data = pattern(PIECE)
    uid = await world.create(len(data))
    with pytest.raises(Forbidden):
        await world.append(uid, data, still_allowed=refuse)
    assert world.store.rows[uid].state is UploadState.OPEN
    assert world.completed == []


async def test_a_complete_upload_is_settled_by_whoever_comes_next_if_that_failed(
    world: World, monkeypatch: pytest.MonkeyPatch
) -> None:
    data = pattern(PIECE)
    uid = await world.create(len(data))

    async def fail(*_: object) -> None:
        raise StorageFailed("Where files lie cannot be used now.")

    monkeypatch.setattr(LocalStore, "finish", fail)
    done = await world.append(uid, data)
    monkeypatch.undo()
    assert not await world.files.holds(content_of(done))
    await world.a_process().settle(done)
    assert await world.content(done) == data


async def test_what_was_given_up_is_gone(world: World) -> None:
    uid = await world.create(100)
    await world.append(uid, b"x" * 10)
    await world.uploads.end(SITE, uid)
    assert not (world.folder / "parts" / str(uid)).exists()
    for attempt in (world.uploads.look, world.uploads.end):
        with pytest.raises(NotFound):
            await attempt(SITE, uid)


async def test_what_expired_is_not_seen_and_removed_a_few_at_a_time(world: World) -> None:
    old = [await world.create(10) for _ in range(3)]
    world.now += timedelta(minutes=59)
    await world.append(old[0], b"12345")
    young = await world.create(10)
    world.now += timedelta(minutes=2)
    with pytest.raises(NotFound):
        await world.uploads.look(SITE, old[1])
    assert [await world.offset(uid) for uid in (old[0], young)] == [5, 0]
    assert [await world.uploads.remove_expired(limit=1) for _ in range(3)] == [1, 1, 0]
    assert set(world.store.rows) == {old[0], young}
    assert {path.name for path in (world.folder / "parts").iterdir()} == {str(old[0]), str(young)}
