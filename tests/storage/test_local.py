"""Files in a directory: the contract, and who may read them."""

import errno
import os
import stat
from pathlib import Path

import pytest

from skygw.errors import NotFound, StorageFailed, StorageFull
from skygw.storage.local import LocalStore
from tests.storage.contract import Again, ByteStoreContract, a_part, all_of, appended, key_of, stored


class TestLocalStore(ByteStoreContract):
    @pytest.fixture
    def store(self, tmp_path: Path) -> LocalStore:
        return LocalStore(tmp_path / "files")

    @pytest.fixture
    def again(self, tmp_path: Path) -> Again:
        return lambda: LocalStore(tmp_path / "files")

    async def test_nobody_else_may_read_or_list(self, store: LocalStore, tmp_path: Path) -> None:
        old = os.umask(0)
        try:
            await stored(store, b"a part")
            await store.finish(await stored(store, b"a content"), key_of(b"a content"))
        finally:
            os.umask(old)
        modes = {(path.is_dir(), stat.S_IMODE(path.stat().st_mode)) for path in [tmp_path / "files", *_below(tmp_path)]}
        assert modes == {(True, 0o700), (False, 0o600)}

    async def test_a_link_is_not_followed(self, store: LocalStore, tmp_path: Path) -> None:
        secret = tmp_path / "secret"
        secret.write_bytes(b"of somebody else")
        part, key = await stored(store, b"x"), key_of(b"of somebody else")
        target = tmp_path / "files" / "parts" / str(part)
        target.unlink()
        target.symlink_to(secret)
        with pytest.raises(StorageFailed):
            await appended(store, part, b"y", offset=0)
        with pytest.raises(StorageFailed):
            await all_of(store.read_part(part, start=0, length=100))
        with pytest.raises(StorageFailed):
            await store.finish(part, key)
        assert secret.read_bytes() == b"of somebody else"

    async def test_a_part_that_was_lost_is_not_begun_in_the_middle(self, store: LocalStore, tmp_path: Path) -> None:
        part = await stored(store, b"four")
        os.truncate(tmp_path / "files" / "parts" / str(part), 2)
        with pytest.raises(StorageFailed, match="Only 2 of 4 bytes"):
            await appended(store, part, b"more", offset=4)
        with pytest.raises(StorageFailed, match="Only 2 of 4 bytes"):
            await store.finish(part, key_of(b"four"))
        (tmp_path / "files" / "parts" / str(part)).unlink()
        with pytest.raises(NotFound):
            await appended(store, part, b"more", offset=4)

    async def test_a_full_disk_and_a_broken_one_are_told_apart(
        self, store: LocalStore, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        part = a_part()
        await store.create(part)
        for number, expected in ((errno.ENOSPC, StorageFull), (errno.EDQUOT, StorageFull), (errno.EIO, StorageFailed)):

            def fail(*_: object, number: int = number) -> int:
                raise OSError(number, os.strerror(number))

            monkeypatch.setattr(os, "pwrite", fail)
            with pytest.raises(expected):
                await appended(store, part, b"data")

    async def test_free_room_is_told_before_the_directory_exists(self, store: LocalStore, tmp_path: Path) -> None:
        free = await store.free_bytes()
        assert free is not None
        assert free > 0
        assert _below(tmp_path) == []


def _below(folder: Path) -> list[Path]:
    return list((folder / "files").rglob("*"))
