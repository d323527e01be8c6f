"""The node's state while it runs: changed in memory at once, written to the disk beside the loop."""

import logging
from dataclasses import replace
from functools import partial
from math import inf
from pathlib import Path
from uuid import UUID

import trio

from skygw.client.disk_work import DiskWork
from skygw.client.node_state import NodeState, load_state, save_state
from skygw.ids import InstanceUid
from skygw.protocol.gateway_frames import Welcome

log = logging.getLogger("skygw.client")

RETRY_S = 5.0
"""Until a disk that failed is tried again: a fence that it lacks would be forgotten with the program."""


class KeptState:
    """Made by `load`. A disk that fails is logged and no more: memory holds for this run of the program."""

    def __init__(self, directory: Path, state: NodeState, disk: DiskWork) -> None:
        self._directory = directory
        self._disk = disk
        self._changed = trio.Event()
        self._behind = False
        """Whether the disk lacks something of what is so now."""
        self.now = state

    @classmethod
    async def load(cls, directory: Path, *, instance_uid: InstanceUid | None, disk: DiskWork) -> "KeptState":
        """Raises `StateUnreadable`, `OSError`."""
        return cls(directory, await disk(partial(load_state, directory, instance_uid=instance_uid)), disk)

    async def take_welcome(self, welcome: Welcome) -> None:
        """On disk before anything is acted upon in this session."""
        self.now = replace(self.now.with_epoch(welcome.epoch), link_loss_policy=welcome.link_loss_policy)
        await self._save()
        if self._behind:
            self._changed.set()  # `run` tries again

    def accept_fence(self, uid: UUID, fence: int) -> bool:
        """Whether it is the highest of this telescope or device; a higher one is remembered."""
        known = self.now.last_fences.get(uid, 0)
        if fence > known:
            self.now = self.now.with_fence(uid, fence)
            self._changed.set()
        return fence >= known

    async def run(self) -> None:
        """Writes what changes, and what a disk that failed did not take. Never returns."""
        while True:
            with trio.move_on_after(RETRY_S if self._behind else inf):
                await self._changed.wait()
            self._changed = trio.Event()
            await self._save()

    async def _save(self) -> None:
        try:
            await self._disk(partial(save_state, self._directory, self.now))
        except OSError as error:
            # A full disk must not keep a telescope off the network.
            if not self._behind:
                log.error("the node's state cannot be written: %s", error)  # noqa: TRY400
            self._behind = True
        else:
            self._behind = False
