"""Bytes in a directory of the gateway's own: parts while they come, contents under their digest once they are whole.

Written once, read often. Nobody else has business here: directories are 0700, files 0600, links are not followed.
"""

import errno
import os
from collections.abc import AsyncGenerator, AsyncIterator, Callable, Iterator
from contextlib import aclosing, asynccontextmanager, contextmanager, suppress
from pathlib import Path
from typing import Final, TypeVar, TypeVarTuple

import trio

from skygw.errors import NotFound, StorageFailed, StorageFull
from skygw.ids import UploadUid
from skygw.observing.byte_store import PIECE_BYTES, ContentKey

THREADS: Final = 8
"""At work at once: a disk that hangs must not take the threads that everything else shares."""

DIRECTORY_MODE: Final = 0o700
FILE_MODE: Final = 0o600
_ALWAYS: Final = os.O_CLOEXEC | os.O_NOFOLLOW
_NO_ROOM: Final = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)

T = TypeVar("T")
Ts = TypeVarTuple("Ts")


class LocalStore:
    """`ByteStore` in `root`, which is made when first needed. The file system is one of this machine's: what `fsync`
    has returned for is there.
    """

    def __init__(self, root: Path) -> None:
        self._parts = root / "parts"
        self._contents = root / "contents"
        self._root = root
        self._limiter = trio.CapacityLimiter(THREADS)

    async def create(self, part: UploadUid) -> None:
        await self._run(self._make_part, part)

    async def size(self, part: UploadUid) -> int:
        return await self._run(_size_of, self._part(part)) or 0

    @asynccontextmanager
    async def append(self, part: UploadUid, *, offset: int) -> AsyncIterator["LocalPart"]:
        file = await self._run(_open_at, self._part(part), offset)
        try:
            yield LocalPart(file, offset, self._limiter)
        finally:
            os.close(file)

    @asynccontextmanager
    async def read_part(self, part: UploadUid, *, start: int, length: int) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._reading(self._part(part), start, length) as pieces:
            yield pieces

    @asynccontextmanager
    async def read(self, key: ContentKey, *, start: int, length: int) -> AsyncIterator[AsyncIterator[bytes]]:
        async with self._reading(self._content(key), start, length) as pieces:
            yield pieces

    @asynccontextmanager
    async def opened(self, key: ContentKey) -> AsyncIterator[int]:
        """A content as a file to be read by position, until the block ends. Raises `NotFound`, `StorageFailed`."""
        file = await self._run(_open_to_read, self._content(key))
        try:
            yield file
        finally:
            os.close(file)

    async def finish(self, part: UploadUid, key: ContentKey) -> None:
        await self._run(self._publish, self._part(part), self._content(key), key.size)

    async def holds(self, key: ContentKey) -> bool:
        return await self._run(_size_of, self._content(key)) == key.size

    async def delete_part(self, part: UploadUid) -> None:
        await self._run(_remove, self._part(part))

    async def delete(self, key: ContentKey) -> None:
        await self._run(_remove, self._content(key))

    async def free_bytes(self) -> int | None:
        return await self._run(self._free)

    def _part(self, part: UploadUid) -> Path:
        return self._parts / str(part)

    def _content(self, key: ContentKey) -> Path:
        """256 folders, so that none grows beyond what people can list."""
        return self._contents / key.sha256[:2] / f"{key.sha256}-{key.size}"

    async def _run(self, work: Callable[[*Ts], T], *arguments: *Ts) -> T:
        """In a thread; cancelling waits for it, because what it does cannot be taken back."""
        with _said_as_ours():
            return await trio.to_thread.run_sync(work, *arguments, limiter=self._limiter)

    @asynccontextmanager
    async def _reading(self, path: Path, start: int, length: int) -> AsyncIterator[AsyncIterator[bytes]]:
        file = await self._run(_open_to_read, path)
        try:
            async with aclosing(self._pieces(file, start, length)) as pieces:
                yield pieces
        finally:
            os.close(file)

    async def _pieces(self, file: int, at: int, left: int) -> AsyncGenerator[bytes, None]:
        while left > 0 and (piece := await self._run(os.pread, file, min(left, PIECE_BYTES), at)):
            at += len(piece)
            left -= len(piece)
            yield piece

    # In threads.

    def _make_part(self, part: UploadUid) -> None:
        self._make_directory(self._parts)
        with suppress(FileExistsError):
            os.close(os.open(self._part(part), os.O_CREAT | os.O_EXCL | os.O_WRONLY | _ALWAYS, FILE_MODE))
        _sync_directory(self._parts)

    def _publish(self, part: Path, content: Path, size: int) -> None:
        """A rename is all or nothing; both folders are written down before anybody is told."""
        is_there = _size_of(content) == size
        try:
            file = os.open(part, os.O_RDWR | _ALWAYS)
        except FileNotFoundError:
            if not is_there:
                raise
            return
        try:
            _cut_to(file, size)
            os.fsync(file)
        finally:
            os.close(file)
        if is_there:
            part.unlink()
        else:
            self._make_directory(content.parent)
            part.rename(content)
            _sync_directory(content.parent)
        _sync_directory(part.parent)

    def _make_directory(self, path: Path) -> None:
        """With those above it up to the root's own, each written down in the one that holds it."""
        missing = []
        while not path.is_dir():
            missing.append(path)
            path = path.parent
        for folder in reversed(missing):
            with suppress(FileExistsError):
                folder.mkdir(mode=DIRECTORY_MODE)
            _sync_directory(folder.parent)

    def _free(self) -> int:
        at = self._root
        while not at.exists():
            at = at.parent
        found = os.statvfs(at)
        return found.f_bavail * found.f_frsize


