"""Handshakes begin a few at a time and in order, so that those who are connected do not feel a storm of them."""

from collections.abc import Callable

import trio

from skygw.errors import LinkLost, RoutingUnavailable
from skygw.turnstile import Turnstile

AT_ONCE = 8
PAUSE_TURNS = 4
"""So many handshakes begin in so many turns of the event loop: no fewer than the listener accepts, or those who give up
and come again would keep the line from moving. A direct request needs a dozen turns: the fewer steps of handshakes
there are in each, the sooner it is through.
"""

WAIT_S = 15.0
"""How long a node stands in line before it is sent away: less than the 20 s after which it would leave by itself, and
leave its turn unused.
"""
RETRY_AFTER_S = 2.0


class ArrivalLine:
    """Standing in line costs nothing but memory: no token is read, nobody is asked. Whoever has had a turn is out of
    it: a slow issuer, database or node keeps nobody waiting here.
    """

    def __init__(self, *, wait_s: float = WAIT_S) -> None:
        self._turnstile = Turnstile(pause_turns=PAUSE_TURNS, at_once=AT_ONCE)
        self._wait_s = wait_s

    async def turn(self, is_here: Callable[[], bool]) -> None:
        """Returns when it is this handshake's turn. Cancelling gives up the place in line.

        Raises `RoutingUnavailable` when it did not come within `wait_s`, and `LinkLost` when it came and the node had
        left: by `is_here`, asked once.
        """
        with trio.move_on_after(self._wait_s) as patience:
            await self._turnstile.passed()
        if patience.cancelled_caught:
            raise RoutingUnavailable("Too many installations are connecting at once.", retry_after_s=RETRY_AFTER_S)
        if not is_here():
            raise LinkLost("The node left while it stood in line.")
