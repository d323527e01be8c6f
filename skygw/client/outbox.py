"""The journal as the node's tasks see it: one call at a time, away from the loop, and an event for what is new."""

from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import TypeVar

import trio

from skygw.client.disk_thread import DiskThread
from skygw.client.disk_work import DiskWork, in_a_thread
from skygw.client.journal import Journal, Row
from skygw.client.spare_disk import SpareDisk
from skygw.ids import CommandId, OutboxUid
from skygw.protocol.node_frames import Durable, PublishCommandResult

T = TypeVar("T")

READ_FRAMES = 64
READ_BYTES = 256 * 1024
"""One read ahead of the writer; this much of the outbox is in memory at a time."""


class Outbox:
    """Durable frames, sent in order of `seq` and kept until the hub has them. Everything raises `sqlite3.Error`.

    A call that was cancelled while its thread ran has still happened.
    """

    def __init__(self, journal: Journal, disk: DiskWork) -> None:
        self._journal = journal
        self._thread = DiskThread(disk)
        self._changed = trio.Event()
        self._note()

    @classmethod
    async def open(
        cls, directory: Path, *, max_bytes: int, spare: SpareDisk | None = None, disk: DiskWork | None = None
    ) -> "Outbox":
        """Makes the directory and the file if need be. Raises `StateInUse`, `OSError`. Where `spare` says that the disk
        is nearly full, lines and events become a gap as they do when the outbox is full.
        """
        disk = disk or in_a_thread()

        def open_journal() -> Journal:
            directory.mkdir(mode=0o700, parents=True, exist_ok=True)
            return Journal(directory, max_bytes=max_bytes, spare=spare)

        return cls(await disk(open_journal), disk)

    def _note(self) -> None:
        self.outbox_uid: OutboxUid = self._journal.outbox_uid
        self.last_seq = self._journal.last_seq
        self.acked = self._journal.acked

    async def _run(self, work: Callable[[], T]) -> T:
        def note() -> None:
            before = self.last_seq
            self._note()
            if self.last_seq != before:
                self._changed.set()
                self._changed = trio.Event()

        return await self._thread.run(work, then=note)

    async def wait_beyond(self, seq: int) -> None:
        """Returns when there is a frame beyond `seq`."""
        while self.last_seq <= seq:
            await self._changed.wait()

    async def append(self, frame: Durable) -> int | None:
        """Keeps a log line or an event; its `seq`, or `None` when the outbox is full and it became part of a gap."""
        return await self._run(lambda: self._journal.append(frame, may_drop=True))

    async def read(self, *, after: int) -> list[Row]:
        return await self._run(lambda: self._journal.read(after=after, at_most=READ_FRAMES, max_bytes=READ_BYTES))

    async def acknowledge(self, seq: int) -> None:
        await self._run(lambda: self._journal.acknowledge(seq))

    async def start_anew(self, *, hub_has: int) -> None:
        await self._run(lambda: self._journal.start_anew(hub_has=hub_has))

    async def begin_command(
        self, command_id: CommandId, reports: Iterable[PublishCommandResult]
    ) -> PublishCommandResult | None:
        """Claims the id; returns what is known of it if it was claimed before."""
        return await self._run(lambda: self._journal.begin_command(command_id, reports))

    async def report(self, report: PublishCommandResult) -> None:
        await self._run(lambda: self._journal.report(report))

    async def publish_again(
        self, command_ids: Iterable[CommandId], *, never: Mapping[CommandId, PublishCommandResult] | None = None
    ) -> int:
        """With `never`, what is not known of these is kept and published as it says."""
        return await self._run(lambda: self._journal.publish_again(command_ids, never=never))

    async def command_ids(self, *, at_most: int) -> list[CommandId]:
        return await self._run(lambda: self._journal.command_ids(at_most=at_most))

    async def unfinished(self) -> list[PublishCommandResult]:
        return await self._run(self._journal.unfinished)

    async def close(self) -> None:
        """Waits for the call that is going on, cancelled or not: a few seconds at most."""
        await self._thread.close(self._journal.close)
