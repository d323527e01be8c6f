"""Texts that wait for their turn on a socket, where the answers to one request are told."""

from collections import deque
from collections.abc import Callable

import trio

from skygw.telemetry.outlet import SubscriberOutlet


def _nothing_more() -> None:
    """Where nobody keeps a place for what is said."""


class Words:
    """A `Speaker`. What is `urgent` comes before what is streamed. Whoever puts more than is taken waits."""

    effort = 0

    def __init__(
        self, outlet: SubscriberOutlet, *, urgent: bool = False, when_said: Callable[[], None] = _nothing_more
    ) -> None:
        """`when_said`: called once the last words were taken; not if the socket ends before."""
        self._outlet = outlet
        self._urgent = urgent
        self._when_said = when_said
        self._texts: deque[str | bytes] = deque()
        self._is_last = False
        self._taken = trio.Event()

    @property
    def is_over(self) -> bool:
        return self._is_last and not self._texts

    async def put(self, text: str | bytes) -> None:
        """Waits until the text before has been taken: as fast as the socket takes it. Cancelled, nothing is put."""
        while self._texts:
            self._taken = trio.Event()
            await self._taken.wait()
        self._say(text)

    def end(self, text: str | bytes) -> None:
        """The last words. Does not wait."""
        self._is_last = True
        self._say(text)

    def withdraw(self) -> None:
        """What waits is not said."""
        self._texts.clear()

    def _say(self, text: str | bytes) -> None:
        self._texts.append(text)
        self._outlet.ready(self, urgent=self._urgent)

    # For the outlet.

    def take(self, now: float) -> str | bytes | None:  # noqa: ARG002 - nothing here waits for its time
        if not self._texts:
            return None
        text = self._texts.popleft()
        self._taken.set()
        if self.is_over:
            self._when_said()
        return text

    def told(self, count: int) -> None:
        """Nobody counts these."""
