"""Whether the peer of a link is still there: asks a silent one for a sign of life, and gives up one that is gone.

It owns no task and no socket. Whoever owns the link runs `keep` beside its work and says when bytes have come.
"""

from dataclasses import dataclass
from typing import Final, Protocol

import trio

LOOKS_AFTER_EVERY_S: Final = 3.0
"""How soon it is noticed that the app is busy elsewhere; sooner where the rhythm is a fast one."""

TURNS_TO_READ: Final = 2
"""In which bytes that lie in the kernel reach whoever reads."""


@dataclass(frozen=True, slots=True)
class Rhythm:
    """When a silent peer is asked for a sign of life, and when it is given up. Seconds without any byte from it."""

    ping_after_s: float = 10.0
    gone_after_s: float = 25.0


class Kept(Protocol):
    """What keeping a link needs of it."""

    ended: trio.Event

    @property
    def is_read_otherwise(self) -> bool:
        """Somebody reads it or is about to; or there is nothing more to read."""
        ...

    @property
    def is_full(self) -> bool:
        """So much lies here unread that nothing more is taken from the peer."""
        ...

    async def read_some(self, *, until: float) -> None:
        """One read, given up at `until` on trio's clock; what it brings is answered, and reported to `heard`."""
        ...

    def ask(self) -> bool:
        """Lets a ping go out with the next write. False: not now, since somebody writes, or no more at all."""
        ...

    async def write_control(self) -> None:
        """Writes the ping and what else the link itself has to say, unless somebody is writing."""
        ...

    def give_up(self, reason: str) -> None:
        """Ends the link: its peer is gone."""
        ...


class Keeping:
    """The silence of one peer. Any byte is life: a pong is asked for only where nothing else comes."""

    __slots__ = ("_asked", "_looks_every_s", "_rhythm", "_seen_at", "_silent_since", "last_heard_at")

    def __init__(self, rhythm: Rhythm) -> None:
        self._rhythm = rhythm
        self._looks_every_s = min(LOOKS_AFTER_EVERY_S, rhythm.ping_after_s / 3)
        self._asked = False
        self.last_heard_at = self._silent_since = self._seen_at = trio.current_time()

    def heard(self) -> None:
        """Bytes have come."""
        self.last_heard_at = self._silent_since = trio.current_time()
        self._asked = False

    async def keep(self, link: Kept) -> None:
        """Minds the silence, and reads ahead while the app is busy elsewhere. Returns when the link has ended.

        Cancelling stops the looking, and leaves the link as it is.
        """
        while not link.ended.is_set():
            with trio.move_on_at(min(trio.current_time() + self._looks_every_s, self._gone_at())):
                await link.ended.wait()
            if self.last_heard_at == self._seen_at:
                await self._read_ahead(link)
            self._seen_at = self.last_heard_at
            if not link.ended.is_set():
                await self._mind_silence(link)

    async def _read_ahead(self, link: Kept) -> None:
        until = min(trio.current_time() + self._looks_every_s, self._gone_at())
        while not link.is_read_otherwise and trio.current_time() < until:
            if link.is_full:
                self._silent_since = trio.current_time()  # it is we who do not listen
                return
            await link.read_some(until=until)

    def _gone_at(self) -> float:
        return self._silent_since + self._rhythm.gone_after_s

    async def _mind_silence(self, link: Kept) -> None:
        if trio.current_time() >= self._gone_at():
            # The process itself may have stood still: what has come meanwhile is read before anybody is blamed.
            for _ in range(TURNS_TO_READ):
                await trio.lowlevel.checkpoint()
        silent_s = trio.current_time() - self._silent_since
        if trio.current_time() >= self._gone_at():
            link.give_up(f"nothing came for {silent_s:.0f} s")
        elif silent_s >= self._rhythm.ping_after_s and not self._asked:
            self._asked = link.ask()
        await link.write_control()
