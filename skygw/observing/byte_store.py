"""Where the bytes of uploads lie, as the services see it: parts while they come, contents once they are whole.

Names are the gateway's own: a part is named by its upload, a content by what it is. No word of a peer's ever becomes
part of a name. A directory (`storage/local.py`) and an object store are behind it, with one contract suite.
"""

from collections.abc import AsyncIterator
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from typing import Protocol

from skygw.ids import UploadUid

MIB = 1024 * 1024

PIECE_BYTES = MIB
"""What is handed over at once, each way."""


@dataclass(frozen=True, slots=True)
class ContentKey:
    """Names bytes by themselves: whoever sends the same again finds them there."""

    sha256: str
    """Lower-case hex."""
    size: int


class PartWriter(Protocol):
    """Bytes go where the part ends. One at a time for each part: the caller sees to that."""

    async def write(self, data: bytes | bytearray) -> None:
        """Takes them; they may be anywhere. Cancelling waits for what was handed over. Raises `StorageFull`,
        `StorageFailed`.
        """
        ...

    async def flush(self, *, is_last: bool = False) -> int:
        """Returns how many bytes of the part, from its first, will be there after a power cut: all that was written, or
        less where the store takes only parts of some size; with `is_last`, all. Raises as `write` does.
        """
        ...


class ByteStore(Protocol):
    """Every method but `free_bytes` raises `StorageFailed` when the store cannot do its part."""

    async def create(self, part: UploadUid) -> None:
        """An empty part, which is there after a power cut. One that is there already stays as it is."""
        ...

    async def size(self, part: UploadUid) -> int:
        """How many bytes of it are there: all that a flush has counted, and maybe more; 0 if it does not exist."""
        ...

    def append(self, part: UploadUid, *, offset: int) -> AbstractAsyncContextManager[PartWriter]:
        """Writes from `offset`, which is at most `size`: what lay beyond is gone. What was written and never flushed
        may be there afterwards or not; what a flush has counted stays.
        """
        ...

    def read_part(
        self, part: UploadUid, *, start: int, length: int
    ) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """Its bytes, in pieces of `PIECE_BYTES` at most. Fewer come if it ends before."""
        ...

    async def finish(self, part: UploadUid, key: ContentKey) -> None:
        """The part is that content from now on, as a whole or not at all, and is a part no more. May be repeated after
        a crash; a content that was there already stays, and the part goes. Raises `NotFound` if neither is there.
        """
        ...

    async def holds(self, key: ContentKey) -> bool:
        """Whether this content is there, whole."""
        ...

    def read(self, key: ContentKey, *, start: int, length: int) -> AbstractAsyncContextManager[AsyncIterator[bytes]]:
        """As `read_part`. Raises `NotFound` if the content is not there."""
        ...

    async def delete_part(self, part: UploadUid) -> None:
        """Gone, also if it never was."""
        ...

    async def delete(self, key: ContentKey) -> None:
        """Gone, also if it never was."""
        ...

    async def free_bytes(self) -> int | None:
        """What still fits, as far as anybody knows; `None` where that is no question."""
        ...
