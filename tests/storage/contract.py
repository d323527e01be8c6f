"""What every place where bytes lie must do, whatever it is made of: inherit `ByteStoreContract` and give it stores.

`store` opens the place; `again` opens it anew, as the process after a crash does.
"""

from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager
from hashlib import sha256
from uuid import uuid4

import pytest
import trio

from skygw.errors import NotFound
from skygw.ids import UploadUid
from skygw.observing.byte_store import MIB, PIECE_BYTES, ByteStore, ContentKey

Again = Callable[[], ByteStore]

PART_BYTES = 5 * MIB
"""The least an object store takes as a part that is not the last."""


def a_part() -> UploadUid:
    return UploadUid(uuid4())


def pattern(size: int, *, seed: int = 0) -> bytes:
    """Bytes of which no two stretches are alike."""
    block = b"".join(sha256(b"%d-%d" % (seed, number)).digest() for number in range(2_048))
    return b"".join(block[number:] + block[:number] for number in range(size // len(block) + 1))[:size]


def key_of(data: bytes) -> ContentKey:
    return ContentKey(sha256(data).hexdigest(), len(data))


async def all_of(reading: AbstractAsyncContextManager[AsyncIterator[bytes]]) -> bytes:
    async with reading as pieces:
        return b"".join([piece async for piece in pieces])


async def appended(store: ByteStore, part: UploadUid, data: bytes, *, offset: int = 0, is_last: bool = False) -> int:
    """In pieces, as they come from a socket; how many bytes are kept now."""
    async with store.append(part, offset=offset) as writer:
        for at in range(0, len(data), PIECE_BYTES):
            await writer.write(data[at : at + PIECE_BYTES])
        return await writer.flush(is_last=is_last)


async def stored(store: ByteStore, data: bytes) -> UploadUid:
    """A whole part."""
    part = a_part()
    await store.create(part)
    assert await appended(store, part, data, is_last=True) == len(data)
    return part


class ByteStoreContract:
    async def test_what_was_written_is_read_again_byte_for_byte(self, store: ByteStore) -> None:
        data = pattern(2 * PART_BYTES + 12_345)
        part = await stored(store, data)
        assert await store.size(part) == len(data)
        assert await all_of(store.read_part(part, start=0, length=len(data))) == data
        await store.finish(part, key_of(data))
        assert await all_of(store.read(key_of(data), start=0, length=len(data))) == data

    @pytest.mark.parametrize("size", [0, 1, PIECE_BYTES, PIECE_BYTES + 1])
    async def test_a_content_of_any_size_can_be_finished(self, store: ByteStore, size: int) -> None:
        data = pattern(size, seed=size)
        part = await stored(store, data)
        await store.finish(part, key_of(data))
        assert await store.holds(key_of(data))
        assert await all_of(store.read(key_of(data), start=0, length=size + 100)) == data

    async def test_any_stretch_can_be_read(self, store: ByteStore) -> None:
        data = pattern(3 * PIECE_BYTES)
        part = await stored(store, data)
        await store.finish(part, key_of(data))
        for start, length in [(0, 1), (PIECE_BYTES - 1, 2), (17, PIECE_BYTES + 5), (len(data) - 3, 3)]:
            expected = data[start : start + length]
            assert await all_of(store.read(key_of(data), start=start, length=length)) == expected
        assert await all_of(store.read(key_of(data), start=len(data), length=10)) == b""
        assert await all_of(store.read(key_of(data), start=len(data) - 2, length=10)) == data[-2:]

    async def test_what_a_flush_has_counted_is_there_after_a_restart(self, store: ByteStore, again: Again) -> None:
        data = pattern(PART_BYTES + PIECE_BYTES)
        part = a_part()
        await store.create(part)
        kept = await appended(store, part, data)
        other = again()
        assert PART_BYTES <= kept <= len(data)
        assert await other.size(part) >= kept
        assert await all_of(other.read_part(part, start=0, length=kept)) == data[:kept]
        assert await appended(other, part, data[kept:], offset=kept, is_last=True) == len(data)
        await other.finish(part, key_of(data))
        assert await all_of(other.read(key_of(data), start=0, length=len(data))) == data

    async def test_many_restarts_leave_no_seam(self, store: ByteStore, again: Again) -> None:
        data = pattern(4 * PART_BYTES)
        part = a_part()
        await store.create(part)
        kept = 0
        for end in (1, PART_BYTES - 1, PART_BYTES + 7, 3 * PART_BYTES, len(data)):
            kept = await appended(again(), part, data[kept:end], offset=kept, is_last=end == len(data))
        assert kept == len(data)
        await store.finish(part, key_of(data))
        assert await all_of(store.read(key_of(data), start=0, length=len(data))) == data

    async def test_what_lay_beyond_the_offset_is_gone(self, store: ByteStore) -> None:
        good, bad = pattern(PART_BYTES, seed=1), pattern(2 * PART_BYTES, seed=2)
        part = a_part()
        await store.create(part)
        kept = await appended(store, part, good)
        async with store.append(part, offset=kept) as writer:
            for at in range(0, len(bad), PIECE_BYTES):
                await writer.write(bad[at : at + PIECE_BYTES])
        rest = pattern(1_000, seed=3)
        whole = good[:kept] + rest
        assert await appended(store, part, rest, offset=kept, is_last=True) == len(whole)
        await store.finish(part, key_of(whole))
        assert await all_of(store.read(key_of(whole), start=0, length=len(bad))) == whole

    async def test_a_part_can_end_with_nothing_more(self, store: ByteStore, again: Again) -> None:
        data = pattern(PART_BYTES)
        part = a_part()
        await store.create(part)
        kept = await appended(store, part, data)
        assert await appended(again(), part, data[kept:], offset=kept, is_last=True) == len(data)
        await again().finish(part, key_of(data))
        assert await all_of(store.read(key_of(data), start=0, length=len(data))) == data

    async def test_creating_a_part_again_keeps_what_it_has(self, store: ByteStore) -> None:
        part = await stored(store, b"kept")
        await store.create(part)
        assert await store.size(part) == 4

    async def test_the_same_content_twice_is_one(self, store: ByteStore) -> None:
        data = pattern(PIECE_BYTES + 9)
        first, second = await stored(store, data), await stored(store, data)
        await store.finish(first, key_of(data))
        await store.finish(second, key_of(data))
        assert (await store.size(first), await store.size(second)) == (0, 0)
        assert await all_of(store.read(key_of(data), start=0, length=len(data))) == data

    async def test_finishing_again_changes_nothing(self, store: ByteStore, again: Again) -> None:
        data = pattern(1_000)
        part = await stored(store, data)
        await store.finish(part, key_of(data))
        await again().finish(part, key_of(data))
        assert await all_of(store.read(key_of(data), start=0, length=1_000)) == data

    async def test_what_is_not_there_is_not_found(self, store: ByteStore) -> None:
        nothing = key_of(b"never sent")
        assert not await store.holds(nothing)
        assert await store.size(a_part()) == 0
        with pytest.raises(NotFound):
            await all_of(store.read(nothing, start=0, length=1))
        with pytest.raises(NotFound):
            await store.finish(a_part(), nothing)

    async def test_deleting_what_is_there_or_not_leaves_nothing(self, store: ByteStore) -> None:
        data = pattern(1_000, seed=9)
        part, whole = await stored(store, data), await stored(store, data)
        await store.finish(whole, key_of(data))
        for _ in range(2):
            await store.delete_part(part)
            await store.delete(key_of(data))
        assert await store.size(part) == 0
        assert not await store.holds(key_of(data))

    async def test_parts_are_written_side_by_side(self, store: ByteStore) -> None:
        bodies = {a_part(): pattern(PART_BYTES + number, seed=number) for number in range(4)}

        async def write(part: UploadUid, data: bytes) -> None:
            await store.create(part)
            await appended(store, part, data, is_last=True)
            await store.finish(part, key_of(data))

        async with trio.open_nursery() as nursery:
            for part, data in bodies.items():
                nursery.start_soon(write, part, data)
        for data in bodies.values():
            assert await all_of(store.read(key_of(data), start=0, length=len(data))) == data
