"""Lets a few at a time pass, in order and with pauses: what comes by the thousand must not be done in one breath.

Trio runs every task that can go on before it looks at the sockets again. When a thousand links break at once, each step
of their ends is taken a thousand times before the next byte of anybody else is read.
"""

import trio


class Turnstile:
    """First come, first served, `at_once` side by side. `pause_turns` of the event loop go by before each.

    A pause costs those who pass nothing that others do not use: a turn in which nobody else has work is short. Turns
    in which others have much to do are long, and so `at_once` must keep up with what the others bring into the line.
    """

    def __init__(self, *, pause_turns: int, at_once: int = 1) -> None:
        self._pause_turns = pause_turns
        self._place = trio.CapacityLimiter(at_once)

    @property
    def waiting(self) -> int:
        """How many stand in line."""
        return self._place.statistics().tasks_waiting

    async def passed(self) -> None:
        """Returns when it is the caller's turn, who is then out of it. Cancelling gives up the place in line."""
        async with self._place:
            for _ in range(self._pause_turns):
                await trio.lowlevel.checkpoint()
