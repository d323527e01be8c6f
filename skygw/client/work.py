"""The work queue as the node's tasks see it: one call at a time, in a thread, and an event when something changes."""

import logging
import sqlite3
from collections.abc import Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import TypeVar

import trio

from skygw.client.disk_thread import DiskThread
from skygw.client.disk_work import DiskWork, in_a_thread
from skygw.client.spare_disk import SpareDisk, is_full
from skygw.client.work_items import FailedItem
from skygw.client.work_queue import Owed, WorkQueue

log = logging.getLogger("skygw.client")

T = TypeVar("T")

RETRY_S = 5.0


class Work:
    """`owed` and `failed` are as the last call left them. A call that was cancelled has still happened."""

    def __init__(self, queue: WorkQueue, spare: SpareDisk, disk: DiskWork) -> None:
        self._queue = queue
        self._spare = spare
        self._thread = DiskThread(disk)
        self._changed = trio.Event()
        self._told = False
        self.owed: Owed = queue.owed()
        self.failed = tuple[FailedItem, ...](queue.failed())

    @classmethod
    async def open(cls, directory: Path, *, spare: SpareDisk, disk: DiskWork | None = None) -> "Work":
        """Raises `sqlite3.Error`, `OSError`. The directory is there."""
        disk = disk or in_a_thread()

        def open_queue() -> Work:
            return cls(WorkQueue(directory, spare=spare), spare, disk)

        return await disk(open_queue)

    @property
    def changed(self) -> trio.Event:
        """Set at the next change. Take it before looking."""
        return self._changed

    async def ask(self, question: Callable[[WorkQueue], T]) -> T:
        """Looks something up. A disk that fails is asked again: what is delivered must go on when it recovers."""
        return await self._patiently(partial(self._thread.run, partial(question, self._queue), then=_nothing))

    async def note(self, change: Callable[[WorkQueue], T]) -> T:
        """Changes something because of what the hub has said, however long the disk fails."""
        return await self._patiently(partial(self.keep, change))

    async def keep(self, change: Callable[[WorkQueue], T]) -> T:
        """Changes something for the embedder: on the disk when it returns. Raises `sqlite3.Error`."""
        return await self._thread.run(partial(self._with_reserve, change), then=self._tell)

    def _with_reserve(self, change: Callable[[WorkQueue], T]) -> T:
        try:
            done = change(self._queue)
        except sqlite3.Error as error:
            if not (is_full(error) and self._spare.give_up()):
                raise
            done = change(self._queue)
        self.owed = self._queue.owed()
        self.failed = tuple(self._queue.failed()) if self.owed.failed else ()
        return done

    def look_again(self) -> None:
        """Lets everybody look who waits for a change."""
        self._tell()

    def _tell(self) -> None:
        self._changed.set()
        self._changed = trio.Event()

    async def _patiently(self, call: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await call()
            except sqlite3.Error as error:
                if not self._told:
                    log.error("the work queue fails, and is tried again every %.0f s: %s", RETRY_S, error)  # noqa: TRY400
                    self._told = True
            await trio.sleep(RETRY_S)

    async def close(self) -> None:
        """Waits for the call that is going on, a few seconds at most."""
        await self._thread.close(self._queue.close)


def _nothing() -> None:
    pass