class LocalPart:
    """`PartWriter` on a file that stays its opener's."""

    def __init__(self, file: int, offset: int, limiter: trio.CapacityLimiter) -> None:
        self._file = file
        self._offset = offset
        self._limiter = limiter

    async def write(self, data: bytes | bytearray) -> None:
        with _said_as_ours():
            await trio.to_thread.run_sync(_write_all, self._file, data, self._offset, limiter=self._limiter)
        self._offset += len(data)

    async def flush(self, *, is_last: bool = False) -> int:  # noqa: ARG002 - a file has parts of any size
        with _said_as_ours():
            await trio.to_thread.run_sync(os.fdatasync, self._file, limiter=self._limiter)
        return self._offset


@contextmanager
def _said_as_ours() -> Iterator[None]:
    try:
        yield
    except FileNotFoundError:
        raise NotFound("These bytes are not here.") from None
    except OSError as error:
        if error.errno in _NO_ROOM:
            raise StorageFull("There is no room for these bytes now.") from error
        raise StorageFailed(f"Where files lie cannot be used now: {error.strerror}.") from error


def _open_at(path: Path, offset: int) -> int:
    file = os.open(path, os.O_RDWR | _ALWAYS)
    try:
        _cut_to(file, offset)
    except BaseException:
        os.close(file)
        raise
    return file


def _cut_to(file: int, size: int) -> None:
    """What a crash, or a body that was not appended, left beyond is gone."""
    found = os.fstat(file).st_size
    if found < size:
        raise StorageFailed(f"Only {found} of {size} bytes of an upload are on the disk.")
    if found > size:
        os.ftruncate(file, size)


def _open_to_read(path: Path) -> int:
    return os.open(path, os.O_RDONLY | _ALWAYS)


def _write_all(file: int, data: bytes | bytearray, offset: int) -> None:
    view = memoryview(data)
    while view:
        written = os.pwrite(file, view, offset)
        offset += written
        view = view[written:]


def _size_of(path: Path) -> int | None:
    try:
        return path.stat(follow_symlinks=False).st_size
    except FileNotFoundError:
        return None


def _remove(path: Path) -> None:
    with suppress(FileNotFoundError):
        path.unlink()
        _sync_directory(path.parent)


def _sync_directory(path: Path) -> None:
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        os.fsync(folder)
    finally:
        os.close(folder)
