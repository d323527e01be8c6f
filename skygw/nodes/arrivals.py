"""Handshakes begin one by one, in order and with pauses, so that the connected ones do not feel a storm."""

from collections.abc import Callable

import trio

from skygw.errors import LinkLost, RoutingUnavailable

PAUSE_TURNS = 4
"""Turns of the event loop between two handshakes. In each turn every task that can go on makes one step, and a direct
request needs a dozen turns: the fewer steps of handshakes there are in a turn, the sooner it is through. It costs
handshakes nothing, because a turn with little in it is short.
"""

WAIT_S = 15.0
"""How long a node stands in line before it is sent away: less than the 20 s after which it would leave by itself, and
leave its turn unused.
"""
RETRY_AFTER_S = 2.0


class ArrivalLine:
    """First come, first served. Standing in line costs nothing but memory: no token is read, nobody is asked. Whoever
    has had a turn is out of it: a slow issuer, database or node keeps nobody waiting here.
    """

    def __init__(self, *, wait_s: float = WAIT_S) -> None:
        self._turn = trio.CapacityLimiter(1)
        self._wait_s = wait_s

    @property
    def waiting(self) -> int:
        """How many stand in line now."""
        return self._turn.statistics().tasks_waiting

    async def turn(self, is_here: Callable[[], bool]) -> None:
        """Returns when it is this handshake's turn. Cancelling gives up the place in line.

        Raises `RoutingUnavailable` when it did not come within `wait_s`, and `LinkLost` when it came and the node had
        left: by `is_here`, asked once.
        """
        with trio.move_on_after(self._wait_s) as patience:
            await self._turn.acquire()
        if patience.cancelled_caught:
            raise RoutingUnavailable("Too many installations are connecting at once.", retry_after_s=RETRY_AFTER_S)
        try:
            if not is_here():
                raise LinkLost("The node left while it stood in line.")
            for _ in range(PAUSE_TURNS):
                await trio.lowlevel.checkpoint()
        finally:
            self._turn.release()
