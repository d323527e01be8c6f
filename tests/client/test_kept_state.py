"""What the node must not forget is on the disk as soon as that takes it."""

import errno
import logging
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar
from uuid import uuid4

import pytest
import trio
import trio.testing

from skygw.client.kept_state import RETRY_S, KeptState

T = TypeVar("T")


class Disk:
    """Does its work at once, or fails."""

    def __init__(self) -> None:
        self.full = False

    async def __call__(self, work: Callable[[], T]) -> T:
        await trio.lowlevel.checkpoint()
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        return work()


async def test_a_fence_that_a_full_disk_did_not_take_is_written_when_there_is_room(
    autojump_clock: trio.testing.MockClock, tmp_path: Path, nursery: trio.Nursery, caplog: pytest.LogCaptureFixture
) -> None:
    disk, uid = Disk(), uuid4()
    state = await KeptState.load(tmp_path, instance_uid=None, disk=disk)
    nursery.start_soon(state.run)
    disk.full = True
    assert state.accept_fence(uid, 9)
    await trio.sleep(10 * RETRY_S)
    said = [record for record in caplog.records if record.levelno == logging.ERROR]
    assert len(said) == 1
    caplog.clear()
    disk.full = False
    await trio.sleep(2 * RETRY_S)
    restarted = await KeptState.load(tmp_path, instance_uid=None, disk=disk)
    assert not restarted.accept_fence(uid, 8)
