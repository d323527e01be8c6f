"""Devices that move by themselves once they were told to: what a node's program does meanwhile is no matter to them."""

from uuid import UUID

import trio

from skygw.ids import CommandId
from tests.control.life_cycle.story import Motion, Stopping, Story


class Busy(Exception):
    """It moves already."""


class Device:
    """One that moves for a while, and stands `brake_s` after it was told to, unless its driver lies."""

    def __init__(self, uid: UUID, story: Story, *, brake_s: float, obeys: bool) -> None:
        self.uid = uid
        self._story = story
        self._brake_s = brake_s
        self._obeys = obeys
        self._motion: Motion | None = None
        self._changed = trio.Event()

    @property
    def moves(self) -> bool:
        return self._motion is not None and trio.current_time() < self._motion.over_at

    def begin(self, command_id: CommandId, takes_s: float) -> Motion:
        """Raises `Busy`."""
        if self.moves:
            raise Busy
        now = trio.current_time()
        self._motion = Motion(self.uid, command_id, now, now + takes_s)
        self._story.motions.append(self._motion)
        return self._motion

    def stop(self, command_id: CommandId | None) -> None:
        """By a command, or by the site itself."""
        now = trio.current_time()
        self._story.stoppings.append(Stopping(self.uid, command_id, now))
        motion = self._motion
        if motion is not None and self._obeys and now + self._brake_s < motion.over_at:
            motion.over_at = now + self._brake_s
            motion.was_stopped = True
            self._changed.set()

    async def over(self, motion: Motion) -> None:
        """Waits until it has ended, one way or the other."""
        while trio.current_time() < motion.over_at:
            self._changed = trio.Event() if self._changed.is_set() else self._changed
            with trio.move_on_at(motion.over_at):
                await self._changed.wait()
        await trio.lowlevel.checkpoint()

    async def stands(self) -> None:
        """Waits until nothing moves."""
        while self._motion is not None and self.moves:
            await self.over(self._motion)
        await trio.lowlevel.checkpoint()
