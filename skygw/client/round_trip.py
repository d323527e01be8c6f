"""How long the socket's round trip is now and how short it can be: what uploads have added to it (RFC 6817)."""

from collections import deque
from uuid import uuid4

import trio

from skygw.protocol.codec import encode
from skygw.protocol.node_frames import Ping

BASE_WINDOW_S = 600.0
"""How long a shortest round trip is believed; routes change, and LEDBAT keeps ten minutes (RFC 6817 §3.4.2)."""

BASE_SLICE_S = 60.0


class RoundTrip:
    """Of one session after the other. `ask` makes the pings; `answered` takes the pongs."""

    def __init__(self) -> None:
        self._asked: tuple[str, float] | None = None
        self._shortest: deque[tuple[float, float]] = deque()
        """(beginning of a slice, its shortest): a minimum that forgets."""
        self.last_s: float | None = None
        self.moved = trio.Event()
        """Set by the next answer."""
        self.linked = False
        """Whether there is a socket whose round trip could be asked for."""

    def begin(self) -> None:
        """A new link: what was asked on the old one is never answered."""
        self._asked = None
        self.last_s = None
        self._shortest.clear()  # another route, it may be
        self.linked = True

    def end(self) -> None:
        self.linked = False
        self._asked = None

    def ask(self) -> str | None:
        """A ping to be sent now; `None` while the last one is not answered."""
        if self._asked is not None:
            return None
        name = uuid4().hex
        self._asked = (name, trio.current_time())
        return encode(Ping(id=name))

    def answered(self, name: str | None) -> None:
        """A pong came; one that was not asked for here means nothing."""
        if self._asked is None or name != self._asked[0]:
            return
        now = trio.current_time()
        took_s = now - self._asked[1]
        self._asked = None
        self.last_s = took_s
        self.moved.set()
        self.moved = trio.Event()
        if self._shortest and now - self._shortest[-1][0] < BASE_SLICE_S:
            began, shortest = self._shortest[-1]
            self._shortest[-1] = (began, min(shortest, took_s))
        else:
            self._shortest.append((now, took_s))
        while len(self._shortest) > 1 and now - self._shortest[0][0] > BASE_WINDOW_S:
            self._shortest.popleft()

    def added_s(self) -> float | None:
        """By how much it is longer than it can be; of one that is overdue, by how much already. `None`: not known."""
        if not self._shortest:
            return None
        base_s = min(shortest for _, shortest in self._shortest)
        took_s = self.last_s or base_s
        if self._asked is not None:
            took_s = max(took_s, trio.current_time() - self._asked[1])
        return max(0.0, took_s - base_s)
